package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"sallyport/executor/sftp"
	"sallyport/identity"
)

// byCommand is the way to a node's files by commands, where there is no SFTP. They
// are those of GNU coreutils and findutils.
type byCommand struct {
	executor *Executor
	system   *system
	caller   identity.Identity
}

// maxReply bounds the output of commands that say little.
const maxReply = 256 << 10

// perform runs a program and returns what it printed. Its end with another code than
// zero is a FileError. File operations have their own audit records.
func (b *byCommand) perform(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) ([]byte, error) {
	e := b.executor
	if b.caller.Narrow() {
		return nil, ErrCommandsDenied
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(e.running, func() { cancel(ErrClosed) }) //nolint:contextcheck // Close ends it, whatever its context
	defer stop()
	live := &liveRun{system: b.system.Name, caller: b.caller, end: cancel}
	defer e.track(live)()

	out := newAfterMark(stdout)
	cmd := Command{
		Argv: append([]string{"env", "LC_ALL=C", "sh", "-c", marked, "sh", out.mark}, argv...), Stdin: stdin, Stdout: out, Own: true,
		Timeout: b.system.MaxTimeout, MaxOutput: maxReply,
	}
	prep, err := b.system.prepare(cmd, max(e.maxOutput, maxReply))
	if err != nil {
		return nil, err
	}
	opened, err := e.open(ctx, b.system, b.caller, b.system.warm(cmd), nil)
	if err != nil {
		return nil, err
	}
	conn := opened.lease.Conn()
	live.conn.Store(conn)
	p := e.newProcess(opened, cmd, prep)
	result, why := p.see(ctx, b.system, Start{System: b.system.Name, Node: conn.node, User: conn.user}, prep, func() {})
	if err := p.verdict(why); err != nil {
		if own, ok := errors.AsType[yielded](err); ok {
			return nil, own // of the reader or the writer
		}
		return nil, err
	}
	switch {
	case result.TimedOut:
		return nil, fmt.Errorf("%w: %s took too long", ErrOutcomeUnknown, argv[0])
	case result.ExitCode != 0:
		return out.reply.Bytes(), complaint(result)
	case !out.seen:
		return nil, errOddOutput
	}
	return out.reply.Bytes(), nil
}

// complaints are the texts of the C library (LC_ALL=C) with which a program ends what
// it says about a system call.
var complaints = []struct {
	text string
	err  error
}{
	{"No such file or directory", ErrNotFound},
	{"Too many levels of symbolic links", ErrNotFound},
	{"Permission denied", ErrPermission},
	{"Operation not permitted", ErrPermission},
	{"Read-only file system", ErrPermission},
	{"File exists", ErrExists},
	{"Is a directory", ErrIsDirectory},
	{"Not a directory", ErrNotDirectory},
	{"Directory not empty", ErrNotEmpty},
	{"No space left on device", ErrNoSpace},
	{"Disk quota exceeded", ErrNoSpace},
	{"File name too long", ErrInvalidPath},
	{"Operation not supported", ErrUnsupported},
}

// complaint reads the last line that a program wrote to its standard error.
func complaint(r Result) error {
	text := strings.TrimSpace(string(r.Stderr))
	for _, c := range complaints {
		if strings.HasSuffix(text, ": "+c.text) {
			return &FileError{Err: c.err}
		}
	}
	if strings.HasPrefix(text, "mv: cannot overwrite directory ") { // mv(1) looks for itself
		return &FileError{Err: ErrIsDirectory}
	}
	e := &FileError{Err: ErrFileFailed, Detail: "exit code " + strconv.Itoa(r.ExitCode)}
	const notFound = 127 // env(1): the program is missing
	if r.ExitCode == notFound {
		e.Err = ErrUnsupported
	}
	return e
}

// operand is a path that no program takes for an option, an expression or its
// standard input.
func operand(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "./" + path
}

// under has a program run with a umask that leaves no more than mode.
func under(mode *uint32, argv ...string) []string {
	if mode == nil {
		return argv
	}
	const script = `umask "$(printf %o $((0$(umask) | $1)))" && shift && exec "$@"`
	return append([]string{"sh", "-c", script, "sh", octal(^*mode & 0o777)}, argv...)
}

func (b *byCommand) stat(ctx context.Context, path string, follow bool) (FileInfo, error) {
	argv := []string{"stat", "--printf=%f %s %u %g %X %Y %Z %i %d %h", "--", operand(path)}
	if follow {
		argv = append([]string{"stat", "-L"}, argv[1:]...)
	}
	out, err := b.perform(ctx, nil, nil, argv...)
	if told, ok := errors.AsType[*FileError](err); ok && errors.Is(told, ErrNotDirectory) {
		told.Err = ErrNotFound // as SFTP has it
	}
	if err != nil {
		return FileInfo{}, err
	}
	return parseStat(string(out), 16)
}

func (b *byCommand) readLink(ctx context.Context, path string) (string, error) {
	out, err := b.perform(ctx, nil, nil, "readlink", "-nv", "--", operand(path))
	if told, ok := errors.AsType[*FileError](err); ok && errors.Is(told, ErrFileFailed) {
		told.Err = ErrInvalidPath // it is no link
	}
	return string(out), err
}

func (b *byCommand) realPath(ctx context.Context, path string) (string, error) {
	out, err := b.perform(ctx, nil, nil, "realpath", "-z", "--", operand(path))
	return strings.TrimSuffix(string(out), "\x00"), err
}

func (b *byCommand) space(ctx context.Context, path string) (sftp.Space, error) {
	out, err := b.perform(ctx, nil, nil, "stat", "-f", "--printf=%S %b %f %a %c %d", "--", operand(path))
	if err != nil {
		return sftp.Space{}, err
	}
	var n [6]uint64
	fields := strings.Fields(string(out))
	if len(fields) != len(n) {
		return sftp.Space{}, errOddOutput
	}
	for i, field := range fields {
		if n[i], err = strconv.ParseUint(field, 10, 64); err != nil {
			return sftp.Space{}, errOddOutput
		}
	}
	return sftp.Space{Size: n[0] * n[1], Free: n[0] * n[2], Available: n[0] * n[3], Files: n[4], FilesFree: n[5]}, nil
}

func (b *byCommand) list(ctx context.Context, _ string, where locator, o ListOptions, yield func(FileInfo) error) error {
	path, err := where()
	if err != nil {
		return err
	}
	info, err := b.stat(ctx, path, true)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &FileError{Err: ErrNotDirectory}
	}
	depth := 1
	if o.Recursive {
		depth = maxDepth
	}
	argv := []string{"find", "-H", operand(path), "-mindepth", "1", "-maxdepth", strconv.Itoa(depth)}
	if !o.Hidden {
		argv = append(argv, "-name", ".*", "-prune", "-o")
	}
	argv = append(argv, "-printf", `%y %m %s %U %G %A@ %T@ %C@ %i %D %n\0%P\0%l\0`)
	var links []FileInfo
	found := 0
	parser := &listing{yield: func(i FileInfo) error {
		found++
		if !o.Recursive && strings.Contains(i.Name, "/") {
			return errOddOutput
		}
		target := i.Target
		if !o.Targets {
			i.Target = ""
		}
		if i.IsLink() && o.Follow && len(links) < o.Max {
			i.Target = target
			links = append(links, i)
			return nil
		}
		return yield(i)
	}}
	_, err = b.perform(ctx, nil, parser, argv...)
	if isFileError(err) && found > 0 && !errors.Is(err, errOutput) {
		err = nil // a directory below could not be read
	}
	if err == nil {
		err = parser.end()
	}
	for _, link := range links {
		if err != nil {
			break
		}
		err = b.follow(ctx, path, link, o, yield)
	}
	return err
}

