package pool

import "slices"

// DrainConns has the connections that match take no new leases and closes each when
// its last lease ends, those without one at once. A dial that is under way is judged
// when it ends: a connection that matches then is closed before anybody has it, and
// callers who wait for it get [ErrRevoked]. It returns how many connections match.
// The function must be quick; it is called for a dial later, under the pool's lock.
func (p *Pool[K, C]) DrainConns(match func(K, C) bool) int {
	found := p.matching(match, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range found {
		p.drainLocked(c)
	}
	return len(found)
}

// CloseConns is DrainConns without patience: the connections that match are closed
// under their leases, and it returns after the Close of each of them, also of those
// that drain, has returned.
func (p *Pool[K, C]) CloseConns(match func(K, C) bool) int {
	found := p.matching(match, true)
	p.mu.Lock()
	for _, c := range found {
		if c.state != closing {
			p.shutLocked(c)
		}
	}
	p.mu.Unlock()
	for _, c := range found {
		<-c.closed
	}
	return len(found)
}

// Conns counts the connections that match, until their Close has returned.
func (p *Pool[K, C]) Conns(match func(K, C) bool) int { return len(p.matching(match, false)) }

// matching finds connections whose Close has not returned. With judge it leaves
// match to every dial under way.
func (p *Pool[K, C]) matching(match func(K, C) bool, judge bool) []*conn[K, C] {
	var all []*conn[K, C]
	p.mu.Lock()
	for _, e := range p.keys {
		all = append(all, e.conns...)
		for _, d := range e.dials {
			if judge {
				d.unwanted = append(d.unwanted, match)
			}
		}
	}
	p.mu.Unlock()
	return slices.DeleteFunc(all, func(c *conn[K, C]) bool { return !match(c.entry.key, c.raw) })
}

// revoked says whether the connection of d was to be closed while it was made.
func (d *dialing[K, C]) revoked(made C) bool {
	return slices.ContainsFunc(d.unwanted, func(match func(K, C) bool) bool { return match(d.entry.key, made) })
}
