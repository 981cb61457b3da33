package pool

import (
	"context"
	"time"
)

// A waiter is a caller that waits in Reserve.
type waiter[K comparable, C Conn] struct {
	entry *entry[K, C]
	ctx   context.Context
	dial  Dial[C]
	ready chan struct{} // has room for the one signal that it is settled
	timer *time.Timer

	// Guarded by Pool.mu.
	link    link[*waiter[K, C]]
	settled bool // by one of:
	conn    *conn[K, C]
	limit   int
	err     error
}

// enqueueLocked makes the caller wait, last of its key.
func (p *Pool[K, C]) enqueueLocked(ctx context.Context, e *entry[K, C], dial Dial[C], now time.Time) (*waiter[K, C], error) {
	if p.stats.Waiting >= p.cfg.MaxWaiters {
		p.stats.Full++
		p.dropLocked(e, now)
		return nil, ErrFull
	}
	var w *waiter[K, C]
	if last := len(p.free) - 1; last >= 0 {
		w, p.free = p.free[last], p.free[:last]
		w.timer.Reset(p.cfg.WaitTimeout)
	} else {
		w = &waiter[K, C]{ready: make(chan struct{}, 1), timer: time.NewTimer(p.cfg.WaitTimeout)}
		w.link.item = w
	}
	w.entry, w.ctx, w.dial = e, ctx, dial
	e.waiters.push(&w.link)
	p.stats.Waits++
	p.stats.Waiting++
	p.reviewLocked(e, now)
	return w, nil
}

// await blocks until w is settled or gives up.
func (p *Pool[K, C]) await(w *waiter[K, C], since time.Time) (*Lease[C], error) {
	var gaveUp error
	select {
	case <-w.ready:
	case <-w.ctx.Done():
		gaveUp = w.ctx.Err()
	case <-w.timer.C:
		gaveUp = ErrFull
	}
	w.timer.Stop()

	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.WaitTime += now.Sub(since)
	c, limit, err := w.conn, w.limit, w.err
	if gaveUp != nil {
		err = p.giveUpLocked(w, gaveUp, now)
	}
	p.recycleLocked(w)
	if err != nil {
		return nil, err
	}
	return newLease(c, limit), nil
}

// giveUpLocked withdraws a waiter. When it was settled at the same moment, a
// caller that is still there takes the result; one that is gone passes its lease
// on.
func (p *Pool[K, C]) giveUpLocked(w *waiter[K, C], why error, now time.Time) error {
	full := why == ErrFull //nolint:errorlint // our own value, set just above
	switch {
	case !w.settled:
		w.entry.waiters.remove(&w.link)
		p.stats.Waiting--
		p.reviewLocked(w.entry, now)
	case full:
		<-w.ready
		return w.err
	default:
		<-w.ready
		if w.conn != nil {
			p.returnLocked(w.conn, released, w.limit, now)
		}
	}
	if full {
		p.stats.Full++
	} else {
		p.stats.Cancelled++
	}
	return why
}

// recycleLocked keeps w, its channel and its timer for the next caller.
func (p *Pool[K, C]) recycleLocked(w *waiter[K, C]) {
	w.entry, w.ctx, w.dial = nil, nil, nil
	w.settled, w.conn, w.limit, w.err = false, nil, 0, nil
	p.free = append(p.free, w)
}

// serveLocked grants leases to the waiters of e, oldest first, while there is
// room.
func (p *Pool[K, C]) serveLocked(e *entry[K, C], now time.Time) {
	for w := e.waiters.front(); w != nil; w = e.waiters.front() {
		c, limit := p.pickLocked(e, now)
		if c == nil {
			return
		}
		w.conn, w.limit = c, limit
		p.grantLocked(c, now, w.ctx, w.dial)
		p.settleLocked(w)
	}
}

// grantLocked gives out a lease of c, and asks for a successor in good time.
func (p *Pool[K, C]) grantLocked(c *conn[K, C], now time.Time, ctx context.Context, dial Dial[C]) {
	p.idle.remove(&c.idle)
	c.leases++
	p.stats.Leases++
	e := c.entry
	if now.Before(c.renewAt) || c.renewing || e.renewal != nil || e.cooling {
		return
	}
	c.renewing = true
	e.renewal = &renewal[K, C]{conn: c, ctx: ctx, dial: dial}
	p.queueLocked(e, now)
	p.pumpLocked(now)
}

// settleLocked wakes a waiter whose result is set.
func (p *Pool[K, C]) settleLocked(w *waiter[K, C]) {
	w.entry.waiters.remove(&w.link)
	p.stats.Waiting--
	w.settled = true
	w.ready <- struct{}{}
}

// failLocked gives the error of a dial of e to the waiters who counted on it:
// those whom neither a connection nor another dial can serve. Later ones get a
// dial of their own. It reports whether there was anyone to tell.
func (p *Pool[K, C]) failLocked(e *entry[K, C], err error, now time.Time) bool {
	if e.serving > 0 {
		return false
	}
	limit := e.group.limit(p.cfg.MaxSessions, now)
	k := e.waiters.head
	for served := len(e.dials) * limit; served > 0 && k != nil; served-- {
		k = k.next
	}
	told := false
	for ; limit > 0 && k != nil; limit-- {
		w := k.item
		k = k.next
		w.err, told = err, true
		p.settleLocked(w)
	}
	return told
}
