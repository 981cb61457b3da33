package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config sets a pool's limits. The zero value of a field means its default.
type Config[K comparable, C Conn] struct {
	// MaxSessions bounds the leases on one connection. It should not exceed the
	// node's own limit (sshd_config MaxSessions); when it does, the pool learns
	// the lower one from [Lease.Full]. Default 10, as in sshd.
	MaxSessions int
	// MaxConnsPerKey bounds the connections of one key that take leases, together
	// with those being dialled. Connections that only let their last leases
	// finish, and the successor of one that is about to expire, come on top.
	// Default 4.
	MaxConnsPerKey int
	// MaxConns bounds all connections, whatever their state, and dials together.
	// When it is reached, the longest idle connection of any key gives way.
	// Default 1024.
	MaxConns int
	// MaxWaiters bounds the callers that wait in all; one more gets [ErrFull] at
	// once. Default 4096.
	MaxWaiters int

	// Group names what a key's connections have in common at the other end: the
	// node. Dials and learned limits are counted per group. It must be quick.
	// Nil puts all keys in one group.
	Group func(K) string
	// MaxDialsPerGroup bounds concurrent dials; keys take turns. sshd begins to
	// drop connections at 10 unauthenticated ones (sshd_config MaxStartups
	// 10:30:100). Default 8.
	MaxDialsPerGroup int

	// IdleTimeout closes a connection that had no lease for so long. Default 60 s.
	IdleTimeout time.Duration
	// MaxLifetime is how long a connection takes new leases at most. Running
	// leases may finish after it. Default 1 h.
	MaxLifetime time.Duration
	// LifetimeJitter shortens each lifetime by a random amount up to this, so
	// that connections which were opened together do not expire together; it
	// takes a quarter of the lifetime at most. Default 15 s.
	LifetimeJitter time.Duration
	// RenewBefore is how long before the end of its lifetime a connection in use
	// gets a successor, in the background; at most a quarter of the lifetime.
	// The successor lives longer only if its credential does: a cache of
	// credentials has to renew earlier than RenewBefore plus LifetimeJitter.
	// Default 30 s.
	RenewBefore time.Duration
	// SessionGrace is how long leases may go on after the NotAfter of their
	// connection, before it is closed under them. Default 0: not at all.
	SessionGrace time.Duration
	// DialTimeout bounds one dial. Default 15 s.
	DialTimeout time.Duration
	// WaitTimeout bounds the wait in Reserve. Default 30 s.
	WaitTimeout time.Duration
	// LearnedFor is how long a session limit that was learned from [Lease.Full]
	// holds for its group, counted from the last such event; thereafter a raised
	// limit of the node is noticed. Default 10 min.
	LearnedFor time.Duration

	// Probe asks the peer for a sign of life. Nil means no probes.
	Probe func(context.Context, C) error
	// ProbeInterval is the time between probes, whether or not the connection
	// is in use. Default 15 s.
	ProbeInterval time.Duration
	// ProbeTimeout is how long the answer may take before the connection is
	// closed under its leases. Default 5 s.
	ProbeTimeout time.Duration

	// Logger gets what no caller is told, such as a failed background dial. Nil
	// discards it.
	Logger *slog.Logger
}

func (c Config[K, C]) withDefaults() Config[K, C] {
	c.MaxSessions = cmp.Or(c.MaxSessions, 10)
	c.MaxConnsPerKey = cmp.Or(c.MaxConnsPerKey, 4)
	c.MaxConns = cmp.Or(c.MaxConns, 1024)
	c.MaxWaiters = cmp.Or(c.MaxWaiters, 4096)
	c.MaxDialsPerGroup = cmp.Or(c.MaxDialsPerGroup, 8)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, time.Minute)
	c.MaxLifetime = cmp.Or(c.MaxLifetime, time.Hour)
	c.LifetimeJitter = cmp.Or(c.LifetimeJitter, 15*time.Second)
	c.RenewBefore = cmp.Or(c.RenewBefore, 30*time.Second)
	c.DialTimeout = cmp.Or(c.DialTimeout, 15*time.Second)
	c.WaitTimeout = cmp.Or(c.WaitTimeout, 30*time.Second)
	c.LearnedFor = cmp.Or(c.LearnedFor, 10*time.Minute)
	c.ProbeInterval = cmp.Or(c.ProbeInterval, 15*time.Second)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, 5*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Group == nil {
		c.Group = func(K) string { return "" }
	}
	return c
}

func (c Config[K, C]) validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int
	}{
		{"MaxSessions", c.MaxSessions},
		{"MaxConnsPerKey", c.MaxConnsPerKey},
		{"MaxConns", c.MaxConns},
		{"MaxWaiters", c.MaxWaiters},
		{"MaxDialsPerGroup", c.MaxDialsPerGroup},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %d", f.name, f.value))
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"IdleTimeout", c.IdleTimeout},
		{"MaxLifetime", c.MaxLifetime},
		{"LifetimeJitter", c.LifetimeJitter},
		{"RenewBefore", c.RenewBefore},
		{"SessionGrace", c.SessionGrace},
		{"DialTimeout", c.DialTimeout},
		{"WaitTimeout", c.WaitTimeout},
		{"LearnedFor", c.LearnedFor},
		{"ProbeInterval", c.ProbeInterval},
		{"ProbeTimeout", c.ProbeTimeout},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %s", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}
