package httpapi

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sallyport/identity"
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

const (
	// maxBuckets is how many callers, and how many clients, are told apart.
	maxBuckets = 20_000
	// sweepEvery is how often a full table is searched for those who rest.
	sweepEvery = time.Second
)

// rates counts requests against policies.
type rates struct {
	policies []RatePolicy
	each     []*buckets[callerKey] // of each policy
	all      []*buckets[clientKey]
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
		mine, wait := r.each[i].take(keyOf(caller), now)
		if wait > 0 {
			return &rateError{"of the caller", wait}
		}
		if _, wait := r.all[i].take(clientKey{caller.Issuer(), caller.Client()}, now); wait > 0 {
			if mine != nil {
				mine.CancelAt(now)
			}
			return &rateError{"of the client", wait}
		}
		return nil
	}
	return nil
}

// buckets are token buckets (RFC 2697 calls them so), one for each key. A bucket that
// is full says nothing and is forgotten when room is needed. Who finds none shares one
// with all others who do not, so that a flood of keys cannot free anybody of a debt,
// and costs a bounded memory.
type buckets[K comparable] struct {
	limit Rate

	mu     sync.Mutex // guards what follows
	of     map[K]*rate.Limiter
	others *rate.Limiter
	swept  time.Time
}

func newBuckets[K comparable](r Rate) *buckets[K] {
	if r.Burst == 0 {
		r.Burst = max(1, r.PerMinute/6)
	}
	b := &buckets[K]{limit: r, of: make(map[K]*rate.Limiter)}
	b.others = b.fresh()
	return b
}

func (b *buckets[K]) fresh() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(b.limit.PerMinute)/60), b.limit.Burst)
}

// take takes one from the bucket of k, or says when there will be one. It looks before it
// takes: a [rate.Reservation] that is cancelled while others are made gives back less
// than it took, so that a flood of refusals would leave a debt of days.
func (b *buckets[K]) take(k K, now time.Time) (*rate.Reservation, time.Duration) {
	if b.limit.PerMinute == 0 {
		return nil, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.limiterLocked(k, now)
	if missing := 1 - limiter.TokensAt(now); missing > 0 {
		return nil, max(1, time.Duration(missing/float64(limiter.Limit())*float64(time.Second)))
	}
	return limiter.ReserveN(now, 1), 0
}

func (b *buckets[K]) limiterLocked(k K, now time.Time) *rate.Limiter {
	if l, ok := b.of[k]; ok {
		return l
	}
	if len(b.of) >= maxBuckets && now.Sub(b.swept) >= sweepEvery {
		b.swept = now
		for k, l := range b.of {
			if l.TokensAt(now) >= float64(b.limit.Burst) {
				delete(b.of, k)
			}
		}
	}
	if len(b.of) >= maxBuckets {
		return b.others
	}
	l := b.fresh()
	b.of[k] = l
	return l
}
