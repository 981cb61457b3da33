package identity

import (
	"crypto/sha256"
	"sync"
	"time"
)

// sweepInterval is how often a full cache looks for entries that have expired.
const sweepInterval = time.Minute

// A cache remembers verified tokens by their SHA-256. It holds neither the
// token nor anything an entry could outlive: the reader checks key and expiry.
type cache struct {
	size int

	mu      sync.Mutex // guards what follows
	entries map[[sha256.Size]byte]entry
	swept   time.Time
	hits    uint64
	misses  uint64
}

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
	return &cache{size: size, entries: make(map[[sha256.Size]byte]entry)}
}

// get returns an entry that is still good at this time.
func (c *cache) get(sum [sha256.Size]byte, now time.Time) (entry, bool) {
	c.mu.Lock()
	e, ok := c.entries[sum]
	c.mu.Unlock()
	ok = ok && e.good(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.hits++
	} else {
		c.misses++
		delete(c.entries, sum)
	}
	return e, ok
}

// put remembers an entry. A full cache drops what has expired, or else an entry
// at random: a caller with many tokens cannot choose whose are dropped.
func (c *cache) put(sum [sha256.Size]byte, e entry, now time.Time) {
	if c.size <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= c.size && now.Sub(c.swept) >= sweepInterval {
		c.swept = now
		for other, old := range c.entries {
			if !old.issuer.alive(old.identity.expires, now) {
				delete(c.entries, other)
			}
		}
	}
	for other := range c.entries {
		if len(c.entries) < c.size {
			break
		}
		delete(c.entries, other)
	}
	c.entries[sum] = e
}
