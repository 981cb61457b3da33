package executor

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sallyport/executor/admission"
	"sallyport/executor/circuit"
	"sallyport/executor/pool"
	"sallyport/identity"
)

const (
	// refusedFor is how long a refused login is not tried again. A penalty of sshd
	// for a failed login is 5 s (PerSourcePenalties authfail).
	refusedFor = 5 * time.Second
	// cutOff is added to the longest time that a command may take, grace included,
	// before its connection is closed under it.
	cutOff = 10 * time.Second
)

// A system is a System that was checked, with its connections.
type system struct {
	System
	logins      *identity.LoginPolicy
	pool        *pool.Pool[key, *connection]
	gates       map[string]*admission.Gate[person] // by node
	waitTimeout time.Duration
	refused     *recent[person, key]        // logins that a node refused
	stopped     *recent[person, key]        // whose access was revoked, and is on record
	circuits    map[string]*circuit.Breaker // by node: whether it can be reached
	files       *channels
	workers     *workers
	names       *nameCache
}

// A key says who may share a connection: only the same person, as named by the
// same identity provider, as the same account on the same node, with the same rights.
type key struct {
	node, login, issuer, subject string
	// narrow says that the login is for files alone. It never serves the same person's
	// commands, nor does theirs serve a request that may run none.
	narrow bool
}

func (k key) person() person { return person{k.issuer, k.subject} }

func keyOf(caller identity.Identity, node string) key {
	return key{node: node, login: caller.Login(), issuer: caller.Issuer(), subject: caller.Subject(), narrow: caller.Narrow()}
}

// SystemInfo is what a caller may know of a system.
type SystemInfo struct {
	Name, Description string
	Nodes             []string
	// User is the account that the caller's commands run as.
	User                       string
	DefaultTimeout, MaxTimeout time.Duration
}

func (e *Executor) newSystem(s System, limits PoolLimits, logger *slog.Logger) (*system, error) {
	logins, err := s.Logins.Compile()
	if err != nil {
		return nil, err
	}
	connections, err := pool.New(pool.Config[key, *connection]{
		MaxSessions:      s.MaxSessions,
		MaxConnsPerKey:   s.MaxConnections,
		MaxConns:         limits.MaxConns,
		MaxWaiters:       limits.MaxWaiters,
		Group:            func(k key) string { return k.node },
		MaxDialsPerGroup: s.MaxHandshakes,
		IdleTimeout:      limits.IdleTimeout,
		MaxLifetime:      limits.MaxLifetime,
		// A command that began in time may finish.
		SessionGrace:  s.MaxTimeout + s.Grace + cutOff,
		DialTimeout:   s.ConnectTimeout,
		WaitTimeout:   limits.WaitTimeout,
		Probe:         e.probe,
		ProbeInterval: limits.ProbeInterval,
		ProbeTimeout:  limits.ProbeTimeout,
		Logger:        logger.With(slog.String("system", s.Name)),
	})
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	gates, err := newGates(s, limits)
	if err != nil {
		return nil, err
	}
	return &system{
		gates:       gates,
		System:      s,
		logins:      logins,
		pool:        connections,
		waitTimeout: limits.WaitTimeout,
		refused:     newRecent(refusedFor, key.person),
		stopped:     newRecent(refusalPause, key.person),
		circuits:    newCircuits(s.Nodes),
		files:       newChannels(),
		workers:     newWorkers(s, &e.sessionStats),
		names:       newNameCache(),
	}, nil
}

// permitted returns a system if the caller may use it.
func (e *Executor) permitted(caller identity.Identity, name string) (*system, error) {
	if !caller.Valid() {
		return nil, fmt.Errorf("%w: nobody", identity.ErrInvalidToken)
	}
	s, ok := e.systems[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownSystem, name)
	}
	if err := s.logins.Check(caller.Login()); err != nil {
		return nil, fmt.Errorf("system %q: %w", name, err)
	}
	return s, nil
}

// Systems lists the systems that caller may use, in the order of the
// configuration.
func (e *Executor) Systems(caller identity.Identity) []SystemInfo {
	var list []SystemInfo
	for _, name := range e.names {
		if info, err := e.System(caller, name); err == nil {
			list = append(list, info)
		}
	}
	return list
}

// System describes one system. Its errors wrap ErrUnknownSystem, or
// identity.ErrNoLogin when the system's rule refuses the caller's login.
func (e *Executor) System(caller identity.Identity, name string) (SystemInfo, error) {
	s, err := e.permitted(caller, name)
	if err != nil {
		return SystemInfo{}, err
	}
	return SystemInfo{
		Name: s.Name, Description: s.Description, Nodes: slices.Clone(s.Nodes), User: caller.Login(),
		DefaultTimeout: s.DefaultTimeout, MaxTimeout: s.MaxTimeout,
	}, nil
}
