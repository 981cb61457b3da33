package places

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// knownSize bounds the addresses that a Book knows by tokens, knownByOne those that
	// one person makes known: whoever has a good token and many addresses must not have
	// those of others forgotten.
	knownSize  = 65_536
	knownByOne = 32
	// knownFor is how long an address is known after a good token.
	knownFor = time.Hour
	// freshFor is how long nothing is written for an address that was just noted, so
	// that a call costs a look.
	freshFor = time.Minute
)

// A Person is who has shown a good token.
type Person struct{ Issuer, Subject string }

// A Book knows addresses. It is safe for concurrent use.
type Book struct {
	nodes atomic.Pointer[[]netip.Prefix]

	mu     sync.Mutex // guards what follows
	known  map[netip.Addr]*list.Element
	oldest list.List                  // of *acquaintance
	by     map[Person][]*list.Element // in the order in which they were noted
}

// An acquaintance is a known address.
type acquaintance struct {
	area netip.Addr
	by   Person
	at   time.Time
}

// NewBook returns a Book that knows these nodes.
func NewBook(nodes []netip.Prefix) *Book {
	b := &Book{known: make(map[netip.Addr]*list.Element), by: make(map[Person][]*list.Element)}
	b.SetNodes(nodes)
	return b
}

// SetNodes replaces the networks of nodes and mirrors.
func (b *Book) SetNodes(nodes []netip.Prefix) {
	nodes = slices.Clone(nodes)
	b.nodes.Store(&nodes)
}

// Rank says what is known of an address.
func (b *Book) Rank(addr netip.Addr) Rank {
	addr = addr.Unmap().WithZone("")
	for _, p := range *b.nodes.Load() {
		if p.Contains(addr) {
			return Node
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.known[Area(addr)]; ok && time.Since(noteOf(at).at) < knownFor {
		return Known
	}
	return Stranger
}

// Vouch notes that a person has shown a good token from an address.
func (b *Book) Vouch(addr netip.Addr, by Person) {
	area, now := Area(addr), time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.known[area]; ok {
		n := noteOf(at)
		if now.Sub(n.at) < knownFor { // whoever made it known first keeps it in their count
			if now.Sub(n.at) >= freshFor {
				n.at = now
				b.oldest.MoveToBack(at)
			}
			return
		}
		b.forgetLocked(at)
	}
	if mine := b.by[by]; len(mine) >= knownByOne {
		b.forgetLocked(mine[0])
	}
	if b.oldest.Len() >= knownSize {
		b.forgetLocked(b.oldest.Front())
	}
	at := b.oldest.PushBack(&acquaintance{area, by, now})
	b.known[area] = at
	b.by[by] = append(b.by[by], at)
}

func (b *Book) forgetLocked(at *list.Element) {
	n := noteOf(at)
	b.oldest.Remove(at)
	delete(b.known, n.area)
	rest := slices.DeleteFunc(b.by[n.by], func(e *list.Element) bool { return e == at })
	if len(rest) == 0 {
		delete(b.by, n.by)
		return
	}
	b.by[n.by] = rest
}

// Known is how many addresses are known by tokens.
func (b *Book) Known() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.known)
}

func noteOf(at *list.Element) *acquaintance {
	n, _ := at.Value.(*acquaintance)
	return n
}
