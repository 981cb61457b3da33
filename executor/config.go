package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"sallyport/identity"
	"sallyport/store/audit"
)

// Config is what an [Executor] needs. Systems, Audit and, unless every system has
// its own, Credentials are required.
type Config struct {
	// Systems are what commands can run on; their names differ.
	Systems []System
	// Credentials finds the credentials of callers, for systems that name no
	// provider of their own.
	Credentials CredentialProvider
	// Audit records the start of every command before the command starts; when it
	// cannot, the command does not start.
	Audit audit.Recorder
	// Gate is asked whose access was revoked; nil refuses nobody.
	Gate Gate
	// AuditCommands puts the text of commands into the audit log. Off, the log has
	// their SHA-256 and length: a command line may hold secrets.
	AuditCommands bool
	// AuditChangesOnly leaves out of the audit log which files are read and which
	// directories listed. Changes are always recorded before they are made, and
	// attributes of files (stat) never.
	AuditChangesOnly bool
	// MaxOutput bounds each of both streams that is collected in a Result, in
	// bytes: what a command gets that asks for nothing, and the most that it can
	// ask for. Default: 4 MiB.
	MaxOutput int64
	// Pool bounds the connections of each system.
	Pool PoolLimits
	// Dial opens the transport to an address (host:port) for SSH. Default: TCP
	// with keepalive.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Logger gets what no caller is told, such as the reason of a failed login.
	// Default: nothing is logged.
	Logger *slog.Logger
}

// PoolLimits bounds what the executor holds open for one system.
type PoolLimits struct {
	// MaxConns bounds the connections to all nodes for all callers. Default: 500.
	MaxConns int
	// MaxWaiters bounds the commands that wait for a session; further ones fail
	// with ErrBusy at once. Default: 1000.
	MaxWaiters int
	// WaitTimeout bounds how long a command waits for a session. Default: 30 s.
	WaitTimeout time.Duration
	// IdleTimeout closes a connection that no command uses. Default: 2 min.
	IdleTimeout time.Duration
	// MaxLifetime replaces a connection of that age; the life of its credential
	// bounds it as well. Default: 1 h.
	MaxLifetime time.Duration
	// ProbeInterval is how often a connection is asked for a sign of life
	// (keepalive@openssh.com). Default: 15 s.
	ProbeInterval time.Duration
	// ProbeTimeout is how long the answer may take before the connection counts as
	// dead. Default: 10 s.
	ProbeTimeout time.Duration
}

// A System is one or more login nodes that are the same to a user.
type System struct {
	// Name is 1 to 63 letters, digits, dots, hyphens or underscores, the first of
	// them a letter or digit.
	Name string
	// Description is for people.
	Description string
	// Nodes are login nodes as host:port. A caller stays on one of them; the next
	// one is used when it cannot be reached.
	Nodes []string
	// Jump, if set, is the host:port through which every node is reached. The
	// caller logs in on it too, with a credential for it (see [Node]), and its sshd
	// needs AllowTcpForwarding.
	Jump string
	// KnownHosts are files in the format of known_hosts(5) that hold the host keys
	// of nodes and jump host, or the CA of them (@cert-authority). They are read at
	// each dial, as ssh(1) does, so an edit needs no reload. At least one is
	// required: there is no way to skip the check.
	KnownHosts []string
	// Logins says who may use the system, beyond what the identity provider's own
	// rule says.
	Logins identity.LoginRule
	// Credentials finds the callers' credentials; nil means that of the Config.
	Credentials CredentialProvider
	// MaxSessions bounds the commands on one connection. It should be the
	// MaxSessions of the nodes' sshd_config(5); a node that grants fewer is noticed.
	// Default: 10, as in sshd.
	MaxSessions int
	// MaxConnections bounds the connections of one caller to one node. Default: 4.
	MaxConnections int
	// MaxStarts fixes how many commands may be starting on one node at the same time;
	// those that run longer than a moment do not count. 0: found by measuring how
	// long starts take.
	MaxStarts int
	// Sessions says which commands share warm sessions. Default: SessionsMixed.
	Sessions Sessions
	// WarmAfter is how many commands of a caller, with no pause of 10 s between them,
	// have sessions of their own before a warm one is begun for him. 0: none.
	WarmAfter int
	// MaxHandshakes bounds the logins under way at one node; it should be below the
	// first number of the nodes' MaxStartups. Default: 8.
	MaxHandshakes int
	// ConnectTimeout bounds connecting and login, jump host included. Default: 15 s.
	ConnectTimeout time.Duration
	// DefaultTimeout ends a command that asks for no timeout. Default: 5 min, or
	// MaxTimeout if that is less.
	DefaultTimeout time.Duration
	// MaxTimeout is the longest timeout that a command can ask for. Default: 1 h.
	MaxTimeout time.Duration
	// Grace is the time between TERM and KILL. Default: 5 s.
	Grace time.Duration
}

