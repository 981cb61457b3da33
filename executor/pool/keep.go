package pool

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// keepLocked looks after c until it is shut. It has timers and no goroutine: there
// are many connections, most of them are idle, and a stack costs more than all that
// the pool knows of a connection.
func (p *Pool[K, C]) keepLocked(c *conn[K, C], now time.Time) {
	c.tending = time.AfterFunc(p.dueLocked(c, now).Sub(now), func() { p.tend(c) })
	if p.cfg.Probe != nil {
		c.probing = time.AfterFunc(p.cfg.ProbeInterval, func() { p.probe(c) })
	}
	lost := func() { p.lost(c, c.raw.Wait()) }
	if tells, ok := any(c.raw).(interface{ AfterEnd(func()) }); ok {
		tells.AfterEnd(lost)
	} else {
		p.wg.Go(lost)
	}
}

// finish closes c, whose state is closing.
func (p *Pool[K, C]) finish(c *conn[K, C]) {
	if err := c.raw.Close(); err != nil {
		p.cfg.Logger.Debug("close of a connection failed",
			slog.String("group", c.entry.group.name), slog.Any("error", err))
	}
	close(c.closed)

	p.mu.Lock()
	defer p.mu.Unlock()
	e := c.entry
	e.conns = slices.DeleteFunc(e.conns, func(o *conn[K, C]) bool { return o == c })
	p.stats.Open--
	if !c.evicted {
		p.places--
	}
	p.reviewLocked(e, time.Now())
}

// tend does what is due for c, and looks again when something else is.
func (p *Pool[K, C]) tend(c *conn[K, C]) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.state == closing {
		return
	}
	if c.state == serving && !now.Before(c.retireAt) {
		p.expireLocked(c)
	}
	if c.idle.in && now.Sub(c.idleAt) >= p.cfg.IdleTimeout {
		p.stats.IdleClosed++
		p.shutLocked(c)
	}
	if c.state != closing && !c.killAt.IsZero() && !now.Before(c.killAt) {
		if c.leases > 0 {
			p.stats.CutOff++
		}
		p.shutLocked(c)
	}
	p.reviewLocked(c.entry, now)
	if c.state != closing {
		c.tending.Reset(p.dueLocked(c, now).Sub(now))
	}
}

// dueLocked is when to look at c again.
func (p *Pool[K, C]) dueLocked(c *conn[K, C], now time.Time) time.Time {
	next := now.Add(p.cfg.IdleTimeout)
	if c.idle.in {
		next = c.idleAt.Add(p.cfg.IdleTimeout)
	}
	if c.state == serving && c.retireAt.Before(next) {
		next = c.retireAt
	}
	if !c.killAt.IsZero() && c.killAt.Before(next) {
		next = c.killAt
	}
	return next
}

// end closes c and counts it in reason, a field of stats, unless c is being closed
// already.
func (p *Pool[K, C]) end(c *conn[K, C], reason *uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.state == closing {
		return false
	}
	*reason++
	p.shutLocked(c)
	p.reviewLocked(c.entry, time.Now())
	return true
}

// lost is called when c has ended by itself, or was closed.
func (p *Pool[K, C]) lost(c *conn[K, C], err error) {
	if p.end(c, &p.stats.Lost) {
		p.cfg.Logger.Info("connection lost",
			slog.String("group", c.entry.group.name), slog.Any("error", err))
	}
}

// probe asks the peer of c for a sign of life, and again after an interval.
func (p *Pool[K, C]) probe(c *conn[K, C]) {
	p.mu.Lock()
	if c.state == closing {
		p.mu.Unlock()
		return
	}
	p.wg.Add(1) // Close shuts c before it waits
	p.mu.Unlock()
	defer p.wg.Done()
	if err := p.probeOnce(c); err != nil {
		p.frozen(c, err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.state != closing {
		c.probing.Reset(p.cfg.ProbeInterval)
	}
}

// probeOnce asks the peer of c for a sign of life. It does not rely on Probe to heed its context: closing the connection
// will make it return.
func (p *Pool[K, C]) probeOnce(c *conn[K, C]) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.ProbeTimeout)
	defer cancel()
	answer := make(chan error, 1)
	p.wg.Go(func() { answer <- p.cfg.Probe(ctx, c.raw) })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
	case <-c.stop:
		return nil
	}
	const grace = 100 * time.Millisecond // for a Probe that heeds its context to judge
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-answer:
		return err
	case <-timer.C:
		return fmt.Errorf("no answer within %s", p.cfg.ProbeTimeout)
	case <-c.stop:
		return nil
	}
}

// frozen closes a connection whose peer gave no sign of life.
func (p *Pool[K, C]) frozen(c *conn[K, C], err error) {
	if p.end(c, &p.stats.ProbesFailed) {
		p.cfg.Logger.Warn("connection gave no sign of life and is closed",
			slog.String("group", c.entry.group.name), slog.Any("error", err))
	}
}
