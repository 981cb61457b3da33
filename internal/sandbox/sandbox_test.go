package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program runs itself in the sandbox: nothing that was restricted can be undone.
const inside = "SALLYPORT_TEST_SANDBOX"

func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		os.Exit(tryAll(dir))
	}
	os.Exit(m.Run())
}

// A try is one thing that code in the sandbox may or may not do.
type try struct {
	name string
	do   func(dir string) error
	may  bool
}

func tries() []try {
	return []try{
		{"read a file that is given", func(d string) error { return readFile(filepath.Join(d, "read", "file")) }, true},
		{"read a file that replaced another", func(d string) error { return readFile(filepath.Join(d, "read", "later")) }, true},
		{"write, rename and remove in a folder that is given", replaceFile, true},
		{"make a folder there", func(d string) error { return os.Mkdir(filepath.Join(d, "write", "folder"), 0o700) }, true},
		{"read another file", func(d string) error { return readFile(filepath.Join(d, "other", "secret")) }, false},
		{"read it through a link in a folder that is given", func(d string) error { return readFile(filepath.Join(d, "write", "link")) }, false},
		{"list another folder", func(d string) error { _, err := os.ReadDir(filepath.Join(d, "other")); return err }, false},
		{"write to a folder to read", func(d string) error { return os.WriteFile(filepath.Join(d, "read", "new"), nil, 0o600) }, false},
		{"write to the file to read", func(d string) error { return os.WriteFile(filepath.Join(d, "read", "file"), nil, 0o600) }, false},
		{"truncate another file", func(d string) error { return os.Truncate(filepath.Join(d, "other", "secret"), 0) }, false},
		{"remove another file", func(d string) error { return os.Remove(filepath.Join(d, "other", "secret")) }, false},
		{"make a symbolic link", func(d string) error { return os.Symlink("/", filepath.Join(d, "write", "new")) }, false},
		{"make a device or a pipe", func(d string) error { return unix.Mknod(filepath.Join(d, "write", "pipe"), unix.S_IFIFO|0o600, 0) }, false},
		{"start a program", func(string) error { return exec.Command("/bin/true").Run() }, false},
		{"become a program", func(string) error { return syscall.Exec("/bin/true", []string{"true"}, nil) }, false},
		{"start a program that it wrote", func(d string) error { return exec.Command(filepath.Join(d, "write", "program")).Run() }, false},
		{"fork", func(string) error {
			_, _, e := syscall.RawSyscall(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0)
			return fromErrno(e)
		}, false},
		{"trace its parent", func(string) error { return unix.PtraceAttach(os.Getppid()) }, false},
		{"signal its parent", func(string) error { return unix.Kill(os.Getppid(), 0) }, false},
		{"become another user", func(string) error { return unix.Setresuid(12345, 12345, 12345) }, false},
		{"make a user namespace", func(string) error { return unix.Unshare(unix.CLONE_NEWUSER) }, false},
		{"mount", func(d string) error { return unix.Mount("none", filepath.Join(d, "write"), "tmpfs", 0, "") }, false},
		{"change its root", func(d string) error { return unix.Chroot(filepath.Join(d, "write")) }, false},
		{"make memory executable", executableMemory, false},
		{"map a file as code", func(d string) error { return mapCode(filepath.Join(d, "read", "file")) }, false},
		{"listen on a port", func(string) error { return listen("tcp4", "127.0.0.1:0") }, false},
		{"listen on a socket in a folder that is given", func(d string) error { return listen("unix", filepath.Join(d, "write", "socket")) }, false},
		{"send raw packets", func(string) error { return openSocket(unix.AF_PACKET, unix.SOCK_RAW) }, false},
		{"ask the kernel by netlink", func(string) error { return openSocket(unix.AF_NETLINK, unix.SOCK_RAW) }, false},
		{"use the kernel's cryptography", func(string) error { return openSocket(unix.AF_ALG, unix.SOCK_SEQPACKET) }, false},
		{"load a program into the kernel", func(string) error { _, _, e := syscall.Syscall(unix.SYS_BPF, 0, 0, 0); return fromErrno(e) }, false},
		{"queue work past the filter (io_uring)", func(string) error { _, _, e := syscall.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return fromErrno(e) }, false},
		{"read the kernel's keys", func(string) error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); return err }, false},
		{"put text into a terminal", func(string) error { return unix.IoctlSetInt(0, unix.TIOCSTI, 0) }, false},
		{"take memory of its parent", func(string) error { _, err := unix.ProcessVMReadv(os.Getppid(), nil, nil, 0); return err }, false},
		{"connect to an address", dial, true},
		{"signal itself", func(string) error { return unix.Kill(os.Getpid(), 0) }, true},
	}
}

