package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/circuit"
	"sallyport/executor/pool"
	"sallyport/identity"
)

// A connection is an SSH connection of one caller to one node. The pool closes
// it; when it ends for whatever reason, its jump host's connection ends with it.
type connection struct {
	*ssh.Client
	node   string
	user   string
	serial uint64 // of the certificate, or 0
	key    string // fingerprint of a plain key, or ""
	// certificates are that of the login on the node, and of the one on the jump
	// host; none for plain keys.
	certificates []*ssh.Certificate
	ended        context.Context
	heard        *atomic.Uint64 // bytes that came from the node
	asking       atomic.Bool    // for a sign of life
}

// A listener is a transport that counts what comes.
type listener struct {
	net.Conn
	heard atomic.Uint64
}

func (l *listener) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.heard.Add(uint64(n)) //nolint:gosec // not negative
	return n, err
}

// AfterEnd has f called, in a goroutine of its own, when the connection has ended
// (see [pool.Conn]).
func (c *connection) AfterEnd(f func()) { context.AfterFunc(c.ended, f) }

// newClient is ssh.NewClient with one goroutine instead of three for what a node may
// ask of us, all of which is refused. The goroutine ends with the connection.
func newClient(conn ssh.Conn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) (c *ssh.Client, ended context.Context) {
	ended, end := context.WithCancel(context.Background())
	go func() {
		defer end()
		for channels != nil || requests != nil {
			select {
			case r, ok := <-requests:
				if !ok {
					requests = nil
					continue
				}
				_ = r.Reply(false, nil) // fails when the connection does
			case n, ok := <-channels:
				if !ok {
					channels = nil
					continue
				}
				_ = n.Reject(ssh.UnknownChannelType, "nodes open no channels")
			}
		}
	}()
	return &ssh.Client{Conn: conn}, ended
}

// unreachableError marks a failure after which another node is worth a try.
type unreachableError struct {
	error
	after time.Duration // when it makes sense to try the same one again; 0: not known
	// personal says that the node answered until it was asked about this caller: that
	// he cannot get in says nothing about others.
	personal bool
	// dropped says that the node took the connection and let it go before it showed its
	// host key.
	dropped bool
}

func (e unreachableError) Unwrap() error { return e.error }

// unreachable keeps only the text of err: a deadline that passed here is not one
// of the caller's.
func unreachable(node string, err error) error {
	u := unreachableError{error: fmt.Errorf("%w: %s: %v", ErrUnavailable, node, err)} //nolint:errorlint // see above
	if open, ok := errors.AsType[*circuit.OpenError](err); ok {
		u.after = open.After
	}
	return u
}

// unreachableFor is unreachable for everybody, or for the caller alone.
func unreachableFor(caller bool, node string, err error) error {
	u, _ := errors.AsType[unreachableError](unreachable(node, err))
	u.personal = caller
	return u
}

// tcp is the default of Config.Dial. The kernel's keepalive notices a vanished
// host also while a write is pending, which the SSH probe cannot.
func tcp(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3,
	}}
	return dialer.DialContext(ctx, "tcp", address)
}

// dialer returns the function with which the pool opens a connection of caller
// to a node. Its context ends after the system's ConnectTimeout.
func (e *Executor) dialer(s *system, caller identity.Identity, node string) pool.Dial[*connection] {
	return func(ctx context.Context) (pool.Dialed[*connection], error) {
		key := keyOf(caller, node)
		if err := s.refused.last(key); err != nil {
			return pool.Dialed[*connection]{}, err
		}
		dialed, err := e.attempt(ctx, s, caller, node)
		if errors.Is(err, ErrLoginRefused) {
			// Asking again at once would count against this address at the node
			// (PerSourcePenalties, sshd_config(5)).
			s.refused.note(key, err)
		}
		return dialed, err
	}
}

