package pool

import (
	"context"
	"time"
)

// An entry is what the pool holds for one key.
type entry[K comparable, C Conn] struct {
	key     K
	group   *group[K, C]
	conns   []*conn[K, C] // until their Close returned
	serving int           // those of conns that take leases
	dials   []*dialing[K, C]
	waiters list[*waiter[K, C]]
	renewal *renewal[K, C]     // wanted, not yet dialled
	cooling bool               // a dial failed a moment ago
	link    link[*entry[K, C]] // in group.queue while a dial is wanted
}

// A renewal is the wish for a successor of conn.
type renewal[K comparable, C Conn] struct {
	conn *conn[K, C]
	ctx  context.Context
	dial Dial[C]
}

// A group is a set of keys whose connections lead to the same node.
type group[K comparable, C Conn] struct {
	name    string
	keys    int // entries of this group
	dialing int
	queue   list[*entry[K, C]] // keys that want a dial
	link    link[*group[K, C]] // in Pool.ready

	learned      int // sessions per connection; 0 means none learned
	learnedUntil time.Time
}

// entryLocked returns the entry of key, new if need be.
func (p *Pool[K, C]) entryLocked(key K, groupName string) *entry[K, C] {
	if e := p.keys[key]; e != nil {
		return e
	}
	g := p.groups[groupName]
	if g == nil {
		g = &group[K, C]{name: groupName}
		g.link.item = g
		p.groups[groupName] = g
	}
	g.keys++
	e := &entry[K, C]{key: key, group: g}
	e.link.item = e
	p.keys[key] = e
	return e
}

// dropLocked forgets e and its group when nothing is left of them.
func (p *Pool[K, C]) dropLocked(e *entry[K, C], now time.Time) {
	if len(e.conns)+len(e.dials)+e.waiters.n > 0 {
		return
	}
	g := e.group
	if p.keys[e.key] == e {
		delete(p.keys, e.key)
		g.keys--
	}
	if g.keys == 0 && g.dialing == 0 && !now.Before(g.learnedUntil) && p.groups[g.name] == g {
		delete(p.groups, g.name)
	}
}

// reviewLocked follows any change of e: it serves waiters, has connections
// dialled, and forgets e when it is empty.
func (p *Pool[K, C]) reviewLocked(e *entry[K, C], now time.Time) {
	p.serveLocked(e, now)
	p.queueLocked(e, now)
	p.pumpLocked(now)
	p.dropLocked(e, now)
}

// limit is how many leases a connection of the group may have.
func (g *group[K, C]) limit(configured int, now time.Time) int {
	if g.learned == 0 || !now.Before(g.learnedUntil) {
		return configured
	}
	return min(configured, g.learned)
}

// learn lowers the limit of the group.
func (g *group[K, C]) learn(limit int, now, until time.Time) {
	if g.learned == 0 || !now.Before(g.learnedUntil) || limit < g.learned {
		g.learned = limit
	}
	g.learnedUntil = until
}
