// Package loginnode starts the real OpenSSH sshd as a login node on a loopback port, for tests and for `sallyport demo`.
//
// As root the node has users of its own: sshd runs in a private mount and PID namespace, where passwd, group and shadow
// are files of the node. No account, file or process of the host is changed, and when sshd ends, by Close or because this
// process was killed, the kernel ends every process of the node with it. Without root only the current user can log in,
// and a process that daemonizes with a cleared environment outlives Close.
//
// It is no jail: users of the node see the file system of the host, as any local user does. Linux only.
package loginnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// User is an account of the node.
type User struct {
	Name           string   // 1 to 31 of [a-z0-9_-], beginning with a letter or underscore
	Shell          string   // absolute path; empty: /bin/sh
	Groups         []string // further groups, created as needed
	AuthorizedKeys []byte   // authorized_keys text, for logins without a certificate
}

// Config describes a node. The zero value of a field is the default that its comment names.
type Config struct {
	// Dir holds every file of the node. It is created if missing and made readable for all. Empty: a temporary folder
	// that Close removes.
	Dir string
	// Users are the accounts: at least one as root. Without root it is empty or names the current user only.
	Users []User
	// TrustedUserCAKeys is authorized_keys text with the keys of the user CAs. Empty: no certificate is trusted.
	TrustedUserCAKeys []byte
	// RevokedKeys is a KRL, or empty: nothing is revoked.
	RevokedKeys []byte
	// Extra is further sshd_config text, Match blocks included. It stands in a file of its own that is included first, as
	// /etc/ssh/sshd_config.d/*.conf is, so it wins over what this package writes.
	Extra string
	// MaxSessions limits the sessions per connection. 0: 10, as sshd.
	MaxSessions int
	// MaxAuthTries limits the attempts to authenticate per connection. 0: 6, as sshd.
	MaxAuthTries int
	// MaxStartups limits the connections that have not authenticated, "start:rate:full". Empty: "1000:30:2000", so that
	// tests may dial in bursts; sshd's own default is 10:30:100.
	MaxStartups string
	// SFTP is the command behind the subsystem sftp, or "none" for no such subsystem. Empty: internal-sftp.
	SFTP string
	// HostCA signs the host key by a CA of the node: KnownHosts then holds one @cert-authority line instead of keys.
	HostCA bool
	// Setup is a shell script that root runs in the node's own namespaces, with the folder of the node as its argument, each
	// time before sshd starts; what it starts in the background lives as long as the node. It needs root. Empty: none.
	Setup string
	// Env is added to the environment of sshd, as NAME=VALUE.
	Env []string
	// SecondHostKey adds a host key of another type to the ed25519 one: "rsa" or "ecdsa". Empty: none.
	SecondHostKey string
}

// Node is a running sshd with its users. Its methods may be called concurrently.
type Node struct {
	cfg      Config
	layout   layout
	sshd     string // absolute path
	port     int
	accounts map[string]account
	ownDir   bool // Dir is temporary and goes with Close

	mu     sync.Mutex // guards the fields below
	proc   *process   // nil while no sshd runs
	closed bool
}

// ErrClosed is returned by the methods of a node after Close.
var ErrClosed = errors.New("loginnode: closed")

// Start makes the files of a node, starts sshd and returns when it answers with an SSH banner. ctx bounds the start only:
// the node runs until Close. The error of a failed start ends with what sshd wrote to its log.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	sshd, err := lookSshd()
	if err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, sshd: sshd, ownDir: cfg.Dir == ""}
	if err := n.prepare(ctx); err != nil {
		return nil, errors.Join(err, n.removeDir())
	}
	// Another process can take the port between our choice and sshd's bind.
	const attempts = 5
	for range attempts {
		if n.port, err = freePort(ctx); err != nil {
			break
		}
		if n.proc, err = n.launch(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.removeDir())
	}
	return n, nil
}