var systemName = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\z`)

func (l PoolLimits) withDefaults() PoolLimits {
	setDefault(&l.MaxConns, 500)
	setDefault(&l.MaxWaiters, 1000)
	setDefault(&l.WaitTimeout, 30*time.Second)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.MaxLifetime, time.Hour)
	setDefault(&l.ProbeInterval, 15*time.Second)
	setDefault(&l.ProbeTimeout, 10*time.Second)
	return l
}

func (s System) withDefaults(credentials CredentialProvider) System {
	if s.Credentials == nil {
		s.Credentials = credentials
	}
	setDefault(&s.MaxSessions, 10)
	setDefault(&s.MaxConnections, 4)
	setDefault(&s.MaxHandshakes, 8)
	s.Sessions = cmp.Or(s.Sessions, SessionsMixed)
	setDefault(&s.ConnectTimeout, 15*time.Second)
	setDefault(&s.MaxTimeout, time.Hour)
	setDefault(&s.DefaultTimeout, min(5*time.Minute, s.MaxTimeout))
	setDefault(&s.Grace, 5*time.Second)
	s.Nodes = slices.Clone(s.Nodes)
	s.KnownHosts = slices.Clone(s.KnownHosts)
	return s
}

func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (c Config) validate() error {
	var errs []error
	if c.Audit == nil {
		errs = append(errs, errors.New("audit recorder is required"))
	}
	if c.MaxOutput < 0 {
		errs = append(errs, fmt.Errorf("max output %d is negative", c.MaxOutput))
	}
	errs = append(errs, c.Pool.validate())
	seen := make(map[string]bool)
	for i, s := range c.Systems {
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("system %q is configured twice", s.Name))
		}
		seen[s.Name] = true
		if !systemName.MatchString(s.Name) {
			errs = append(errs, fmt.Errorf("system %d: name %q is not acceptable", i+1, s.Name))
			continue
		}
		if err := s.withDefaults(c.Credentials).validate(); err != nil {
			errs = append(errs, fmt.Errorf("system %q: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (l PoolLimits) validate() error {
	if min(l.MaxConns, l.MaxWaiters) < 0 ||
		min(l.WaitTimeout, l.IdleTimeout, l.MaxLifetime, l.ProbeInterval, l.ProbeTimeout) < 0 {
		return fmt.Errorf("pool limits: a limit is negative: %+v", l)
	}
	return nil
}

// validate expects the defaults to be set.
func (s System) validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Credentials == nil {
		refuse("a credential provider is required")
	}
	if len(s.Nodes) == 0 {
		refuse("at least one node is required")
	}
	for i, address := range s.Nodes {
		if err := checkAddress(address); err != nil {
			refuse("node: %w", err)
		}
		if slices.Contains(s.Nodes[:i], address) {
			refuse("node %q is given twice", address)
		}
	}
	if s.Jump != "" {
		if err := checkAddress(s.Jump); err != nil {
			refuse("jump host: %w", err)
		}
	}
	if min(s.MaxSessions, s.MaxConnections, s.MaxHandshakes, s.MaxStarts, s.WarmAfter) < 0 {
		refuse("max sessions %d, connections %d, handshakes %d, starts %d or warm after %d is negative", s.MaxSessions, s.MaxConnections, s.MaxHandshakes, s.MaxStarts, s.WarmAfter)
	}
	if !slices.Contains([]Sessions{SessionsMixed, SessionsIsolated, SessionsWarm}, s.Sessions) {
		refuse("sessions %q is none of %q, %q and %q", s.Sessions, SessionsMixed, SessionsIsolated, SessionsWarm)
	}
	if min(s.ConnectTimeout, s.DefaultTimeout, s.MaxTimeout, s.Grace) < 0 {
		refuse("a timeout is negative")
	}
	if s.DefaultTimeout > s.MaxTimeout {
		refuse("default timeout %v is more than the maximum %v", s.DefaultTimeout, s.MaxTimeout)
	}
	if _, err := s.Logins.Compile(); err != nil {
		refuse("logins: %w", err)
	}
	if len(s.KnownHosts) == 0 {
		refuse("at least one known_hosts file is required")
	} else if err := checkKnownHosts(s.KnownHosts); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("address %q is not host:port with a port from 1 to 65535", address)
	}
	return nil
}
