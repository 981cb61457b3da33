package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor/sshtest"
	"sallyport/internal/loginnode"
)

// A demoNode is the login node of a demo.
type demoNode interface {
	address() string
	knownHosts() string
	users() []string
	kind() string
	close() error
}

// startDemoNode starts the real sshd if there is one, else the embedded server.
func startDemoNode(ctx context.Context, dir string) (demoNode, error) {
	if loginnode.Available() != nil {
		return startEmbeddedNode(ctx, dir)
	}
	trusted, err := os.ReadFile(demoCAKey(dir))
	if err != nil {
		return nil, err
	}
	cfg := loginnode.Config{Dir: filepath.Join(dir, "node"), TrustedUserCAKeys: trusted}
	if os.Geteuid() == 0 {
		cfg.Users = []loginnode.User{{Name: "alice"}, {Name: "bob"}}
	}
	node, err := loginnode.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return opensshNode{node}, nil
}

// opensshNode is the real sshd.
type opensshNode struct{ node *loginnode.Node }

func (n opensshNode) address() string    { return n.node.Addr() }
func (n opensshNode) knownHosts() string { return n.node.KnownHosts() }
func (n opensshNode) users() []string    { return n.node.Users() }
func (n opensshNode) kind() string       { return "the real sshd" }
func (n opensshNode) close() error       { return n.node.Close() }

// embeddedNode is an SSH server in this process.
type embeddedNode struct {
	server   *sshtest.Server
	listener net.Listener
	login    string
	hosts    string
	served   chan error
}

// demoCAKey is where init has put the CA's public key.
func demoCAKey(dir string) string { return filepath.Join(dir, "ca_key.pub") }

func startEmbeddedNode(ctx context.Context, dir string) (demoNode, error) {
	trusted, err := os.ReadFile(demoCAKey(dir))
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(trusted)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &embeddedNode{
		listener: l, login: "demo", hosts: filepath.Join(dir, "known_hosts"), served: make(chan error, 1),
		server: sshtest.New(sshtest.Config{
			TrustedCAs: func() []ssh.PublicKey { return []ssh.PublicKey{key} },
			Exec:       sshtest.RunProcess,
		}),
	}
	if me, err := user.Current(); err == nil && me.Uid != "0" && loginPattern.MatchString(me.Username) {
		n.login = me.Username
	}
	line := knownhosts.Line([]string{knownhosts.Normalize(l.Addr().String())}, n.server.HostKey())
	if err := os.WriteFile(n.hosts, []byte(line+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	go func() { n.served <- n.server.Serve(l) }()
	return n, nil
}

func (n *embeddedNode) address() string    { return n.listener.Addr().String() }
func (n *embeddedNode) knownHosts() string { return n.hosts }
func (n *embeddedNode) users() []string    { return []string{n.login} }

func (n *embeddedNode) kind() string {
	if err := loginnode.Available(); err != nil {
		return fmt.Sprintf("an SSH server in this process (%v)", err)
	}
	return "an SSH server in this process"
}

func (n *embeddedNode) close() error {
	err := n.server.Close()
	if served := <-n.served; !errors.Is(served, sshtest.ErrClosed) {
		err = errors.Join(err, served)
	}
	return err
}
