package pool

import "time"

// connState is the way of a connection; it only goes forward.
type connState int

const (
	serving  connState = iota // takes leases
	draining                  // lets its leases finish
	closing                   // is being closed
)

// A conn is a connection of the pool.
type conn[K comparable, C Conn] struct {
	pool   *Pool[K, C]
	entry  *entry[K, C]
	raw    C
	stop   chan struct{} // closed when the state becomes closing
	closed chan struct{} // closed when raw.Close has returned

	renewAt  time.Time // from when on a lease asks for a successor
	retireAt time.Time // from when on there are no new leases
	killAt   time.Time // when leases are cut off; zero means never

	tending *time.Timer // looks after the connection
	probing *time.Timer // nil: no probes

	// Guarded by pool.mu.
	state    connState
	evicted  bool // its place among MaxConns is another's already
	renewing bool // a successor is asked for
	leases   int
	limit    int // of leases, as far as this connection itself has shown
	open     int // leases whose session was granted
	peak     int // highest open
	idle     link[*conn[K, C]]
	idleAt   time.Time // when it became idle
}

// pickLocked returns the connection of e with the fewest leases that has room,
// and its limit, or nil. Spreading the load uses several of the node's
// processors, and still lets surplus connections fall idle.
func (p *Pool[K, C]) pickLocked(e *entry[K, C], now time.Time) (best *conn[K, C], limit int) {
	groupLimit := e.group.limit(p.cfg.MaxSessions, now)
	for _, c := range e.conns {
		if c.state != serving {
			continue
		}
		if !now.Before(c.retireAt) {
			p.expireLocked(c)
			continue
		}
		most := min(c.limit, groupLimit)
		if c.leases < most && (best == nil || c.leases < best.leases) {
			best, limit = c, most
		}
	}
	return best, limit
}

// leaveLocked takes c out of those that serve.
func (p *Pool[K, C]) leaveLocked(c *conn[K, C], to connState) {
	if c.state == serving {
		c.entry.serving--
		p.idle.remove(&c.idle)
		if r := c.entry.renewal; r != nil && r.conn == c {
			c.entry.renewal = nil
		}
	}
	c.state = to
}

// drainLocked has c closed as soon as its leases have ended.
func (p *Pool[K, C]) drainLocked(c *conn[K, C]) {
	if c.state != serving {
		return
	}
	p.leaveLocked(c, draining)
	if c.leases == 0 {
		p.shutLocked(c)
	}
}

// shutLocked has c, which is not being closed yet, closed at once.
func (p *Pool[K, C]) shutLocked(c *conn[K, C]) {
	p.leaveLocked(c, closing)
	close(c.stop)
	c.tending.Stop()
	if c.probing != nil {
		c.probing.Stop()
	}
	p.wg.Go(func() { p.finish(c) })
}

// expireLocked drains a connection at the end of its lifetime.
func (p *Pool[K, C]) expireLocked(c *conn[K, C]) {
	p.stats.Expired++
	p.drainLocked(c)
}

// granted counts a session that the node has opened.
func (c *conn[K, C]) granted() {
	c.pool.mu.Lock()
	c.open++
	c.peak = max(c.peak, c.open)
	c.pool.mu.Unlock()
}

// serves says whether c takes new leases.
func (c *conn[K, C]) serves() bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.state == serving && time.Now().Before(c.retireAt)
}

// end ends one lease of c.
func (c *conn[K, C]) end(how ending, granted bool, limit int) {
	p, now := c.pool, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if granted {
		c.open--
	}
	p.returnLocked(c, how, limit, now)
}

// returnLocked takes a lease back and passes its room on.
func (p *Pool[K, C]) returnLocked(c *conn[K, C], how ending, limit int, now time.Time) {
	c.leases--
	p.stats.Leases--
	switch how {
	case refused:
		p.learnLocked(c, limit, now)
	case discarded:
		p.drainLocked(c)
	case released:
	}
	if c.leases == 0 {
		switch c.state {
		case serving:
			c.idleAt = now
			p.idle.push(&c.idle)
		case draining:
			p.shutLocked(c)
		case closing:
		}
	}
	p.reviewLocked(c.entry, now)
}

// learnLocked draws the conclusion from a refused session of c, whose lease was
// granted when the limit was as given.
//
// The leases that are left are those that the node did grant, or is about to
// refuse too. What was open at once before was granted for sure, which counts
// when quick sessions have ended meanwhile. In any case the limit that led to
// the refusal was one too high: sshd counts a session for a moment longer than
// its client does, and refuses a new one that comes in this moment.
func (p *Pool[K, C]) learnLocked(c *conn[K, C], limit int, now time.Time) {
	if c.leases == 0 {
		p.drainLocked(c)
	}
	learned := max(1, min(limit-1, max(c.leases, c.peak)))
	c.limit = min(c.limit, learned)
	c.entry.group.learn(learned, now, now.Add(p.cfg.LearnedFor))
	p.stats.Refusals++
}
