package identity

import (
	"cmp"
	"slices"
	"time"
)

// Stats is a snapshot of a Verifier for metrics and status pages. It holds no
// secrets.
type Stats struct {
	Issuers []IssuerStats // ordered by alias
	// CacheEntries, CacheHits and CacheMisses are about verified tokens.
	CacheEntries           int
	CacheHits, CacheMisses uint64
}

// IssuerStats is about the keys of one issuer.
type IssuerStats struct {
	Alias string
	// Keys is how many keys can verify tokens now: 0 before the first fetch and
	// after an outage longer than MaxStale.
	Keys int
	// Updated is when the issuer last confirmed its keys, or zero.
	Updated time.Time
	// Fetches counts attempts to fetch keys, Failures those that failed.
	Fetches, Failures uint64
	// LastError is why the last fetch failed, or "" if it went well.
	LastError string
}

// Stats returns a snapshot.
func (v *Verifier) Stats() Stats {
	entries, hits, misses := v.cache.stats()
	s := Stats{CacheEntries: entries, CacheHits: hits, CacheMisses: misses}
	for _, iss := range v.issuers {
		s.Issuers = append(s.Issuers, iss.keys.stats(iss.cfg.Alias))
	}
	slices.SortFunc(s.Issuers, func(a, b IssuerStats) int { return cmp.Compare(a.Alias, b.Alias) })
	return s
}

func (k *keyring) stats(alias string) IssuerStats {
	s := IssuerStats{Alias: alias}
	if set := k.current(); set != nil {
		s.Keys = len(set.keys)
	}
	if latest := k.latest.Load(); latest != nil {
		s.Updated = latest.at
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Fetches, s.Failures = k.fetches, k.failures
	if k.failure != nil {
		s.LastError = k.failure.Error()
	}
	return s
}

func (c *cache) stats() (entries int, hits, misses uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries.Len(), c.hits, c.misses
}
