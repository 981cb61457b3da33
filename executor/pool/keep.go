package pool

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// keep looks after c for as long as it lives, and closes it.
func (p *Pool[K, C]) keep(c *conn[K, C]) {
	p.wg.Go(func() { p.lost(c, c.raw.Wait()) })
	if p.cfg.Probe != nil {
		p.wg.Go(func() { p.probe(c) })
	}
	timer := time.NewTimer(p.tend(c))
	defer timer.Stop()
	for open := true; open; {
		select {
		case <-timer.C:
			timer.Reset(p.tend(c))
		case <-c.stop:
			open = false
		}
	}
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

// tend does what is due for c and returns when to look again.
func (p *Pool[K, C]) tend(c *conn[K, C]) time.Duration {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
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
	return next.Sub(now)
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

// probe asks the peer of c for a sign of life until there is none.
func (p *Pool[K, C]) probe(c *conn[K, C]) {
	timer := time.NewTimer(p.cfg.ProbeInterval)
	defer timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-timer.C:
		}
		if err := p.probeOnce(c); err != nil {
			p.frozen(c, err)
			return
		}
		timer.Reset(p.cfg.ProbeInterval)
	}
}

// probeOnce does not rely on Probe to heed its context: closing the connection
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