// connect logs in on a node, by way of the jump host if the system has one.
func (e *Executor) connect(ctx context.Context, s *system, caller identity.Identity, node string) (pool.Dialed[*connection], error) {
	if s.Jump == "" {
		raw, err := e.dial(ctx, node)
		if err != nil {
			return pool.Dialed[*connection]{}, unreachable(node, err)
		}
		return e.login(ctx, s, caller, node, raw)
	}
	raw, err := e.dial(ctx, s.Jump)
	if err != nil {
		return pool.Dialed[*connection]{}, unreachable(s.Jump, err)
	}
	jump, err := e.login(ctx, s, caller, s.Jump, raw)
	if err != nil {
		return pool.Dialed[*connection]{}, fmt.Errorf("jump host: %w", err)
	}
	through, err := jump.Conn.DialContext(ctx, "tcp", node)
	if err != nil {
		refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
		prohibited := ok && refusal.Reason == ssh.Prohibited
		if prohibited {
			err = fmt.Errorf("jump host %s allows no forwarding, by its AllowTcpForwarding or for want of permit-port-forwarding in the certificate: %w", s.Jump, err)
		}
		return pool.Dialed[*connection]{}, unreachableFor(prohibited, node, errors.Join(err, jump.Conn.Close()))
	}
	dialed, err := e.login(ctx, s, caller, node, &tunnel{Conn: through, jump: jump.Conn})
	if err != nil {
		return pool.Dialed[*connection]{}, err
	}
	dialed.Conn.certificates = append(dialed.Conn.certificates, jump.Conn.certificates...)
	dialed.NotAfter = earlier(dialed.NotAfter, jump.NotAfter)
	return dialed, nil
}

// A tunnel is a connection through a jump host, which it closes with itself: the
// SSH transport closes its connection however it ends.
type tunnel struct {
	net.Conn
	jump *connection
}

func (t *tunnel) Close() error {
	return errors.Join(t.Conn.Close(), t.jump.Close())
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// login makes an SSH connection of raw, which it closes if it fails.
func (e *Executor) login(ctx context.Context, s *system, caller identity.Identity, node string, raw net.Conn) (d pool.Dialed[*connection], err error) {
	defer func() {
		if err != nil {
			_ = raw.Close() // the error that counts is the one returned
		}
	}()
	credential, err := s.credential(ctx, caller, node)
	if err != nil {
		return d, err
	}
	if err := e.passLogin(ctx, s, caller, node, credential); err != nil {
		return d, err
	}
	trust, err := loadHostTrust(s.KnownHosts, node)
	if err != nil {
		e.auditHostRefused(ctx, s, caller, node, err)
		return d, err
	}
	counted := &listener{Conn: raw}
	client, ended, err := handshake(ctx, counted, node, credential, trust, e.algorithms)
	if err != nil {
		if hostKey, ok := errors.AsType[*hostKeyError](err); ok {
			e.auditHostRefused(ctx, s, caller, node, hostKey)
		}
		return d, err
	}
	c := &connection{Client: client, node: node, user: credential.User, ended: ended, heard: &counted.heard}
	if c.key, c.certificates = credential.proof(); credential.Certificate != nil {
		c.serial = credential.Certificate.Serial
	}
	return pool.Dialed[*connection]{Conn: c, NotAfter: credential.NotAfter}, nil
}

// handshake logs in on node. x/crypto has no context and its timeout ends with the
// TCP connect, so closing raw is what bounds it. The error is a *hostKeyError, or
// wraps ErrLoginRefused, or is that of an unreachable node.
func handshake(ctx context.Context, raw net.Conn, node string, credential Credential, trust hostTrust, algorithms ssh.Config) (client *ssh.Client, ended context.Context, err error) {
	var (
		authenticating bool
		hostKey        *hostKeyError
	)
	config := &ssh.ClientConfig{
		Config:            algorithms,
		User:              credential.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(credential.Signer)},
		ClientVersion:     "SSH-2.0-Sallyport",
		HostKeyAlgorithms: trust.algorithms(),
		HostKeyCallback: func(address string, remote net.Addr, key ssh.PublicKey) error {
			if complaint := trust.verify(address, remote, key); complaint != nil {
				hostKey = &hostKeyError{node: node, shown: key, expected: trust.fingerprints(), complaint: complaint}
				return hostKey
			}
			authenticating = true
			return nil
		},
	}
	started := time.Now()
	giveUp := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, channels, requests, err := ssh.NewClientConn(raw, node, config)
	inTime := giveUp()
	switch {
	case hostKey != nil:
		return nil, nil, hostKey
	case err == nil && inTime:
		client, ended = newClient(conn, channels, requests)
		return client, ended, nil
	case !inTime:
		return nil, nil, unreachableFor(authenticating, node, fmt.Errorf("no login within %v: %w", time.Since(started).Round(time.Millisecond), err))
	case authenticating && !connectionLost(err):
		return nil, nil, fmt.Errorf("%w: %s as %q: %w", ErrLoginRefused, node, credential.User, err)
	case authenticating:
		return nil, nil, unreachableFor(true, node, err)
	}
	dropped, _ := errors.AsType[unreachableError](unreachable(node, err))
	dropped.dropped = connectionLost(err)
	return nil, nil, dropped
}