// follow describes what a link points to.
func (b *byCommand) follow(ctx context.Context, dir string, link FileInfo, o ListOptions, yield func(FileInfo) error) error {
	info, err := b.stat(ctx, join(dir, link.Name), true)
	hidden := false
	if err == nil && o.inside != nil {
		var real []string
		if real, err = b.resolve(ctx, join(dir, link.Name))(); err == nil {
			hidden = !o.inside(real[0], dir)
		}
	}
	switch {
	case hidden, isFileError(err):
		info = link
	case err != nil:
		return err
	}
	info.Name, info.Target = link.Name, ""
	if o.Targets {
		info.Target = link.Target
	}
	return yield(info)
}

func (b *byCommand) open(ctx context.Context, _ string, where locator, fenced bool) (content, error) {
	path, err := where()
	if err != nil {
		return nil, err
	}
	info, err := b.stat(ctx, path, true)
	if err == nil {
		err = readable(info)
	}
	if err == nil { // dd would say so at the first range
		_, err = b.perform(ctx, nil, nil, "dd", "if="+path, "count=0", "status=none")
	}
	if err != nil {
		return nil, err
	}
	return &openCommand{byCommand: b, path: path, about: info, fenced: fenced}, nil
}

// openCommand is a file that is opened anew for each range.
type openCommand struct {
	*byCommand
	path   string
	about  FileInfo
	fenced bool
}

func (o *openCommand) info() FileInfo { return o.about }
func (o *openCommand) close()         {}

