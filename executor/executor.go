// Package executor runs commands on login nodes over SSH, as the caller.
//
// It is the only package that speaks SSH as a client. A command takes a session
// slot on a pooled connection of the caller (see package pool); a connection is
// dialled, with a credential of the caller, only if none is at hand.
//
// Guarantees. Connections are shared only by commands of the same person on the
// same account, and none takes a command after the end of its credential. Nothing
// is sent to a node whose host key is not known. The start of a command is in the
// audit log before the command starts. A command that may have started is never
// run a second time, and an error from [Executor.Run] means that it is not known
// how the command ended or that it was not started; see [ErrOutcomeUnknown] to
// tell these apart.
//
// Threats. Nodes are not trusted beyond what they are asked: every stream, wait
// and queue is bounded, and a node that freezes holds up only what runs on it.
// Callers are not trusted at all; their text reaches a shell only as the command
// that they may run anyway, or through [Quote].
//
// Caveats. A command is ended by signals to its process group, which needs
// OpenSSH 7.9 or later and does not reach a process that left the group, or one
// that ignores TERM after the shell that sshd started has gone. sshd delivers no
// signals to a forced command. Command lines can be read by other users of the
// node; Env and Stdin cannot. Argv, Env and Workdir need a login shell that reads
// POSIX syntax, which csh and fish do not.
package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/admission"
	"sallyport/executor/circuit"
	"sallyport/executor/pool"
	"sallyport/identity"
	"sallyport/store/audit"
)

var (
	// ErrUnknownSystem says that no such system is configured. HTTP: 404.
	ErrUnknownSystem = errors.New("no such system")
	// ErrInvalidCommand wraps every complaint about a Command. HTTP: 422.
	ErrInvalidCommand = errors.New("command is not acceptable")
	// ErrBusy says that no session became free in time; the command was not
	// started. HTTP: 503 with Retry-After.
	ErrBusy = errors.New("no session became free in time")
	// ErrCallerBusy says that the caller himself has too many commands waiting; this
	// one was not started. HTTP: 429 with Retry-After.
	ErrCallerBusy = errors.New("too many commands of the caller wait")
	// ErrUnavailable says that no login node of the system could be reached; the
	// command was not started. HTTP: 503.
	ErrUnavailable = errors.New("no login node could be reached")
	// ErrHostKey says that a node showed a host key that is not the expected
	// one; nothing was sent to it. HTTP: 502.
	ErrHostKey = errors.New("host key of the login node is not trusted")
	// ErrLoginRefused says that the node did not accept the caller's
	// credential; the command was not started. HTTP: 502.
	ErrLoginRefused = errors.New("login node refused the login")
	// ErrNoCredential says that no credential could be had for the caller; the
	// command was not started. HTTP: 403.
	ErrNoCredential = errors.New("no credential for the caller")
	// ErrCommandsDenied says that the caller may run no commands ([identity.Identity.Narrow])
	// and that one would be needed; nothing was started. HTTP: 403.
	ErrCommandsDenied = errors.New("caller may run no commands")
	// ErrWideCredential says that the caller may run no commands, and that the credential
	// found is good for more than files; it was not used. HTTP: 403.
	ErrWideCredential = errors.New("credential is not for files alone")
	// ErrClosed says that the executor is shutting down. A command that it had to
	// end has this error too. HTTP: 503.
	ErrClosed = errors.New("executor is closed")
	// ErrRevoked says that the caller's access was revoked: the command was not started,
	// or it was ended. HTTP: 403.
	ErrRevoked = errors.New("access of the caller was revoked")
	// ErrOutcomeUnknown says that the command was started, and that the
	// connection was lost before its end was reported. HTTP: 502.
	ErrOutcomeUnknown = errors.New("command was started and its outcome is unknown")
)

// Credential is what a caller logs in with on a node.
type Credential struct {
	// User is the account name on the node.
	User string
	// Signer is a certificate signer (ssh.NewCertSigner) or a plain key.
	Signer ssh.Signer
	// Certificate is nil for a plain key.
	Certificate *ssh.Certificate
	// NotAfter is when the credential stops being good; zero means never.
	NotAfter time.Time
}

// CredentialProvider finds a credential of the caller for a node. It is asked
// once per dial, never per command. An error that wraps ErrNoCredential is final
// for the caller; any other means that the provider failed.
type CredentialProvider interface {
	Credential(ctx context.Context, caller identity.Identity, node Node) (Credential, error)
}

// A Node is one login node of a system.
type Node struct {
	// System is the name of the system that the node belongs to.
	System string
	// Address is host:port as dialled and as looked up in known_hosts.
	Address string
	// Jump says that this is the system's jump host: a certificate for it needs
	// the extension permit-port-forwarding, one for a login node should have none.
	Jump bool
}