// connectionLost tells a broken connection from an answer that we do not like.
// sshd words its refusals differently: a failure message, or a disconnect after
// MaxAuthTries.
func connectionLost(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

// credential asks for the caller's credential and checks what came: the provider
// may be a service elsewhere.
func (s *system) credential(ctx context.Context, caller identity.Identity, node string) (Credential, error) {
	c, err := s.Credentials.Credential(ctx, caller, Node{System: s.Name, Address: node, Jump: node == s.Jump})
	switch {
	case errors.Is(err, ErrNoCredential), errors.Is(err, ErrWideCredential):
		return Credential{}, err
	case err != nil:
		return Credential{}, fmt.Errorf("%w: credential for %s: %w", ErrUnavailable, node, err)
	}
	if err := c.check(time.Now()); err != nil {
		return Credential{}, fmt.Errorf("%w: for %s came an unusable one: %w", ErrNoCredential, node, err)
	}
	if caller.Narrow() && !c.narrow() {
		return Credential{}, fmt.Errorf("%w: that for %s is no certificate with force-command=%q", ErrWideCredential, node, identity.NarrowCommand)
	}
	return c, nil
}

// narrow says whether the node itself will start nothing for the credential but SFTP.
func (c Credential) narrow() bool {
	return c.Certificate != nil && c.Certificate.CriticalOptions["force-command"] == identity.NarrowCommand
}

// check refuses what the node would refuse without saying why.
func (c Credential) check(now time.Time) error {
	switch {
	case c.Signer == nil || c.User == "":
		return errors.New("account or key is missing")
	case !c.NotAfter.IsZero() && !now.Before(c.NotAfter):
		return fmt.Errorf("it ended at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	cert, ok := c.Signer.PublicKey().(*ssh.Certificate)
	switch {
	case !ok && c.Certificate == nil:
		return nil
	case !ok || c.Certificate == nil || !slices.Equal(cert.Marshal(), c.Certificate.Marshal()):
		return errors.New("the key does not belong to the certificate")
	case cert.CertType != ssh.UserCert:
		return fmt.Errorf("certificate has type %d", cert.CertType)
	case !slices.Contains(cert.ValidPrincipals, c.User):
		return fmt.Errorf("certificate is not for account %q", c.User)
	}
	from, to := int64(cert.ValidAfter), int64(cert.ValidBefore) //nolint:gosec // CertTimeInfinity is negative, and means for ever
	if unix := now.Unix(); unix < from || (to >= 0 && unix >= to) {
		return errors.New("certificate is not valid now")
	}
	return nil
}

// probe asks a connection for a sign of life. x/crypto cannot give up such a
// request; its goroutine ends when the pool closes the connection. Whatever comes
// meanwhile is one too: on a slow line the answer stands behind megabytes of output.
func (e *Executor) probe(ctx context.Context, c *connection) error {
	before := c.heard.Load()
	answered := make(chan error, 1)
	if c.asking.CompareAndSwap(false, true) { // else the last answer is still on its way
		e.background.Go(func() {
			// sshd answers that it does not know the request, which is an answer.
			_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
			c.asking.Store(false)
			answered <- err
		})
	}
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		if c.heard.Load() != before {
			return nil
		}
		return fmt.Errorf("no sign of life: %w", context.Cause(ctx))
	}
}
