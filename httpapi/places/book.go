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
	nodes atomic.Pointer[[]netip.Prefix]

	mu    sync.Mutex                                // guards what follows
	known fair.Table[Person, netip.Addr, time.Time] // when it was noted, by area
}

// NewBook returns a Book that knows these nodes.
func NewBook(nodes []netip.Prefix) *Book {
	b := &Book{known: fair.Table[Person, netip.Addr, time.Time]{Most: knownSize, Each: knownByOne}}
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