func (n *Node) prepare(ctx context.Context) error {
	dir := n.cfg.Dir
	if n.ownDir {
		var err error
		if dir, err = os.MkdirTemp("", "loginnode-"); err != nil {
			return fmt.Errorf("loginnode: %w", err)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("loginnode: %w", err)
	}
	n.layout = layout{dir: dir}
	if n.accounts, err = n.cfg.accounts(n.layout); err != nil {
		return fmt.Errorf("loginnode: %w", err)
	}
	version, err := sshdVersion(ctx, n.sshd)
	if err != nil {
		return err
	}
	if err := n.layout.write(n.cfg, n.accounts, version); err != nil {
		return fmt.Errorf("loginnode: %w", err)
	}
	return nil
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("loginnode: choosing a port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("loginnode: choosing a port: %w", err)
	}
	return port, nil
}

// Addr is the address of sshd, "127.0.0.1:port". It stays the same over Restart.
func (n *Node) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

// Dir is the absolute path of the node's files.
func (n *Node) Dir() string { return n.layout.dir }

// KnownHosts is the path of a known_hosts file that verifies this node.
func (n *Node) KnownHosts() string { return n.layout.knownHosts() }

// TrustedUserCAKeys is the path of the file that SetTrustedUserCAKeys writes.
func (n *Node) TrustedUserCAKeys() string { return n.layout.trust() }

// RevokedKeys is the path of the file that SetRevokedKeys writes.
func (n *Node) RevokedKeys() string { return n.layout.revoked() }

// Users are the names of the accounts that may log in, in the order of Config.Users.
func (n *Node) Users() []string {
	if len(n.cfg.Users) == 0 {
		for name := range n.accounts {
			return []string{name}
		}
	}
	names := make([]string, 0, len(n.cfg.Users))
	for _, u := range n.cfg.Users {
		names = append(names, u.Name)
	}
	return names
}

// Home is the home folder of a user: the same path in the node and outside. It is empty for an unknown user.
func (n *Node) Home(user string) string { return n.accounts[user].home }

// Log is what sshd has logged so far, over all restarts, at level VERBOSE.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.layout.log())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// SetTrustedUserCAKeys replaces the trusted CAs by rename. sshd reads the file at each login: no reload is needed.
func (n *Node) SetTrustedUserCAKeys(keys []byte) error { return replaceFile(n.layout.trust(), keys) }

// SetRevokedKeys replaces the revocation list by rename. sshd reads the file at each login: no reload is needed.
func (n *Node) SetRevokedKeys(krl []byte) error { return replaceFile(n.layout.revoked(), krl) }

// Restart is a reboot of the node: sshd and every session end, and sshd starts again on the same port with the same host
// keys and files. ctx bounds the start.
func (n *Node) Restart(ctx context.Context) error {
	n.mu.Lock()
	proc := n.proc
	n.proc = nil
	closed := n.closed
	n.mu.Unlock()
	if closed || proc == nil {
		return ErrClosed
	}
	if err := proc.kill(); err != nil {
		return err
	}
	fresh, err := n.launch(ctx)
	if err != nil {
		return err
	}
	n.mu.Lock()
	if !n.closed {
		n.proc = fresh
		fresh = nil
	}
	n.mu.Unlock()
	if fresh != nil {
		return errors.Join(ErrClosed, fresh.kill())
	}
	return nil
}

// Reload has sshd read its configuration again (SIGHUP), with extra before all other lines. Sessions that stand go on as
// they are. It returns when sshd answers again.
func (n *Node) Reload(ctx context.Context, extra string) error {
	p, err := n.running()
	if err != nil {
		return err
	}
	if err := replaceFile(n.layout.path("sshd_config.d", "00-reload.conf"), []byte(extra+"\n")); err != nil {
		return err
	}
	logged := int64(len(n.Log()))
	if err := p.signal(syscall.SIGHUP, p.pid); err != nil {
		return err
	}
	return n.await(ctx, p, logged)
}

// Close ends sshd and every process of the node and waits until they are gone. A second call does nothing.
func (n *Node) Close() error {
	n.mu.Lock()
	proc := n.proc
	n.proc = nil
	again := n.closed
	n.closed = true
	n.mu.Unlock()
	if again {
		return nil
	}
	var err error
	if proc != nil {
		err = proc.kill()
	}
	return errors.Join(err, n.removeDir())
}

func (n *Node) removeDir() error {
	if !n.ownDir || n.layout.dir == "" {
		return nil
	}
	return os.RemoveAll(n.layout.dir)
}

// running returns the current sshd.
func (n *Node) running() (*process, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		return nil, ErrClosed
	}
	return n.proc, nil
}

// lastLines is the end of a log, short enough for an error.
func lastLines(text []byte) []byte {
	const count = 20
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-count):], []byte("\n"))
}
