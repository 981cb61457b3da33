package httpapi

import (
	"errors"
	"fmt"
	"time"

	"sallyport/identity"
	"sallyport/internal/fair"
)

// A Rate allows so many requests a minute, and Burst of them at once after a rest. The
// zero Rate allows any number.
type Rate struct {
	PerMinute, Burst int
}

// A RatePolicy limits requests that have a good token. Of several the first that
// matches counts, alone.
type RatePolicy struct {
	// Issuer is the alias of the token's issuer, Client its client, Login the account;
	// empty matches any.
	Issuer, Client, Login string
	// Each limits every caller by himself, All the requests that come through one
	// client of one issuer, whoever makes them.
	Each, All Rate
}

func (p RatePolicy) matches(caller identity.Identity) bool {
	return (p.Issuer == "" || p.Issuer == caller.Alias()) && (p.Client == "" || p.Client == caller.Client()) &&
		(p.Login == "" || p.Login == caller.Login())
}

func checkRates(policies []RatePolicy) error {
	var errs []error
	for i, p := range policies {
		for _, r := range []Rate{p.Each, p.All} {
			if r.PerMinute < 0 || r.Burst < 0 || r.PerMinute == 0 && r.Burst > 0 {
				errs = append(errs, fmt.Errorf("rates: number %d has a negative number, or a burst without a rate", i+1))
			}
		}
	}
	return errors.Join(errs...)
}

// errRate says that a rate was exceeded.
var errRate = errors.New("rate of requests is exceeded")

// A rateError is errRate with the time to wait.
type rateError struct {
	whose string
	after time.Duration
}

func (e *rateError) Error() string { return fmt.Sprintf("%v: %s", errRate, e.whose) }
func (e *rateError) Unwrap() error { return errRate }

// rates counts requests against policies.
type rates struct {
	policies []RatePolicy
	each     []*fair.Buckets[callerKey] // of each policy; nil: no limit
	all      []*fair.Buckets[clientKey]
}

type clientKey struct{ issuer, client string }

func newRates(policies []RatePolicy) *rates {
	r := &rates{policies: policies}
	for _, p := range policies {
		r.each = append(r.each, newBuckets[callerKey](p.Each))
		r.all = append(r.all, newBuckets[clientKey](p.All))
	}
	return r
}

// take counts a request, or refuses it with a [*rateError] and counts nothing.
func (r *rates) take(caller identity.Identity) error {
	for i, p := range r.policies {
		if !p.matches(caller) {
			continue
		}
		now := time.Now()
		if wait := takeOne(r.each[i], keyOf(caller), now); wait > 0 {
			return &rateError{"of the caller", wait}
		}
		if wait := takeOne(r.all[i], clientKey{caller.Issuer(), caller.Client()}, now); wait > 0 {
			if r.each[i] != nil {
				r.each[i].Spend(keyOf(caller), -1, now)
			}
			return &rateError{"of the client", wait}
		}
		return nil
	}
	return nil
}

// newBuckets is nil for a rate without a limit.
func newBuckets[K comparable](r Rate) *fair.Buckets[K] {
	if r.PerMinute == 0 {
		return nil
	}
	if r.Burst == 0 {
		r.Burst = max(1, r.PerMinute/6)
	}
	return fair.NewBuckets[K](float64(r.PerMinute)/60, float64(r.Burst))
}

func takeOne[K comparable](b *fair.Buckets[K], k K, now time.Time) (wait time.Duration) {
	if b == nil {
		return 0
	}
	return b.Take(k, 1, now)
}
