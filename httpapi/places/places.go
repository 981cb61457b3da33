// Package places divides what is scarce among client addresses: connections, and
// the places of requests that have shown no good token.
//
// The guarantee: whatever strangers do, there is room for addresses that have shown a
// good token lately and for the configured nodes, and of strangers none shuts out the
// others. Memory is bounded: a [Crowd] has no more members than its total, a [Book] no
// more addresses than its size.
//
// How: each address has a part of the total, each rank a part that others do not get,
// and who keeps the service waiting (by not reading, not sending, or showing no token)
// yields to a newcomer. Of those who yield, the lowest rank goes first, of it the
// address with the most members, of it the one that has kept us waiting for longest.
package places

import (
	"container/heap"
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// A Rank says what is known of an address. A higher one goes before a lower.
type Rank int

// The ranks, the lowest first.
const (
	Stranger Rank = iota
	// Known is an address that has shown a good token lately.
	Known
	// Proxy is a trusted proxy: many clients behind one address.
	Proxy
	// Node is a configured node or mirror.
	Node

	ranks = int(Node) + 1
)

// Area is what counts as one address: an IPv4 address, or the /64 of an IPv6 address,
// which is what one customer has at the least (RFC 6177 §2). An IPv4 address that is
// written as IPv6 (RFC 4291 §2.5.5.2) is IPv4.
func Area(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	prefix, err := a.Prefix(64)
	if err != nil { // there is no such address
		return a
	}
	return prefix.Addr()
}

// Limits are those of a [Crowd].
type Limits struct {
	// Total bounds all members. A sixteenth of it is sure for each rank.
	Total int
	// Each bounds the members of a stranger's address. An address of a higher rank may
	// have four times as many, but not more than half of all; proxies any number.
	Each int
	// Settle is how long a member is spared by newcomers of its own address, while
	// there is room for them beyond Each: for the burst with which a client begins.
	Settle time.Duration
	// Queue has newcomers refused rather than get a place of their own address: for
	// members who would only come again.
	Queue bool
}

func (l Limits) each(r Rank) int {
	switch r {
	case Stranger:
		return l.Each
	case Proxy:
		return l.Total
	default:
		return max(l.Each, min(4*l.Each, l.Total/2))
	}
}

// room is how full the crowd may be when one of the rank joins: the rest is kept for
// those above.
func (l Limits) room(r Rank) int { return l.Total - (ranks-1-int(r))*l.sure() }
func (l Limits) sure() int       { return l.Total / 16 }

// A Crowd is a bounded number of members. It is safe for concurrent use.
type Crowd struct {
	limits Limits

	mu      sync.Mutex // guards what follows, and its members and groups
	total   int
	of      [ranks]int
	groups  [ranks]map[netip.Addr]*group
	yield   [ranks]groupHeap // groups of which somebody yields
	refused uint64
	evicted uint64
}

// A group is the members of one rank and address.
type group struct {
	rank  Rank
	area  netip.Addr
	n     int
	yield list.List // of *Member, who has kept us waiting for longest first
	index int       // in the heap; -1: not there
}

// A Member has one place. A nil Member is somebody who needs none.
type Member struct {
	crowd *Crowd
	evict func()
	group *group // nil: it has left, or was evicted
	since time.Time
	at    *list.Element // in group.yield; nil: it does not yield
}

// NewCrowd returns an empty Crowd.
func NewCrowd(l Limits) *Crowd {
	c := &Crowd{limits: l}
	for r := range c.groups {
		c.groups[r] = make(map[netip.Addr]*group)
	}
	return c
}

// Join takes a place for somebody at an area (see [Area]), or returns nil. Evict is
// called, at most once and maybe before Join has returned to a caller elsewhere, when
// somebody else gets the place of a member that yields. A member does not yield yet.
func (c *Crowd) Join(area netip.Addr, rank Rank, evict func()) *Member {
	m, victim := c.join(area, rank, evict)
	if victim != nil {
		victim.evict()
	}
	return m
}

func (c *Crowd) join(area netip.Addr, rank Rank, evict func()) (m, victim *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groupLocked(rank, area)
	switch {
	case g.n >= c.limits.each(rank):
		victim = c.ownLocked(g)
		if victim != nil && c.total < c.limits.room(rank) && time.Since(victim.since) < c.limits.Settle {
			victim = nil
			break
		}
		if victim == nil {
			c.refuseLocked(g)
			return nil, nil
		}
	case c.total >= c.limits.room(rank):
		if victim = c.victimLocked(g); victim == nil {
			c.refuseLocked(g)
			return nil, nil
		}
	}
	m = &Member{crowd: c, evict: evict, since: time.Now()}
	c.addLocked(m, g) // before the victim goes, which may be the last of this group
	if victim != nil {
		c.evicted++
		c.removeLocked(victim)
	}
	return m, victim
}

// victimLocked is who yields to a newcomer of g: somebody of a lower rank, somebody of
// its own rank whose address has more, or somebody of a higher rank that has more than
// is sure for it, if the newcomer's has less.
func (c *Crowd) victimLocked(g *group) *Member {
	sure := c.limits.sure()
	for r := range ranks {
		if len(c.yield[r]) == 0 {
			continue
		}
		top := c.yield[r][0]
		switch {
		case r == int(g.rank):
			if top.n > g.n {
				return top.stalest()
			}
			if m := c.ownLocked(g); m != nil {
				return m
			}
		case c.of[r] <= sure:
		case r < int(g.rank) || c.of[g.rank] < sure:
			return top.stalest()
		}
	}
	return nil
}

// ownLocked is who yields to a newcomer of the same address.
func (c *Crowd) ownLocked(g *group) *Member {
	if c.limits.Queue {
		return nil
	}
	return g.stalest()
}

func (c *Crowd) groupLocked(rank Rank, area netip.Addr) *group {
	g := c.groups[rank][area]
	if g == nil {
		g = &group{rank: rank, area: area, index: -1}
		c.groups[rank][area] = g
	}
	return g
}

func (c *Crowd) refuseLocked(g *group) {
	c.refused++
	c.forgetLocked(g)
}

func (c *Crowd) forgetLocked(g *group) {
	if g.n == 0 {
		delete(c.groups[g.rank], g.area)
	}
}

func (c *Crowd) addLocked(m *Member, g *group) {
	m.group = g
	g.n++
	c.total++
	c.of[g.rank]++
	c.sortLocked(g)
}

func (c *Crowd) removeLocked(m *Member) {
	g := m.group
	if m.at != nil {
		g.yield.Remove(m.at)
		m.at = nil
	}
	m.group = nil
	g.n--
	c.total--
	c.of[g.rank]--
	c.sortLocked(g)
	c.forgetLocked(g)
}

// sortLocked puts g where it belongs in its heap.
func (c *Crowd) sortLocked(g *group) {
	h := &c.yield[g.rank]
	switch {
	case g.yield.Len() == 0 && g.index >= 0:
		heap.Remove(h, g.index)
	case g.yield.Len() > 0 && g.index < 0:
		heap.Push(h, g)
	case g.index >= 0:
		heap.Fix(h, g.index)
	}
}

// Yield says that the member keeps us waiting from now on: it may be evicted.
func (m *Member) Yield() {
	if m == nil {
		return
	}
	c := m.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.group == nil || m.at != nil {
		return
	}
	m.since = time.Now()
	m.at = m.group.yield.PushBack(m)
	c.sortLocked(m.group)
}

// Hold says that the member does not keep us waiting. It returns false if it has no
// place any more.
func (m *Member) Hold() bool {
	if m == nil {
		return true
	}
	c := m.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.group == nil {
		return false
	}
	if m.at != nil {
		m.group.yield.Remove(m.at)
		m.at = nil
		c.sortLocked(m.group)
	}
	return true
}

// Rise moves the member to a higher rank.
func (m *Member) Rise(rank Rank) {
	if m == nil {
		return
	}
	c := m.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.group == nil || m.group.rank >= rank {
		return
	}
	yields, area := m.at != nil, m.group.area
	c.removeLocked(m)
	c.addLocked(m, c.groupLocked(rank, area))
	if yields {
		m.at = m.group.yield.PushBack(m)
		c.sortLocked(m.group)
	}
}

// Leave gives the place back.
func (m *Member) Leave() {
	if m == nil {
		return
	}
	c := m.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.group != nil {
		c.removeLocked(m)
	}
}

// A Count says how full a Crowd is.
type Count struct {
	InUse int `json:"in_use"`
	Limit int `json:"limit"`
	// Strangers are those in use by addresses of which nothing is known, Addresses how
	// many addresses have one.
	Strangers int `json:"strangers"`
	Addresses int `json:"addresses"`
	// Refused and Evicted count since the start.
	Refused uint64 `json:"refused"`
	Evicted uint64 `json:"evicted"`
}

// Count returns a snapshot.
func (c *Crowd) Count() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := Count{InUse: c.total, Limit: c.limits.Total, Strangers: c.of[Stranger], Refused: c.refused, Evicted: c.evicted}
	for _, groups := range c.groups {
		n.Addresses += len(groups)
	}
	return n
}

// stalest is who has kept us waiting for longest, or nil.
func (g *group) stalest() *Member {
	front := g.yield.Front()
	if front == nil {
		return nil
	}
	m, _ := front.Value.(*Member)
	return m
}

// A groupHeap has the group with the most members first; of two, the one of which
// somebody has kept us waiting for longer. Each has somebody who yields.
type groupHeap []*group

func (h groupHeap) Len() int { return len(h) }

func (h groupHeap) Less(i, j int) bool {
	if h[i].n != h[j].n {
		return h[i].n > h[j].n
	}
	return h[i].stalest().since.Before(h[j].stalest().since)
}

func (h groupHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements [heap.Interface].
func (h *groupHeap) Push(x any) {
	g, _ := x.(*group)
	g.index = len(*h)
	*h = append(*h, g)
}

// Pop implements [heap.Interface].
func (h *groupHeap) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	(*h)[last] = nil
	*h, g.index = (*h)[:last], -1
	return g
}
