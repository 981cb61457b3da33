package loginnode

import (
	"bufio"
	"bytes"
	"context"
	_ "embed" // enter.sh
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed enter.sh
var enterScript string

// What is not immediate about processes is looked at again, patience times with a pause between: 5 s.
const (
	patience = 500
	pause    = 10 * time.Millisecond
)

var errPortTaken = errors.New("the port is taken")

// process is a started sshd: as root the first process of a PID namespace.
type process struct {
	pid    int
	layout layout
	done   chan struct{} // closed when sshd is gone and reaped
	err    error         // how it ended; to be read after done
}

// launch starts sshd and waits until it answers.
func (n *Node) launch(ctx context.Context) (*process, error) {
	if err := n.layout.writeKnownHosts(n.cfg, n.port); err != nil {
		return nil, fmt.Errorf("loginnode: %w", err)
	}
	log, err := os.OpenFile(n.layout.log(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("loginnode: %w", err)
	}
	defer log.Close() //nolint:errcheck // nothing is written by this handle
	logged, err := log.Seek(0, 2)
	if err != nil {
		return nil, fmt.Errorf("loginnode: %w", err)
	}
	// The node lives until Close, however short the context of the start is.
	setup := ""
	if n.cfg.Setup != "" {
		setup = n.layout.setup()
	}
	cmd := n.command(context.WithoutCancel(ctx), setup, "-D", "-e", "-p", strconv.Itoa(n.port))
	cmd.Stdout, cmd.Stderr = log, log
	p, err := startProcess(cmd, n.layout)
	if err != nil {
		return nil, fmt.Errorf("loginnode: starting sshd: %w", err)
	}
	if err := n.await(ctx, p, logged); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// command is sshd with the node's configuration and the given arguments. As root it gets namespaces of its own, in which
// the accounts are the node's and where setup, if there is one, runs before.
func (n *Node) command(ctx context.Context, setup string, arg ...string) *exec.Cmd {
	args := append([]string{n.sshd, "-f", n.layout.config()}, arg...)
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		args = append([]string{"/bin/sh", "-c", enterScript, "enter", n.layout.dir, closedParent(n.layout.dir), setup}, args...)
		attr = ownNamespaces()
	}
	// SIGKILL and no other: Go sends it once more from the child when getppid is not us, as in a new PID namespace, and only
	// SIGKILL from inside does nothing to the first process there (pid_namespaces(7)).
	attr.Pdeathsig = syscall.SIGKILL
	// A group of its own: an interrupt at the terminal of `sallyport demo` ends sessions in order, not sshd under them.
	attr.Setpgid = true
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", n.layout.marker()}
	cmd.Env = append(cmd.Env, n.cfg.Env...)
	return cmd
}

// Check runs `sshd -t`, which reads the whole configuration, and returns its complaint.
func (n *Node) Check(ctx context.Context) error {
	if out, err := n.ask(ctx, "-t"); err != nil {
		return fmt.Errorf("loginnode: sshd -t: %w\n%s", err, out)
	}
	return nil
}

// Effective is what `sshd -T -C spec` prints: the configuration that holds for a connection such as
// "user=alice,host=localhost,addr=127.0.0.1", in lower case (OpenSSH before 10 prints it so, later ones mix). An empty spec gives
// the configuration outside of all Match blocks.
func (n *Node) Effective(ctx context.Context, spec string) (string, error) {
	args := []string{"-T"}
	if spec != "" {
		args = append(args, "-C", spec)
	}
	out, err := n.ask(ctx, args...)
	if err != nil {
		return "", fmt.Errorf("loginnode: sshd -T: %w\n%s", err, out)
	}
	return strings.ToLower(string(out)), nil
}

func (n *Node) ask(ctx context.Context, arg ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := n.command(ctx, "", arg...)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := startProcess(cmd, n.layout)
	if err != nil {
		return nil, err
	}
	<-p.done
	return out.Bytes(), p.err
}

// closedParent is the topmost parent of dir that other users cannot enter, or empty. os.MkdirTemp and t.TempDir make such.
func closedParent(dir string) string {
	closed := ""
	for parent := filepath.Dir(dir); parent != "/"; parent = filepath.Dir(parent) {
		if info, err := os.Stat(parent); err == nil && info.Mode().Perm()&0o001 == 0 {
			closed = parent
		}
	}
	return closed
}

// startProcess starts cmd on an OS thread that lives as long as cmd does: the kernel sends Pdeathsig when the thread that
// started the child ends, which can be long before this program does (golang.org/issue/27505).
func startProcess(cmd *exec.Cmd, l layout) (*process, error) {
	p := &process{layout: l, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// await returns when this sshd, and not another program on the same port, answers with a banner. Its log from the given
// offset tells.
func (n *Node) await(ctx context.Context, p *process, logged int64) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		gone := false
		select {
		case <-tick.C:
		case <-p.done:
			gone = true
		case <-ctx.Done():
			return fmt.Errorf("loginnode: sshd does not answer: %w\n%s", ctx.Err(), lastLines(n.logFrom(logged)))
		}
		text := n.logFrom(logged)
		switch {
		case bytes.Contains(text, []byte("Address already in use")):
			return fmt.Errorf("loginnode: %w\n%s", errPortTaken, lastLines(text))
		case gone:
			return fmt.Errorf("loginnode: sshd ended at its start\n%s", lastLines(text))
		case bytes.Contains(text, []byte("Server listening on 127.0.0.1 port "+strconv.Itoa(n.port)+".")):
			return n.banner(ctx)
		}
	}
}

func (n *Node) logFrom(offset int64) []byte {
	text, err := os.ReadFile(n.layout.log())
	if err != nil || int64(len(text)) < offset {
		return nil
	}
	return text[offset:]
}

func (n *Node) banner(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", n.Addr())
	if err != nil {
		return fmt.Errorf("loginnode: %w", err)
	}
	defer conn.Close() //nolint:errcheck // only read from
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("loginnode: %w", err)
		}
	}
	line, err := bufio.NewReaderSize(conn, 256).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		return fmt.Errorf("loginnode: no SSH banner but %q: %w", line, err)
	}
	return nil
}

// kill ends sshd and every process of the node and waits until they are gone. As root the kernel does it: the end of the
// first process of a PID namespace ends all, and is reported only after them.
func (p *process) kill() error {
	if os.Geteuid() == 0 {
		if err := p.signal(syscall.SIGKILL, p.pid); err != nil {
			return err
		}
		<-p.done
		return nil
	}
	// All must stand still first: who forks between a look and the kill leaves a child that nobody can tell is the node's.
	members, err := p.settle(syscall.SIGSTOP, func(Process) bool { return true })
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := p.signal(syscall.SIGKILL, m.PID); err != nil {
			return err
		}
	}
	for range patience {
		if members, err = p.members(); err != nil || len(members) == 0 {
			break
		}
		time.Sleep(pause)
	}
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return fmt.Errorf("loginnode: process %d survives SIGKILL", members[0].PID)
	}
	<-p.done
	return nil
}

// signal sends to a process that may be gone already.
func (p *process) signal(sig syscall.Signal, pid int) error {
	if pid == p.pid && p.ended() {
		return nil // the number may belong to another process by now
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("loginnode: signalling process %d: %w", pid, err)
	}
	return nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Root runs a shell script as root in the node's namespaces, and returns what it printed. It needs root.
func (n *Node) Root(ctx context.Context, script string) (string, error) {
	p, err := n.running()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(p.pid), "--mount", "--pid", "--", "/bin/sh", "-euc", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("loginnode: as root in the node: %w\n%s", err, lastLines(out))
	}
	return string(out), nil
}
