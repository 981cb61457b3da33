# A worker of Sallyport: it runs one command after the other, each as a fresh
# process in a process group and with pipes of its own, and ends with the channel
# that it was started on. See executor/warm in Sallyport's sources.
#
# Python 3.6 or later. NONCE is set by the line before this text.
import os, select, struct, sys, time
import _signal

HEAD = struct.Struct(">c16sI")
MOST = 1 << 18  # bytes of a frame
WINDOW = 1 << 18  # bytes of output that are not acknowledged
GATHER = 0.005  # seconds in which what a command begins with is gathered
CHANNEL_IN, CHANNEL_OUT = 0, 1

poller = select.poll()
wake_in, wake_out = os.pipe()
home = os.open(".", os.O_RDONLY)
incoming = bytearray()
outgoing = bytearray()


def environment():
    # What sshd and the login shell gave; Python may have set LC_CTYPE for itself.
    try:
        with open("/proc/self/environ", "rb") as f:
            return dict(v.split(b"=", 1) for v in f.read().split(b"\0") if b"=" in v)
    except OSError:
        return dict(os.environb)


ENVIRONMENT = environment()
SHELL = ENVIRONMENT.get(b"SHELL") or b"/bin/sh"


def put(kind, token, body=b""):
    outgoing.extend(HEAD.pack(kind, token, len(body)))
    outgoing.extend(body)


def flush():
    try:
        while outgoing:
            del outgoing[: os.write(CHANNEL_OUT, outgoing)]
    except OSError:
        outgoing.clear()  # the other side is gone, as the next read will say


def fill():
    # False at the end of the channel.
    data = os.read(CHANNEL_IN, 1 << 16)
    incoming.extend(data)
    return len(data) > 0


def take():
    # The next frame, or None if it is not complete.
    if len(incoming) < HEAD.size:
        return None
    kind, token, size = HEAD.unpack_from(incoming)
    if size > MOST:
        raise Broken
    end = HEAD.size + size
    if len(incoming) < end:
        return None
    body = bytes(incoming[HEAD.size : end])
    del incoming[:end]
    return kind, token, body


def strings(body):
    # Lists of strings: their number, and each with its size.
    at = 0
    while at < len(body):
        (count,) = struct.unpack_from(">I", body, at)
        at += 4
        found = []
        for _ in range(count):
            (size,) = struct.unpack_from(">I", body, at)
            at += 4
            found.append(body[at : at + size])
            at += size
        yield found


class Broken(Exception):
    # The other side does not keep to the protocol.
    pass


class Failed(Exception):
    # The command ends with a status and a text, as a shell would have it.
    def __init__(self, status, text):
        self.status, self.text = status, text


def candidates(program, env):
    if b"/" in program:
        return [program]
    path = env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin")
    return [os.path.join(d or b".", program) for d in path.split(b":")]


def find(program, env):
    denied = False
    for name in candidates(program, env):
        if os.path.isfile(name):
            if os.access(name, os.X_OK):
                return name
            denied = True
    if denied or b"/" in program and os.path.exists(program):
        raise Failed(126, program + b": cannot be executed\n")
    raise Failed(127, program + b": not found\n")


DEFAULTS = [getattr(_signal, n) for n in ("SIGPIPE", "SIGXFSZ", "SIGXFZ") if hasattr(_signal, n)]


def spawn(program, argv, env, fds):
    if not hasattr(os, "posix_spawn"):
        return fork(program, argv, env, fds)
    actions = [(os.POSIX_SPAWN_DUP2, fd, i) for i, fd in enumerate(fds)]
    return os.posix_spawn(program, argv, env, file_actions=actions, setpgroup=0, setsigdef=DEFAULTS)


