package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// coolDown is how long a key that has a connection refrains from dialling
// another one after a failure, so that a node which refuses is not pestered.
const coolDown = time.Second

var (
	errNoDial = errors.New("dial function is nil")
	errNoConn = errors.New("dial returned no connection")
)

// A dialing is a dial under way.
type dialing[K comparable, C Conn] struct {
	entry     *entry[K, C]
	cancel    context.CancelFunc
	replaces  *conn[K, C] // nil: an additional connection
	abandoned bool        // its result is wanted no more
	// unwanted judges the connection, for DrainConns and CloseConns.
	unwanted []func(K, C) bool
}

// wantsLocked reports whether a dial should be started for e.
func (p *Pool[K, C]) wantsLocked(e *entry[K, C], now time.Time) bool {
	if e.renewal != nil {
		return true
	}
	if e.waiters.n <= len(e.dials)*e.group.limit(p.cfg.MaxSessions, now) {
		return false // the dials under way will do
	}
	if e.cooling && e.serving > 0 {
		return false
	}
	conns := e.serving
	for _, d := range e.dials {
		if d.replaces == nil || d.replaces.state != serving {
			conns++
		}
	}
	return conns < p.cfg.MaxConnsPerKey
}

// queueLocked lets e stand in its group's queue exactly while it wants a dial,
// and the group in the pool's while it may start one.
func (p *Pool[K, C]) queueLocked(e *entry[K, C], now time.Time) {
	g := e.group
	if p.wantsLocked(e, now) {
		g.queue.push(&e.link)
	} else {
		g.queue.remove(&e.link)
	}
	p.readyLocked(g)
}

func (p *Pool[K, C]) readyLocked(g *group[K, C]) {
	if g.queue.n > 0 && g.dialing < p.cfg.MaxDialsPerGroup {
		p.ready.push(&g.link)
	} else {
		p.ready.remove(&g.link)
	}
}

// pumpLocked starts the dials that the limits allow. Groups take turns, and
// within a group its keys.
func (p *Pool[K, C]) pumpLocked(now time.Time) {
	for g := p.ready.front(); g != nil; g = p.ready.front() {
		e := g.queue.front()
		if p.wantsLocked(e, now) {
			victim, ok := p.placeLocked()
			if !ok {
				return
			}
			// The victim can be the connection that was to be renewed: then nobody wants
			// the dial any more.
			if p.wantsLocked(e, now) {
				p.startLocked(e, victim)
			} else {
				p.leavePlaceLocked(victim)
			}
		}
		g.queue.remove(&e.link)
		p.ready.remove(&g.link)
		p.queueLocked(e, now)
		p.dropLocked(e, now)
	}
}

// placeLocked takes one of MaxConns, if need be from the longest idle
// connection, which is returned: it has to be closed before the dial.
func (p *Pool[K, C]) placeLocked() (victim *conn[K, C], ok bool) {
	if p.places < p.cfg.MaxConns {
		p.places++
		return nil, true
	}
	victim = p.idle.front()
	if victim == nil {
		return nil, false
	}
	p.stats.Evicted++
	victim.evicted = true
	p.shutLocked(victim)
	return victim, true
}

// leavePlaceLocked gives back the place of a dial that came to nothing, to its
// victim if that is still being closed.
func (p *Pool[K, C]) leavePlaceLocked(victim *conn[K, C]) {
	if victim != nil && slices.Contains(victim.entry.conns, victim) {
		victim.evicted = false
		return
	}
	p.places--
}

// startLocked starts a dial for e with the function of a caller: the one whose
// reservation asked for a renewal, or the one that waits longest.
func (p *Pool[K, C]) startLocked(e *entry[K, C], victim *conn[K, C]) {
	d := &dialing[K, C]{entry: e}
	var caller context.Context
	var dial Dial[C]
	if r := e.renewal; r != nil {
		caller, dial, d.replaces = r.ctx, r.dial, r.conn
		e.renewal = nil
	} else {
		w := e.waiters.front()
		caller, dial = w.ctx, w.dial
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(caller), p.cfg.DialTimeout) //nolint:gosec // dial calls it
	d.cancel = cancel
	e.dials = append(e.dials, d)
	e.group.dialing++
	p.stats.Dialing++
	p.stats.Dials++
	p.wg.Go(func() { p.dial(ctx, d, dial, victim) })
}

