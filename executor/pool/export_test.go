package pool

import (
	"fmt"
	"time"
)

// Check verifies what must hold whenever the pool is at rest, and that nobody
// waits for nothing.
func (p *Pool[K, C]) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var leases, waiting, open, places, dialing, idle int
	for k, e := range p.keys {
		if err := p.checkEntryLocked(e); err != nil {
			return fmt.Errorf("key %v: %w", k, err)
		}
		for _, c := range e.conns {
			leases += c.leases
			if !c.evicted {
				places++
			}
			if c.idle.in {
				idle++
			}
		}
		open += len(e.conns)
		waiting += e.waiters.n
	}
	for name, g := range p.groups {
		dialing += g.dialing
		if g.dialing > p.cfg.MaxDialsPerGroup {
			return fmt.Errorf("group %q: %d dials at once", name, g.dialing)
		}
		if g.link.in != (g.queue.n > 0 && g.dialing < p.cfg.MaxDialsPerGroup) {
			return fmt.Errorf("group %q: ready is %t, queue %d, dials %d", name, g.link.in, g.queue.n, g.dialing)
		}
	}
	for _, v := range []struct {
		name      string
		got, want int
	}{
		{"places", p.places, places + dialing},
		{"open", p.stats.Open, open},
		{"dialing", p.stats.Dialing, dialing},
		{"waiting", p.stats.Waiting, waiting},
		{"idle", p.idle.n, idle},
	} {
		if v.got != v.want {
			return fmt.Errorf("%s is %d, counted %d", v.name, v.got, v.want)
		}
	}
	// Leases may outlive their connection, never the other way round.
	if p.stats.Leases < leases || p.places > p.cfg.MaxConns {
		return fmt.Errorf("leases %d, on connections %d; places %d", p.stats.Leases, leases, p.places)
	}
	if p.ready.n > 0 && (p.places < p.cfg.MaxConns || p.idle.n > 0) {
		return fmt.Errorf("a dial is held back without a reason")
	}
	return nil
}

func (p *Pool[K, C]) checkEntryLocked(e *entry[K, C]) error {
	now := time.Now()
	limit := p.cfg.MaxSessions
	if e.group.learned > 0 {
		limit = e.group.learned // that it is forgotten shows at the next event
	}
	var taking int
	for _, c := range e.conns {
		if c.state == serving {
			taking++
			if e.waiters.n > 0 && c.leases < min(c.limit, limit) && now.Before(c.retireAt) {
				return fmt.Errorf("%d wait although a connection has %d of %d leases", e.waiters.n, c.leases, c.limit)
			}
		}
		if c.leases < 0 || c.leases > p.cfg.MaxSessions || c.open < 0 {
			return fmt.Errorf("connection has %d leases, %d open", c.leases, c.open)
		}
		if c.idle.in != (c.state == serving && c.leases == 0) {
			return fmt.Errorf("state %d, leases %d, idle %t", c.state, c.leases, c.idle.in)
		}
	}
	if taking != e.serving {
		return fmt.Errorf("%d connections serve, counted %d", e.serving, taking)
	}
	for _, d := range e.dials {
		if d.replaces == nil || d.replaces.state != serving {
			taking++
		}
	}
	if taking > p.cfg.MaxConnsPerKey {
		return fmt.Errorf("%d connections and dials", taking)
	}
	// What another key has taught the group shows when the dial under way ends.
	if p.wantsLocked(e, now) && !e.link.in && len(e.dials) == 0 {
		return fmt.Errorf("%d wait on %d connections; a dial is wanted, but not queued", e.waiters.n, e.serving)
	}
	return nil
}

// Keys returns how many keys and groups the pool remembers.
func (p *Pool[K, C]) Keys() (keys, groups int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.keys), len(p.groups)
}
