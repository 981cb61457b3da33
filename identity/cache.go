package identity

import (
	"crypto/sha256"
	"sync"
	"time"

	"sallyport/internal/fair"
)

// maxTokensOfOne bounds the tokens of one person that are remembered, so that a person with many of
// them has their own verified again, and nobody else's.
const maxTokensOfOne = 64

// A cache remembers verified tokens by their SHA-256. It holds neither the
// token nor anything an entry could outlive: the reader checks key and expiry.
type cache struct {
	mu      sync.Mutex // guards what follows
	entries fair.Table[person, [sha256.Size]byte, entry]
	hits    uint64
	misses  uint64
}

type person struct{ issuer, subject string }

// An entry is the outcome of a verification, without the token.
type entry struct {
	identity Identity
	issuer   *issuer
	by       proof
}

// good says whether verifying the token again would still give the same.
func (e entry) good(now time.Time) bool {
	set := e.issuer.keys.current()
	return set != nil && set.vouches(e.by) && e.issuer.alive(e.identity.expires, now)
}

func newCache(size int) *cache {
	return &cache{entries: fair.Table[person, [sha256.Size]byte, entry]{Most: size, Each: maxTokensOfOne}}
}

// get returns an entry that is still good at this time.
func (c *cache) get(sum [sha256.Size]byte, now time.Time) (entry, bool) {
	c.mu.Lock()
	e, ok := c.entries.Get(sum, now)
	c.mu.Unlock()
	ok = ok && e.good(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.hits++
	} else {
		c.misses++
		c.entries.Delete(sum)
	}
	return e, ok
}

// peek is get for who asks again if there is none: only a hit counts.
func (c *cache) peek(sum [sha256.Size]byte, now time.Time) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries.Get(sum, now)
	if ok = ok && e.good(now); ok {
		c.hits++
	}
	return e, ok
}

// put remembers an entry as long as its token lives.
func (c *cache) put(sum [sha256.Size]byte, e entry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := e.identity.expires.Add(-e.issuer.cfg.MinLifetime) // at which it is good
	c.entries.Put(person{e.identity.Issuer(), e.identity.Subject()}, sum, e, now, last.Add(1))
}