// dial makes one connection and hands it, or the error, to the pool.
func (p *Pool[K, C]) dial(ctx context.Context, d *dialing[K, C], dial Dial[C], victim *conn[K, C]) {
	defer d.cancel()
	made, err := connect(ctx, dial, victim)
	e, now := d.entry, time.Now()

	p.mu.Lock()
	if err == nil && (d.abandoned || d.revoked(made.Conn)) {
		err = ErrRevoked // for those who wait; nobody does for one that was abandoned
		p.mu.Unlock()
		_ = made.Conn.Close() // nobody has used it
		p.mu.Lock()
	}
	e.group.dialing--
	p.stats.Dialing--
	e.dials = slices.DeleteFunc(e.dials, func(o *dialing[K, C]) bool { return o == d })
	told, cooling := true, false
	switch {
	case d.abandoned:
		p.leavePlaceLocked(victim)
	case err != nil:
		p.leavePlaceLocked(victim)
		p.stats.DialFailures++
		if d.replaces != nil {
			d.replaces.renewing = false
		}
		told = p.failLocked(e, err, now)
		cooling = e.serving > 0
		e.cooling = e.cooling || cooling
	default:
		p.standLocked(d, made, now)
	}
	p.readyLocked(e.group)
	p.reviewLocked(e, now)
	p.mu.Unlock()

	if !told {
		p.cfg.Logger.Warn("background dial failed",
			slog.String("group", e.group.name), slog.Any("error", err))
	}
	if cooling {
		p.cool(e)
	}
}

// connect calls the dial function and checks what it gives.
func connect[K comparable, C Conn](ctx context.Context, dial Dial[C], victim *conn[K, C]) (Dialed[C], error) {
	if victim != nil {
		select {
		case <-victim.closed:
		case <-ctx.Done():
			return Dialed[C]{}, fmt.Errorf("wait for an idle connection to close: %w", ctx.Err())
		}
	}
	made, err := dial(ctx)
	if err != nil {
		return made, err
	}
	if any(made.Conn) == nil {
		return made, errNoConn
	}
	if !made.NotAfter.IsZero() && !time.Now().Before(made.NotAfter) {
		_ = made.Conn.Close() // nobody has used it
		return made, fmt.Errorf("credential of the new connection has expired at %s", made.NotAfter.UTC().Format(time.RFC3339))
	}
	return made, nil
}

// standLocked takes a new connection into service, in place of the one that it
// replaces.
func (p *Pool[K, C]) standLocked(d *dialing[K, C], made Dialed[C], now time.Time) {
	e := d.entry
	c := &conn[K, C]{
		pool: p, entry: e, raw: made.Conn, limit: p.cfg.MaxSessions, idleAt: now,
		stop: make(chan struct{}), closed: make(chan struct{}),
	}
	c.idle.item = c
	life := p.cfg.MaxLifetime
	if !made.NotAfter.IsZero() {
		life = min(life, made.NotAfter.Sub(now))
		c.killAt = made.NotAfter.Add(p.cfg.SessionGrace)
	}
	jitter := min(p.cfg.LifetimeJitter, life/4)
	life -= rand.N(jitter + 1) //nolint:gosec // spreads expiry in time, keeps no secret
	c.retireAt = now.Add(life)
	c.renewAt = c.retireAt.Add(-min(p.cfg.RenewBefore, life/4))

	e.conns = append(e.conns, c)
	e.serving++
	p.stats.Open++
	p.idle.push(&c.idle)
	if d.replaces != nil && d.replaces.state == serving {
		p.stats.Renewed++
		p.drainLocked(d.replaces)
	}
	p.keepLocked(c, now)
}

// cool lets some time pass before e may dial again.
func (p *Pool[K, C]) cool(e *entry[K, C]) {
	timer := time.NewTimer(coolDown)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.done:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e.cooling = false
	p.reviewLocked(e, time.Now())
}
