package executor

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sallyport/executor/pool"
	"sallyport/identity"
)

const (
	// refusedFor is how long a refused login is not tried again. A penalty of sshd
	// for a failed login is 5 s (PerSourcePenalties authfail).
	refusedFor = 5 * time.Second
	// downFor is how long a node that could not be reached comes last.
	downFor = 15 * time.Second
	// cutOff is added to the longest time that a command may take, grace included,
	// before its connection is closed under it.
	cutOff = 10 * time.Second
)

// A system is a System that was checked, with its connections.
type system struct {
	System
	logins      *identity.LoginPolicy
	pool        *pool.Pool[key, *connection]
	waitTimeout time.Duration
	// refused remembers logins that a node refused, down the nodes that could not
	// be reached.
	refused *recent[key]
	down    *recent[string]
}

// A key says who may share a connection: only the same person, as named by the
// same identity provider, as the same account on the same node.
type key struct {
	node, login, issuer, subject string
	alias                        string // of the issuer
}

func keyOf(caller identity.Identity, node string) key {
	return key{node: node, login: caller.Login(), issuer: caller.Issuer(), subject: caller.Subject(), alias: caller.Alias()}
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
	return &system{
		System:      s,
		logins:      logins,
		pool:        connections,
		waitTimeout: limits.WaitTimeout,
		refused:     newRecent[key](refusedFor),
		down:        newRecent[string](downFor),
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

// order returns the nodes as they are to be tried for a caller: always the same
// one first, so that its connections are used again, but nodes that could not be
// reached a moment ago last.
func (s *system) order(caller identity.Identity) []string {
	who := sha256.Sum256([]byte(caller.Issuer() + "\x00" + caller.Subject() + "\x00" + caller.Login()))
	first := int(binary.BigEndian.Uint32(who[:]) % uint32(len(s.Nodes))) //nolint:gosec // a configuration has few nodes
	nodes := slices.Concat(s.Nodes[first:], s.Nodes[:first])
	slices.SortStableFunc(nodes, func(a, b string) int { return s.downRank(a) - s.downRank(b) })
	return nodes
}

func (s *system) downRank(node string) int {
	if s.down.last(node) != nil {
		return 1
	}
	return 0
}
