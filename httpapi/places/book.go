package places

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/fair"
)

const (
	// knownSize bounds the addresses that a Book knows by tokens, knownByOne those that
	// one person makes known: a good token and many addresses must not have those of
	// others forgotten.
	knownSize, knownByOne = 65_536, 32
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
	nodes atomic.Pointer[networks]

	mu    sync.Mutex                                // guards what follows
	known fair.Table[Person, netip.Addr, time.Time] // when it was noted, by area
}

// NewBook returns a Book that knows these nodes.
func NewBook(nodes []netip.Prefix) *Book {
	b := &Book{known: fair.Table[Person, netip.Addr, time.Time]{Most: knownSize, Each: knownByOne}}
	b.SetNodes(nodes)
	return b
}

// SetNodes replaces the networks of nodes and mirrors. A network of one address costs a
// request nothing more however many there are; of larger ones there should be few.
func (b *Book) SetNodes(nodes []netip.Prefix) {
	n := &networks{single: make(map[netip.Addr]bool)}
	for _, p := range nodes {
		if p.IsSingleIP() {
			n.single[p.Addr().Unmap()] = true
		} else {
			n.large = append(n.large, p)
		}
	}
	b.nodes.Store(n)
}

// networks are addresses, one by one and in ranges.
type networks struct {
	single map[netip.Addr]bool
	large  []netip.Prefix
}

func (n *networks) contain(addr netip.Addr) bool {
	return n.single[addr] || slices.ContainsFunc(n.large, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Rank says what is known of an address.
func (b *Book) Rank(addr netip.Addr) Rank {
	addr = addr.Unmap().WithZone("")
	if b.nodes.Load().contain(addr) {
		return Node
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.known.Get(Area(addr), time.Now()); ok {
		return Known
	}
	return Stranger
}

// Vouch notes that a person has shown a good token from an address.
func (b *Book) Vouch(addr netip.Addr, by Person) {
	area, now := Area(addr), time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if noted, ok := b.known.Get(area, now); !ok || now.Sub(noted) >= freshFor {
		b.known.Put(by, area, now, now, now.Add(knownFor))
	}
}

// Known is how many addresses are known by tokens.
func (b *Book) Known() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known.Len()
}
