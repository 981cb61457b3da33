package loginnode

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a process of the node.
type Process struct {
	PID     int    // as the host counts
	NodePID int    // as the node counts: what $$ is in a shell there
	Command string // arguments, joined by spaces
	stopped bool   // by SIGSTOP
	uid     int
	parent  int
	name    string // of the program, as /proc/PID/comm
}

// sshdItself reports whether a process is part of sshd, whose per-connection process runs with the user's number: it stays
// as long as the connection does, whatever runs there.
func (p Process) sshdItself() bool {
	return slices.Contains([]string{"sshd", "sshd-session", "sshd-auth"}, p.name)
}

// Processes are the running processes of a user on this node, without those of sshd itself and without dead ones that
// nobody has waited for yet. Without root they are the current user's that came from this node.
func (n *Node) Processes(user string) ([]Process, error) {
	account, ok := n.accounts[user]
	if !ok {
		return nil, fmt.Errorf("loginnode: no user %q", user)
	}
	p, err := n.running()
	if err != nil {
		return nil, err
	}
	members, err := p.members()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(members, func(m Process) bool { return m.uid != account.uid || m.sshdItself() }), nil
}

// Freeze stops sshd's processes of the connections that stand now: TCP stays up, and nothing answers. Commands run on, and new
// connections are served. It returns when all have stopped.
func (n *Node) Freeze() error { return n.settleSessions(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (n *Node) Thaw() error { return n.settleSessions(syscall.SIGCONT) }

func (n *Node) settleSessions(sig syscall.Signal) error {
	p, err := n.running()
	if err != nil {
		return err
	}
	_, err = p.settle(sig, func(m Process) bool { return m.sshdItself() && m.PID != p.pid })
	return err
}

// settle stops or continues those members that are wanted, and returns them when all are as they should be. It takes rounds:
// right after a login, for one, sshd is about to fork the process that serves it.
func (p *process) settle(sig syscall.Signal, wanted func(Process) bool) ([]Process, error) {
	for range patience {
		members, err := p.members()
		if err != nil {
			return nil, err
		}
		members = slices.DeleteFunc(members, func(m Process) bool { return !wanted(m) })
		settled := true
		for _, m := range members {
			if m.stopped == (sig == syscall.SIGSTOP) {
				continue
			}
			settled = false
			if err := p.signal(sig, m.PID); err != nil {
				return nil, err
			}
		}
		if settled {
			return members, nil
		}
		time.Sleep(pause)
	}
	return nil, fmt.Errorf("loginnode: not every process took %v", sig)
}

// members are the living processes of the node, sshd among them.
func (p *process) members() ([]Process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return p.descendants(all), nil
	}
	namespace, err := os.Readlink(procPath(p.pid, "ns", "pid"))
	if err != nil {
		return nil, fmt.Errorf("loginnode: sshd is gone: %w", err)
	}
	return slices.DeleteFunc(all, func(m Process) bool {
		own, err := os.Readlink(procPath(m.PID, "ns", "pid"))
		return err != nil || own != namespace
	}), nil
}

// descendants are sshd, what it started, and what carries the node's mark in its environment: a session that outlived its
// connection has another parent.
func (p *process) descendants(all []Process) []Process {
	mark := []byte("\x00" + p.layout.marker() + "\x00")
	mine := map[int]bool{p.pid: !p.ended()}
	for _, m := range all {
		env, err := os.ReadFile(procPath(m.PID, "environ"))
		if err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			mine[m.PID] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, m := range all {
			if mine[m.parent] && !mine[m.PID] {
				mine[m.PID] = true
				grown = true
			}
		}
	}
	return slices.DeleteFunc(all, func(m Process) bool { return !mine[m.PID] })
}

func procPath(pid int, name ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, name...)...)
}

// processes are all living processes that this one may see.
func processes() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("loginnode: %w", err)
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH):
			// Ended while we looked.
		case err != nil:
			return nil, fmt.Errorf("loginnode: %w", err)
		case p.PID != 0:
			all = append(all, p)
		}
	}
	return all, nil
}

// readProcess reads /proc/PID/status and cmdline (proc(5)). The result is zero for a dead process.
func readProcess(pid int) (Process, error) {
	status, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, NodePID: pid}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "Name":
			p.name = strings.TrimSpace(value)
		case "State":
			if fields[0] == "Z" || fields[0] == "X" {
				return Process{}, nil
			}
			p.stopped = fields[0] == "T"
		case "PPid":
			p.parent, err = strconv.Atoi(fields[0])
		case "Uid":
			p.uid, err = strconv.Atoi(fields[0])
		case "NSpid":
			p.NodePID, err = strconv.Atoi(fields[len(fields)-1])
		}
		if err != nil {
			return Process{}, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	cmdline, err := os.ReadFile(procPath(pid, "cmdline"))
	if err != nil {
		return Process{}, err
	}
	p.Command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	return p, nil
}