// An Executor runs commands. Make one with [New]; it is safe for concurrent use.
type Executor struct {
	audit         audit.Recorder
	gate          Gate
	auditCommands bool
	auditReads    bool
	maxOutput     int64
	dial          func(ctx context.Context, address string) (net.Conn, error)
	log           *slog.Logger
	algorithms    ssh.Config
	names         []string // of systems, in the order of the configuration
	systems       map[string]*system
	buffers       buffers
	fileStats     fileStats
	sessionStats  sessionStats

	// running ends when commands that run must be ended.
	running context.Context
	stop    context.CancelFunc
	// background counts goroutines that wait for a peer; they end with their
	// connection.
	background sync.WaitGroup

	mu     sync.Mutex // guards closed, and with it that runs grows no more; and live
	closed bool
	runs   sync.WaitGroup
	active int
	live   map[*liveRun]struct{}
}

// New returns an executor. It reports every mistake in cfg at once, among them a
// known_hosts file that is missing, empty or malformed.
func New(cfg Config) (*Executor, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("executor: %w", err)
	}
	e := &Executor{
		audit:         cfg.Audit,
		gate:          cfg.Gate,
		auditCommands: cfg.AuditCommands,
		auditReads:    !cfg.AuditChangesOnly,
		maxOutput:     cmp.Or(cfg.MaxOutput, 4<<20),
		dial:          cfg.Dial,
		log:           cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		algorithms:    algorithms(),
		systems:       make(map[string]*system),
		live:          make(map[*liveRun]struct{}),
	}
	if e.dial == nil {
		e.dial = tcp
	}
	e.running, e.stop = context.WithCancel(context.Background())
	for _, s := range cfg.Systems {
		made, err := e.newSystem(s.withDefaults(cfg.Credentials), cfg.Pool.withDefaults(), e.log)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("executor: system %q: %w", s.Name, err), e.Close(context.Background()))
		}
		e.names = append(e.names, s.Name)
		e.systems[s.Name] = made
		e.warnOfUnknownHosts(made)
	}
	return e, nil
}

// algorithms leaves out what rests on SHA-1; SupportedAlgorithms has no insecure
// ones but for one MAC.
func algorithms() ssh.Config {
	supported := ssh.SupportedAlgorithms()
	return ssh.Config{
		KeyExchanges: supported.KeyExchanges,
		Ciphers:      supported.Ciphers,
		MACs:         slices.DeleteFunc(supported.MACs, func(m string) bool { return m == ssh.HMACSHA1 }),
	}
}

// warnOfUnknownHosts tells the administrator at the start what else users would
// find out: the host key of a node is not known. It is no error, because the file
// may be completed while the program runs.
func (e *Executor) warnOfUnknownHosts(s *system) {
	for _, node := range slices.Concat(s.Nodes, []string{s.Jump}) {
		if node == "" {
			continue
		}
		if trust, err := loadHostTrust(s.KnownHosts, node); err == nil && len(trust.fingerprints()) == 0 {
			e.log.Warn("known_hosts has no key for a node: every login there will be refused",
				slog.String("system", s.Name), slog.String("node", node))
		}
	}
}

// Stats is a snapshot of what an executor does.
type Stats struct {
	// Running counts calls of Run under way, those that wait for a session
	// included, and Files that are not closed.
	Running int
	// Files are the file operations of all systems.
	Files FileStats
	// Sessions are the warm sessions of all systems.
	Sessions SessionStats
	// Pools are the connections of each system, by its name.
	Pools map[string]pool.Stats
	// Nodes are the queues before each login node, by system and address.
	Nodes map[string]map[string]admission.Stats
	// Circuits say which login nodes can be reached, by system and address.
	Circuits map[string]map[string]circuit.State
}

// Stats returns a snapshot.
func (e *Executor) Stats() Stats {
	e.mu.Lock()
	stats := Stats{Running: e.active, Files: e.fileStats.snapshot(), Sessions: e.sessionStats.snapshot(), Pools: make(map[string]pool.Stats)}
	e.mu.Unlock()
	stats.Nodes, stats.Circuits = make(map[string]map[string]admission.Stats), make(map[string]map[string]circuit.State)
	for name, s := range e.systems {
		stats.Nodes[name], stats.Circuits[name] = make(map[string]admission.Stats), make(map[string]circuit.State)
		for node, gate := range s.gates {
			stats.Nodes[name][node], stats.Circuits[name][node] = gate.Stats(), s.circuits[node].State()
		}
		stats.Pools[name] = s.pool.Stats()
	}
	return stats
}

// enter counts a Run, or Files, unless the executor is closed. The function that it returns
// ends the count.
func (e *Executor) enter() (leave func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	e.runs.Add(1)
	e.active++
	return func() {
		e.mu.Lock()
		e.active--
		e.mu.Unlock()
		e.runs.Done()
	}, nil
}

// Close refuses further commands and Files, and waits for those that run and are not
// closed. When ctx ends commands are terminated as if their time were over, calls of
// Files return ErrClosed, and Close returns ctx's error after that. At the end every connection is closed and no goroutine is left,
// except one that still reads a command's Stdin.
func (e *Executor) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	finished := make(chan struct{})
	go func() {
		e.runs.Wait()
		close(finished)
	}()
	var errs []error
	select {
	case <-finished:
	case <-ctx.Done():
		errs = append(errs, ctx.Err())
	}
	e.stop()
	<-finished
	for _, s := range e.systems {
		errs = append(errs, s.pool.Close())
	}
	e.background.Wait()
	return errors.Join(errs...)
}