func (o *openCommand) read(ctx context.Context, offset, size int64, yield func([]byte) error) (int64, error) {
	if o.about.Size > 0 {
		size = min(size, max(0, o.about.Size-offset))
	}
	if size = min(size, math.MaxInt64-offset); size == 0 {
		return 0, nil
	}
	var n int64
	argv := []string{
		"dd", "if=" + o.path, "iflag=skip_bytes,count_bytes", "bs=65536", "status=none",
		"skip=" + strconv.FormatInt(offset, 10), "count=" + strconv.FormatInt(size, 10),
	}
	if o.fenced {
		argv = OnOpened(o.path, append(argv[:1:1], argv[2:]...)...)
	}
	_, err := o.perform(ctx, nil, sinkFunc(func(p []byte) (int, error) {
		if int64(len(p)) > size-n {
			return 0, errOddOutput
		}
		n += int64(len(p))
		return len(p), yield(p)
	}), argv...)
	return n, err
}

type sinkFunc func([]byte) (int, error)

func (f sinkFunc) Write(p []byte) (int, error) { return f(p) }

// partReader reads what next returns.
type partReader struct {
	next func() ([]byte, error)
	rest []byte
}

func (r *partReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		var err error
		if r.rest, err = r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (b *byCommand) create(ctx context.Context, path string, mode *uint32, next func() ([]byte, error)) error {
	argv := under(mode, "dd", "of="+path, "conv=excl,fsync", "bs=65536", "status=none")
	_, err := b.perform(ctx, &partReader{next: next}, nil, argv...)
	return err
}

func (b *byCommand) mkdir(ctx context.Context, path string, mode *uint32) error {
	_, err := b.perform(ctx, nil, nil, under(mode, "mkdir", "--", operand(path))...)
	return err
}

func (b *byCommand) chmod(ctx context.Context, path string, mode uint32) error {
	// Five digits set the bits 07000 of a directory too.
	_, err := b.perform(ctx, nil, nil, "chmod", fmt.Sprintf("%05o", mode), "--", operand(path))
	return err
}

func (b *byCommand) chown(ctx context.Context, path string, uid, gid uint32) error {
	_, err := b.perform(ctx, nil, nil, "chown", fmt.Sprintf("%d:%d", uid, gid), "--", operand(path))
	return err
}

func (b *byCommand) symlink(ctx context.Context, target, link string) error {
	_, err := b.perform(ctx, nil, nil, "ln", "-sT", "--", target, operand(link))
	return err
}

func (b *byCommand) link(ctx context.Context, old, link string) error {
	_, err := b.perform(ctx, nil, nil, "ln", "-T", "--", operand(old), operand(link))
	return err
}

func (b *byCommand) rename(ctx context.Context, from, to string) error {
	_, err := b.perform(ctx, nil, nil, "mv", "-fT", "--", operand(from), operand(to))
	return err
}

func (b *byCommand) remove(ctx context.Context, path string) error {
	_, err := b.perform(ctx, nil, nil, "unlink", "--", operand(path))
	return err
}

func (b *byCommand) rmdir(ctx context.Context, path string) error {
	_, err := b.perform(ctx, nil, nil, "rmdir", "--", operand(path))
	return err
}

// removeAll removes a directory with all that is below it. rm(1) opens each directory
// by its parent's descriptor, so that a link in the place of one leads nowhere.
func (b *byCommand) removeAll(ctx context.Context, path string) error {
	_, err := b.perform(ctx, nil, nil, "rm", "-rf", "--", operand(path))
	return err
}

func (b *byCommand) names(ctx context.Context, uids, gids []uint32) (users, groups map[uint32]string, err error) {
	users, groups = make(map[uint32]string), make(map[uint32]string)
	for _, table := range []struct {
		name  string
		ids   []uint32
		names map[uint32]string
	}{{"passwd", uids, users}, {"group", gids, groups}} {
		if len(table.ids) == 0 {
			continue
		}
		argv := []string{"getent", table.name}
		for _, id := range table.ids {
			argv = append(argv, strconv.FormatUint(uint64(id), 10))
		}
		out, err := b.perform(ctx, nil, nil, argv...)
		if err != nil && !isFileError(err) {
			return nil, nil, err
		}
		parseNames(string(out), table.names) // the exit code says that one has no name
	}
	return users, groups, nil
}

// id returns the number of a user or group.
func (b *byCommand) id(ctx context.Context, table, name string) (*uint32, error) {
	out, err := b.perform(ctx, nil, nil, "getent", "--", table, name)
	if err != nil && !isFileError(err) {
		return nil, err
	}
	found := make(map[uint32]string)
	parseNames(string(out), found)
	for id, is := range found {
		if is == name || strconv.FormatUint(uint64(id), 10) == name {
			return &id, nil
		}
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		id := uint32(n)
		return &id, nil
	}
	return nil, &FileError{Err: ErrNotFound, Detail: "no such user or group"}
}