def fork(program, argv, env, fds):
    # Before Python 3.8. The child tells by a pipe why it could not become program.
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            for number in DEFAULTS:
                _signal.signal(number, _signal.SIG_DFL)
            for i, fd in enumerate(fds):
                os.dup2(fd, i)
            os.execve(program, argv, env)
        except OSError as e:
            os.write(tell, struct.pack(">I", e.errno))
        finally:
            os._exit(127)
    os.close(tell)
    why = os.read(told, 4)
    os.close(told)
    if why:
        os.waitpid(pid, 0)
        number = struct.unpack(">I", why)[0]
        raise OSError(number, os.strerror(number))
    return pid


def enter(directory, env):
    if not directory:
        return
    try:
        os.chdir(directory)
    except OSError as e:
        raise Failed(126, b"cd: " + directory + b": " + e.strerror.encode() + b"\n")
    env[b"OLDPWD"] = env.get(b"PWD", b"")
    env[b"PWD"] = os.getcwdb()


def launch(argv, env, directory, fds):
    try:
        enter(directory, env)
        program = SHELL if argv[0] == b"" else find(argv[0], env)
        if argv[0] == b"":
            argv = [os.path.basename(SHELL), b"-c"] + argv[1:]
        try:
            return spawn(program, argv, env, fds)
        except OSError as e:
            if e.errno == 8:  # ENOEXEC: a script without "#!"
                return spawn(b"/bin/sh", [b"sh", program] + argv[1:], env, fds)
            if e.errno in (2, 7, 13, 20, 26, 40):  # it is about this command, not this node
                raise Failed(126, program + b": " + e.strerror.encode() + b"\n")
            raise
    finally:
        if directory:
            os.fchdir(home)


