// Package pool shares connections that carry several sessions at once, such as
// SSH connections. It knows no SSH: a connection is whatever can be closed and
// waited for, a lease is the right to open one session on it.
//
// Guarantees. Two callers share a connection only if their keys are equal, so
// everything that must keep callers apart belongs into the key. No lease is
// granted on a connection past its lifetime, and no connection outlives the
// NotAfter of its credential by more than the configured grace. The number of
// connections, of concurrent dials and of waiting callers is bounded, every wait
// ends, and callers of one key are served in the order in which they came.
//
// Threats. A frozen peer is found by probes and its connection is closed. A
// node's limits are respected: sshd drops unauthenticated connections from the
// tenth on (MaxStartups 10:30:100) and refuses sessions beyond MaxSessions.
// [Pool.CloseWhere] takes connections away from a key at once.
//
// Caveats. The pool trusts the key to be complete and the dial function to have
// authenticated the caller; it does not look into either. It cannot interrupt a
// dial function or a Conn.Close that ignores its context or blocks for ever.
package pool

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

var (
	// ErrFull says that no lease became free in time, or that too many callers
	// wait already. Nothing was started.
	ErrFull = errors.New("no session became free in time")
	// ErrClosed says that the pool is closed.
	ErrClosed = errors.New("pool is closed")
	// ErrRevoked says that CloseWhere closed the key's connections while the
	// caller waited for one.
	ErrRevoked = errors.New("connections of this key were closed")
)

// A Conn is a connection that carries several sessions.
type Conn interface {
	// Close closes the connection with all its sessions. It may be called when
	// the connection is already broken, and it makes Wait return.
	Close() error
	// Wait blocks until the connection is closed, by whichever side. A connection
	// with a method AfterEnd(func()), which has the function called then, is spared
	// a goroutine that waits.
	Wait() error
}

// A Dial makes a connection. It must return soon after ctx is done. The pool
// may call it after the Reserve that brought it has returned, and its connection
// may serve other callers of the same key.
type Dial[C Conn] func(ctx context.Context) (Dialed[C], error)

// Dialed is a connection fresh from a dial.
type Dialed[C Conn] struct {
	Conn C
	// NotAfter is when the credential that opened the connection expires; zero
	// means never.
	NotAfter time.Time
}

// A Pool shares connections between callers of equal keys. It is safe for
// concurrent use.
type Pool[K comparable, C Conn] struct {
	cfg  Config[K, C]
	wg   sync.WaitGroup // every goroutine of the pool
	done chan struct{}  // closed by Close

	mu sync.Mutex // guards all below, and the fields of entries, groups, connections, dials and waiters

	closed bool
	keys   map[K]*entry[K, C]
	groups map[string]*group[K, C]
	idle   list[*conn[K, C]]  // without a lease, longest idle first
	ready  list[*group[K, C]] // with keys that wait for a dial, and room for it in the group
	free   []*waiter[K, C]    // for reuse
	places int                // of MaxConns: taken by connections until Close returned, and by dials
	stats  Stats
}

// New returns a pool. It reports every mistake in cfg at once.
func New[K comparable, C Conn](cfg Config[K, C]) (*Pool[K, C], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Pool[K, C]{
		cfg:    cfg,
		done:   make(chan struct{}),
		keys:   make(map[K]*entry[K, C]),
		groups: make(map[string]*group[K, C]),
	}, nil
}

// Reserve returns the right to open one session on a connection of the key. It
// waits, in order of arrival within the key, until a connection has room, and
// has one dialled if none is expected to have.
//
// The errors are: ctx's own; [ErrFull], [ErrClosed], [ErrRevoked]; or the error
// of a dial that this caller counted on, as the dial function gave it (after
// DialTimeout likely context.DeadlineExceeded, while ctx goes on).
//
// When several callers of one key wait, the pool dials with the function, and
// the context values, of any of them; the context ends when the dial does, not
// with the caller. All callers of a key must therefore pass functions that may
// stand in for one another.
func (p *Pool[K, C]) Reserve(ctx context.Context, key K, dial Dial[C]) (*Lease[C], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if dial == nil {
		return nil, errNoDial
	}
	groupName, now := p.cfg.Group(key), time.Now()

	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	e := p.entryLocked(key, groupName)
	if e.waiters.n == 0 {
		if c, limit := p.pickLocked(e, now); c != nil {
			p.grantLocked(c, now, ctx, dial)
			p.mu.Unlock()
			return newLease(c, limit), nil
		}
	}
	w, err := p.enqueueLocked(ctx, e, dial, now)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return p.await(w, now)
}

// TryReserve is Reserve for who does not want to wait: it returns a lease if a
// connection of the key has room now and nobody waits for it, and dials nothing.
// dial is for a successor, should the connection be about to expire.
func (p *Pool[K, C]) TryReserve(ctx context.Context, key K, dial Dial[C]) (*Lease[C], bool) {
	if ctx.Err() != nil || dial == nil {
		return nil, false
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.keys[key]
	if p.closed || e == nil || e.waiters.n > 0 {
		return nil, false
	}
	c, limit := p.pickLocked(e, now)
	if c == nil {
		return nil, false
	}
	p.grantLocked(c, now, ctx, dial)
	return newLease(c, limit), true
}

// Has says whether the key has a connection that takes sessions, be there room or not.
func (p *Pool[K, C]) Has(key K) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.keys[key]
	return e != nil && e.serving > 0
}

// CloseWhere closes the connections of all keys that match, at once and under
// their leases, and abandons those being dialled; callers who wait for one get
// [ErrRevoked]. It returns how many connections and dials it ended, after the
// connections' Close has returned. A Reserve that comes later dials afresh: who
// revokes must first see to it that this is refused.
func (p *Pool[K, C]) CloseWhere(match func(K) bool) int {
	p.mu.Lock()
	keys := make([]K, 0, len(p.keys))
	for k := range p.keys {
		keys = append(keys, k)
	}
	p.mu.Unlock()
	keys = slices.DeleteFunc(keys, func(k K) bool { return !match(k) })

	var ended int
	var closing []*conn[K, C]
	now := time.Now()
	p.mu.Lock()
	for _, k := range keys {
		if e := p.keys[k]; e != nil {
			conns, dials := p.clearLocked(e, ErrRevoked)
			closing = append(closing, conns...)
			ended += len(conns) + dials
			p.reviewLocked(e, now)
		}
	}
	p.mu.Unlock()
	for _, c := range closing {
		<-c.closed
	}
	return ended
}

// Close closes every connection under its leases, abandons the dials, wakes
// waiting callers with [ErrClosed], and returns when all of the pool's goroutines
// have ended. Leases may still be released afterwards.
func (p *Pool[K, C]) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.done)
		for _, e := range p.keys {
			p.clearLocked(e, ErrClosed)
		}
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

// clearLocked closes the connections of e, abandons its dials and fails its
// waiters with err.
func (p *Pool[K, C]) clearLocked(e *entry[K, C], err error) (conns []*conn[K, C], dials int) {
	for _, c := range e.conns {
		if c.state != closing {
			p.shutLocked(c)
			conns = append(conns, c)
		}
	}
	for _, d := range e.dials {
		d.abandoned = true
		d.cancel()
	}
	dials = len(e.dials)
	e.dials = nil
	for w := e.waiters.front(); w != nil; w = e.waiters.front() {
		w.err = err
		p.settleLocked(w)
	}
	return conns, dials
}
