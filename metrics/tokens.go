package metrics

import "sallyport/identity"

var (
	issuerKeys     = gauge("issuer_keys", "Keys that can verify tokens now; 0 means that the issuer's callers are refused.", "issuer")
	issuerUpdated  = gauge("issuer_keys_updated_timestamp_seconds", "When the issuer last confirmed its keys.", "issuer")
	issuerFetches  = counter("issuer_key_fetches_total", "Attempts to fetch keys.", "issuer")
	issuerFailures = counter("issuer_key_fetch_failures_total", "Attempts that failed.", "issuer")
	cacheEntries   = gauge("token_cache_entries", "Verified tokens that are remembered.")
	cacheHits      = counter("token_cache_hits_total", "Tokens that were remembered as verified.")
	cacheMisses    = counter("token_cache_misses_total", "Tokens that had to be verified.")
)

// Tokens adds what a verifier knows.
func (m *Metrics) Tokens(stats func() identity.Stats) {
	m.registry.MustRegister(snapshot(func() []sample {
		s := stats()
		samples := []sample{of(cacheEntries, s.CacheEntries), of(cacheHits, s.CacheHits), of(cacheMisses, s.CacheMisses)}
		for _, i := range s.Issuers {
			samples = append(samples,
				of(issuerKeys, i.Keys, i.Alias), of(issuerUpdated, unix(i.Updated), i.Alias),
				of(issuerFetches, i.Fetches, i.Alias), of(issuerFailures, i.Failures, i.Alias))
		}
		return samples
	}))
}