class Job:
    def __init__(self, token, body):
        self.token = token
        self.fds = {}  # of pipes: what they are for
        self.status = None
        self.credit = WINDOW
        self.stdin = None
        self.queue = bytearray()
        self.ended = False  # the input
        self.pid = 0
        self.dying = None  # when KILL follows TERM
        argv, env, rest = strings(body)
        values = dict(ENVIRONMENT)
        values.update(v.split(b"=", 1) for v in env)
        self.start(argv, values, rest[0], rest[1])

    def start(self, argv, env, directory, has_input):
        ends = []
        try:
            for _ in range(3):
                ends.extend(os.pipe())
            self.pid = launch(argv, env, directory, (ends[0], ends[3], ends[5]))
            self.born = time.monotonic()
        except Failed as f:
            for fd in ends:
                os.close(fd)
            put(b"S", self.token, struct.pack(">I", 0))
            put(b"2", self.token, f.text[:4096])
            put(b"X", self.token, struct.pack(">BI", 0, f.status))
            return
        except OSError as e:
            for fd in ends:
                os.close(fd)
            put(b"N", self.token, str(e.errno).encode())
            return
        for fd in (ends[0], ends[3], ends[5]):
            os.close(fd)
        self.announced = False
        self.stdin = ends[1]
        if has_input:
            os.set_blocking(self.stdin, False)
        else:
            self.close_input()
        self.watch(ends[2], b"1")
        self.watch(ends[4], b"2")

    def watch(self, fd, stream):
        self.fds[fd] = stream
        if self.credit > 0:
            poller.register(fd, select.POLLIN)

    def close_input(self):
        if self.stdin is not None:
            try:
                poller.unregister(self.stdin)
            except KeyError:
                pass
            os.close(self.stdin)
            self.stdin = None

    def over(self):
        return self.status is not None and not self.fds

    def announce(self):
        # Late, so that a short command is answered with one packet; how late is told.
        if not self.announced:
            self.announced = True
            late = int((time.monotonic() - self.born) * 1e6)
            frame = HEAD.pack(b"S", self.token, 4) + struct.pack(">I", late)
            outgoing[:0] = frame

    def send(self):
        self.announce()
        flush()

    def run(self):
        if self.pid:
            try:
                self.attend()
            except BaseException:
                self.kill(_signal.SIGKILL)
                raise
        put(b"Z", self.token)
        flush()

    def attend(self):
        while not self.over():
            events = poller.poll(self.patience())
            for fd, _ in events:
                self.handle(fd)
            now = time.monotonic()
            if self.dying and now >= self.dying:
                raise Broken
            if not events or now >= self.born + GATHER or len(outgoing) > 1 << 15:
                self.send()
        self.close_input()
        os.waitpid(self.pid, 0)  # now the number of the group may be another's
        self.pid = 0
        self.announce()

    def patience(self):
        # Milliseconds to wait for more before what is there is sent; None: for ever.
        if self.dying:
            return max(0, int((self.dying - time.monotonic()) * 1000) + 1)
        if self.announced and not outgoing:
            return None
        left = self.born + GATHER - time.monotonic()
        return max(0, int(left * 1000 + 0.999))

    def handle(self, fd):
        if fd in self.fds:
            self.read(fd)
        elif fd == CHANNEL_IN:
            self.channel()
        elif fd == wake_in:
            os.read(wake_in, 512)
        elif fd == self.stdin:
            self.write()
        if self.status is None and (fd == wake_in or not self.fds):
            self.reap()

    def read(self, fd):
        if self.credit == 0:
            return
        data = os.read(fd, min(self.credit, 1 << 15))
        if not data:
            poller.unregister(fd)
            os.close(fd)
            del self.fds[fd]
            return
        put(self.fds[fd], self.token, data)
        self.credit -= len(data)
        if self.credit == 0:
            for other in self.fds:
                poller.unregister(other)

    def reap(self):
        # The process stays a zombie, so that the number of its group stays its own.
        r = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if r is not None:
            self.status = r.si_status
            killed = r.si_code != os.CLD_EXITED
            put(b"X", self.token, struct.pack(">BI", killed, r.si_status))

    def channel(self):
        if not fill():
            self.lost()
            return
        while True:
            frame = take()
            if frame is None:
                return
            kind, token, body = frame
            if token != self.token:
                raise Broken
            if kind == b"I":
                self.queue.extend(body)
                self.write()
            elif kind == b"E":
                self.ended = True
                self.write()
            elif kind == b"A":
                self.acknowledged(struct.unpack(">I", body)[0])
            elif kind == b"K":
                self.kill(getattr(_signal, "SIG" + body.decode(), 0))
            else:
                raise Broken

    def acknowledged(self, count):
        if self.credit == 0 and count > 0:
            for fd in self.fds:
                poller.register(fd, select.POLLIN)
        self.credit += count

    def write(self):
        size = len(self.queue)
        if self.stdin is not None and size:
            try:
                del self.queue[: os.write(self.stdin, self.queue)]
            except BlockingIOError:
                pass
            except OSError:
                self.close_input()
        if self.stdin is None:
            self.queue.clear()
        elif self.queue:
            poller.register(self.stdin, select.POLLOUT)
        elif self.ended:
            self.close_input()
        else:
            try:
                poller.unregister(self.stdin)
            except KeyError:
                pass
        if size > len(self.queue):
            put(b"A", self.token, struct.pack(">I", size - len(self.queue)))

    def kill(self, number):
        if number and self.pid:
            try:
                os.killpg(self.pid, number)
            except OSError:
                pass

    def lost(self):
        # Nobody is there any more: what runs is ended.
        if self.dying is None:
            poller.unregister(CHANNEL_IN)
            self.kill(_signal.SIGTERM)
            self.dying = time.monotonic() + 2


def next_frame():
    while True:
        frame = take()
        if frame is not None:
            return frame
        if not fill():
            os._exit(0)


def main():
    os.set_blocking(wake_in, False)
    os.set_blocking(wake_out, False)
    _signal.set_wakeup_fd(wake_out)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    poller.register(CHANNEL_IN, select.POLLIN)
    poller.register(wake_in, select.POLLIN)
    last = None
    put(b"H", NONCE, b"1 %d.%d" % sys.version_info[:2])
    flush()
    while True:
        kind, token, body = next_frame()
        if kind == b"C" and token != last:
            job = Job(token, body)
            job.run()
            last = token
        elif token != last or kind == b"C":
            raise Broken


try:
    main()
except Broken:
    os._exit(3)