// tryAll enters the sandbox and tells on standard output what became of each try.
func tryAll(dir string) int {
	// A thread that was there before must be bound, too.
	tasks, results := make(chan func(), 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		for do := range tasks {
			do()
			results <- struct{}{}
		}
	}()
	state, err := Apply(Config{Write: []string{filepath.Join(dir, "write"), filepath.Join(dir, "missing")}, Read: []string{filepath.Join(dir, "read")}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	outcome := map[string]string{}
	for _, t := range tries() {
		tasks <- func() {
			if err := t.do(dir); err != nil {
				outcome[t.name] = err.Error()
			}
		}
		<-results
	}
	if err := json.NewEncoder(os.Stdout).Encode(struct {
		State   State
		Outcome map[string]string
	}{state, outcome}); err != nil {
		return 1
	}
	return 0
}

func TestSandboxForbids(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"read", "write", "other"} {
		must(t, os.Mkdir(filepath.Join(dir, folder), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "read", "file"), []byte("text"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "other", "secret"), []byte("text"), 0o600))
	must(t, os.Symlink(filepath.Join(dir, "other", "secret"), filepath.Join(dir, "write", "link")))
	must(t, os.WriteFile(filepath.Join(dir, "write", "program"), []byte("#!/bin/true\n"), 0o700))
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	must(t, os.WriteFile(filepath.Join(dir, "read", "address"), []byte(l.Addr().String()), 0o600))

	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), inside+"="+dir)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, stdin.Close())
	// The rule is about the folder, so that files may be replaced.
	must(t, os.WriteFile(filepath.Join(dir, "read", "new"), []byte("text"), 0o600))
	must(t, os.Rename(filepath.Join(dir, "read", "new"), filepath.Join(dir, "read", "later")))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, problems.String())
	}
	var got struct {
		State   State
		Outcome map[string]string
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if !got.State.Whole() {
		t.Errorf("this kernel has only a part of the sandbox: %+v. Tests need Linux 6.12", got.State)
	}
	for _, try := range tries() {
		switch why, refused := got.Outcome[try.name]; {
		case try.may && refused:
			t.Errorf("%s: %s", try.name, why)
		case !try.may && !refused:
			t.Errorf("%s: was possible", try.name)
		case refused && !strings.Contains(why, "permitted") && !strings.Contains(why, "denied"):
			t.Errorf("%s: failed for another reason: %s", try.name, why)
		}
	}
}

// TestCallsExist: the filter can be made here, and what starts programs or opens listeners
// is in no list.
func TestCallsExist(t *testing.T) {
	policy, err := callPolicy(1)
	must(t, err)
	if _, err := policy.Assemble(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"execve", "execveat", "fork", "vfork", "ptrace", "bind", "listen", "bpf", "io_uring_setup", "setuid", "keyctl", "unshare", "mount"} {
		for _, allow := range allowed() {
			if allow == name {
				t.Errorf("%s is allowed", name)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fromErrno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func readFile(path string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // another process writes it
		_, err := os.ReadFile(path)
		if !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			return err
		}
	}
}

func replaceFile(dir string) error {
	from, to := filepath.Join(dir, "write", "from"), filepath.Join(dir, "write", "to")
	if err := os.WriteFile(from, []byte("text"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "write"))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), os.Remove(to))
}

func executableMemory(string) error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	return unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC)
}

func mapCode(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	return errors.Join(err, f.Close())
}

func listen(network, address string) error {
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

func openSocket(family, kind int) error {
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func dial(dir string) error {
	address, err := os.ReadFile(filepath.Join(dir, "read", "address"))
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	errs := make([]error, 32)
	for i := range errs { // new threads
		wait.Go(func() {
			c, err := net.Dial("tcp4", string(address))
			if err == nil {
				_, err = io.WriteString(c, "text")
				err = errors.Join(err, c.Close())
			}
			errs[i] = err
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
