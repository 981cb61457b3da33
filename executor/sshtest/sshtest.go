// Package sshtest is an SSH server in the program's own memory: a login node for
// tests that run in a testing/synctest bubble, and the login node of the demo on
// a machine without OpenSSH.
//
// It decides about logins as OpenSSH's sshd does where x/crypto alone is laxer: a
// certificate without principals is refused for everybody, and a certificate
// counts only with a trusted CA, for the account that it names, in its time and
// from its source address. It refuses the session after MaxSessions with the
// same message as sshd. Faults are switches: [Server.Freeze] makes every
// connection hang as a stopped peer does, [Server.Cut] breaks them.
//
// It is not a replacement for sshd: there are no accounts of its own, no PTY, and
// what a command or a subsystem does is up to a function.
package sshtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"
)

// ErrClosed is what [Server.Dial] and [Server.Serve] return after Close.
var ErrClosed = errors.New("ssh server is closed")

// Config says what a server accepts. The zero value accepts nobody.
type Config struct {
	// HostKey proves the server to clients; nil makes a fresh ed25519 key.
	HostKey ssh.Signer
	// MoreHostKeys are further host keys, of other types than HostKey: plain keys
	// or host certificates.
	MoreHostKeys []ssh.Signer
	// TrustedCAs returns the keys whose user certificates are accepted. It is
	// asked at every login, as sshd reads TrustedUserCAKeys. Nil means none.
	TrustedCAs func() []ssh.PublicKey
	// AuthorizedKey says whether a plain key may log in as user, as an
	// authorized_keys file does. Nil means no.
	AuthorizedKey func(user string, key ssh.PublicKey) bool
	// Exec runs one command and returns how it ended. Its context ends when the
	// client closes the channel or the connection is gone. Nil refuses every
	// command.
	Exec func(ctx context.Context, s *Session) Exit
	// Subsystem is Exec for a subsystem, whose name is the Session's Command. Nil
	// refuses every subsystem.
	Subsystem func(ctx context.Context, s *Session) Exit
	// NoExecReply runs commands without ever answering the exec request, as no
	// honest server does.
	NoExecReply bool
	// MaxSessions bounds the sessions of one connection; 0 means 10, the default
	// of sshd_config(5).
	MaxSessions int
	// Forward opens the connection that a client asks for by direct-tcpip (RFC
	// 4254 §7.2), which is how a jump host is used. Nil refuses, like
	// "AllowTcpForwarding no".
	Forward func(ctx context.Context, address string) (net.Conn, error)
}

// A Login is one successful authentication.
type Login struct {
	User string
	// KeyID and Serial are those of the certificate; zero for a plain key.
	KeyID  string
	Serial uint64
	// Fingerprint is the SHA-256 fingerprint of the key (of the certified key,
	// for a certificate).
	Fingerprint string
}

// Server is an SSH server. Make one with [New]; end it with Close.
type Server struct {
	cfg      Config
	hostKeys []ssh.Signer
	gate     *gate

	life context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // one for each connection and everything on it

	mu       sync.Mutex // guards what follows
	closed   bool
	nextPort int
	conns    map[net.Conn]struct{}
	serving  map[net.Listener]struct{}
	logins   []Login
	running  int
	maxExecs int
}

// New returns a server that serves nobody yet: see [Server.Dial] and
// [Server.Serve].
func New(cfg Config) *Server {
	if cfg.HostKey == nil {
		cfg.HostKey = newHostKey()
	}
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 10
	}
	life, stop := context.WithCancel(context.Background())
	return &Server{
		life:     life,
		stop:     stop,
		cfg:      cfg,
		hostKeys: append([]ssh.Signer{cfg.HostKey}, cfg.MoreHostKeys...),
		gate:     newGate(),
		nextPort: 40000,
		conns:    make(map[net.Conn]struct{}),
		serving:  make(map[net.Listener]struct{}),
	}
}

// newHostKey panics only when the system has no randomness, in which case
// crypto/rand has ended the program already.
func newHostKey() ssh.Signer {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("bug: ed25519 key: %v", err))
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		panic(fmt.Sprintf("bug: ed25519 signer: %v", err))
	}
	return signer
}

// HostKey returns the public part of the first host key.
func (s *Server) HostKey() ssh.PublicKey { return s.cfg.HostKey.PublicKey() }

// Dial opens an in-memory connection to the server. Client and server have
// loopback addresses, with another port for each connection.
func (s *Server) Dial() (net.Conn, error) {
	s.mu.Lock()
	s.nextPort++
	port := s.nextPort
	s.mu.Unlock()
	client, server := Pipe(
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port},
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22})
	if err := s.start(server); err != nil {
		return nil, err
	}
	return client, nil
}

// Serve serves the connections of l until l or the server is closed. It closes l
// and returns ErrClosed after [Server.Close].
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	s.serving[l] = struct{}{}
	s.mu.Unlock()
	for {
		conn, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.serving, l)
			if s.closed {
				return ErrClosed
			}
			return fmt.Errorf("accept: %w", err)
		}
		if err := s.start(conn); err != nil {
			return err
		}
	}
}

// start serves conn in a goroutine that Close waits for.
func (s *Server) start(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(ErrClosed, conn.Close())
	}
	s.conns[conn] = struct{}{}
	s.wg.Go(func() {
		s.serve(s.life, &gatedConn{Conn: conn, gate: s.gate})
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
	})
	return nil
}

// Freeze makes every connection hang, also those to come: nothing is read and
// nothing is written, as with a peer that is stopped, until Thaw.
func (s *Server) Freeze() { s.gate.shut() }

// Thaw ends a Freeze; what was sent meanwhile is then handled.
func (s *Server) Thaw() { s.gate.open() }

// Cut breaks every connection, as a node does that loses power, and returns how
// many there were.
func (s *Server) Cut() int {
	s.mu.Lock()
	conns := make([]net.Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // what the other side sees is the same
	}
	return len(conns)
}

// Conns returns how many connections are open.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Logins returns the successful logins so far, in order.
func (s *Server) Logins() []Login {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.logins)
}

// Execs returns how many commands run now, and how many at most did at once.
func (s *Server) Execs() (now, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, s.maxExecs
}

// Close ends every connection and waits until nothing of the server runs; Exec
// functions must therefore heed their context.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	var errs []error
	for l := range s.serving {
		errs = append(errs, l.Close())
	}
	s.mu.Unlock()
	s.stop()
	s.Thaw()
	s.Cut()
	s.wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) noteLogin(l Login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins = append(s.logins, l)
}

func (s *Server) noteExec(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running += n
	s.maxExecs = max(s.maxExecs, s.running)
}

var _ io.Closer = (*Server)(nil)
