package executor_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

// newSigner makes an ed25519 key.
func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// An authority is a certificate authority of the test, and the provider of the
// credentials that it signs.
type authority struct {
	t      testing.TB
	signer ssh.Signer
	trust  ssh.PublicKey // of the nodes; the signer's, unless a test replaces that
	ttl    time.Duration
	// change, if set, spoils a certificate before it is signed.
	change func(*ssh.Certificate)

	mu     sync.Mutex
	serial uint64
	asked  int
	err    error // given instead of a credential
}

func newAuthority(t testing.TB) *authority {
	signer := newSigner(t)
	return &authority{t: t, signer: signer, trust: signer.PublicKey(), ttl: time.Hour}
}

func (a *authority) Credential(_ context.Context, caller identity.Identity, node executor.Node) (executor.Credential, error) {
	a.mu.Lock()
	a.asked++
	a.serial++
	serial, err := a.serial, a.err
	a.mu.Unlock()
	if err != nil {
		return executor.Credential{}, err
	}
	key := newSigner(a.t)
	now := time.Now()
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, Serial: serial,
		KeyId:           "v1:" + caller.Alias() + ":" + caller.Subject(),
		ValidPrincipals: []string{caller.Login()},
		ValidAfter:      uint64(now.Add(-time.Minute).Unix()),
		ValidBefore:     uint64(now.Add(a.ttl).Unix()),
	}
	if node.Jump {
		cert.Extensions = map[string]string{"permit-port-forwarding": ""}
	}
	if caller.Narrow() {
		cert.CriticalOptions = map[string]string{"force-command": "internal-sftp"}
	}
	if a.change != nil {
		a.change(cert)
	}
	if err := cert.SignCert(rand.Reader, a.signer); err != nil {
		return executor.Credential{}, err
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		return executor.Credential{}, err
	}
	return executor.Credential{User: caller.Login(), Signer: signer, Certificate: cert, NotAfter: now.Add(a.ttl)}, nil
}

func (a *authority) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// bundle is the nodes' trust file for the authority.
func (a *authority) bundle() []byte { return ssh.MarshalAuthorizedKey(a.signer.PublicKey()) }

// trusted is what a server needs to accept the authority's certificates.
func (a *authority) trusted() []ssh.PublicKey { return []ssh.PublicKey{a.trust} }

// A recorder keeps audit events, and can refuse them.
type recorder struct {
	mu     sync.Mutex
	events []audit.Event
	refuse func(audit.Event) error
}

func (r *recorder) Record(_ context.Context, e audit.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		if err := r.refuse(e); err != nil {
			return err
		}
	}
	r.events = append(r.events, e)
	return nil
}

func (r *recorder) of(action audit.Action) []audit.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []audit.Event
	for _, e := range r.events {
		if e.Action == action {
			found = append(found, e)
		}
	}
	return found
}

// A site is an executor with login nodes in memory.
type site struct {
	t        testing.TB
	ca       *authority
	audit    *recorder
	nodes    map[string]*sshtest.Server // by address
	dialed   map[string]int
	mu       sync.Mutex // guards dialed
	executor *executor.Executor
	caller   identity.Identity
}

const node1, node2, jump = "login1.test:22", "login2.test:22", "jump.test:2222"

// newSite starts a system "hpc" of one node, unless change adds to it.
func newSite(t testing.TB, change func(*site, *executor.Config, map[string]*sshtest.Config)) *site {
	t.Helper()
	s := &site{
		t: t, ca: newAuthority(t), audit: &recorder{},
		nodes: make(map[string]*sshtest.Server), dialed: make(map[string]int),
		caller: identitytest.IdentityFrom(t, "test", "sub-alice", "alice", 12*time.Hour, map[string]any{"client_id": "portal"}),
	}
	servers := map[string]*sshtest.Config{node1: {TrustedCAs: s.ca.trusted, Exec: shell}}
	cfg := executor.Config{
		Systems: []executor.System{{
			Name: "hpc", Nodes: []string{node1}, KnownHosts: []string{filepath.Join(t.TempDir(), "known_hosts")},
		}},
		Credentials: s.ca, Audit: s.audit, Dial: s.dial,
	}
	if change != nil {
		change(s, &cfg, servers)
	}
	known := ""
	for address, config := range servers {
		s.nodes[address] = sshtest.New(*config)
		known += knownhosts.Line([]string{address}, s.nodes[address].HostKey()) + "\n"
	}
	files := cfg.Systems[0].KnownHosts
	if _, err := os.Stat(files[0]); err != nil {
		if err := os.WriteFile(files[0], []byte(known), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.executor, err = executor.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func (s *site) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, n := range s.nodes {
		n.Thaw()
	}
	_ = s.executor.Close(ctx) // the context's own error, if something ran
	for _, n := range s.nodes {
		if err := n.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *site) dial(_ context.Context, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dialed[address]++
	s.mu.Unlock()
	n, ok := s.nodes[address]
	if !ok {
		return nil, fmt.Errorf("dial %s: no route to host", address)
	}
	return n.Dial()
}

func (s *site) dials(address string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dialed[address]
}

func (s *site) run(line string) (executor.Result, error) {
	s.t.Helper()
	return s.executor.Run(s.t.Context(), s.caller, "hpc", executor.Command{Line: line})
}

// shell is a shell of a few words for nodes in memory.
func shell(ctx context.Context, s *sshtest.Session) sshtest.Exit {
	word, rest, _ := strings.Cut(s.Command, " ")
	switch word {
	case "true":
		return sshtest.Exit{}
	case "exit":
		code, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return sshtest.Exit{Code: 2}
		}
		return sshtest.Exit{Code: uint32(code)}
	case "echo":
		_, _ = io.WriteString(s.Stdout, rest)
		_, _ = io.WriteString(s.Stderr, strings.ToUpper(rest))
		return sshtest.Exit{}
	case "cat":
		_, _ = io.Copy(s.Stdout, s.Stdin)
		return sshtest.Exit{}
	case "vanish":
		return sshtest.Exit{Missing: true}
	case "sleep": // ends by TERM
		return sleep(ctx, s, rest, "TERM")
	case "stubborn": // ends only by KILL
		return sleep(ctx, s, rest, "KILL")
	case "polite": // ends by TERM, with an exit code
		if sleep(ctx, s, rest, "TERM").Signal == "TERM" {
			return sshtest.Exit{Code: 3}
		}
		return sshtest.Exit{}
	}
	return sshtest.Exit{Code: 127}
}

func sleep(ctx context.Context, s *sshtest.Session, duration, end string) sshtest.Exit {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return sshtest.Exit{Code: 2}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return sshtest.Exit{}
		case name := <-s.Signals:
			if name == end {
				return sshtest.Exit{Signal: name}
			}
		case <-ctx.Done():
			return sshtest.Exit{Missing: true}
		}
	}
}
