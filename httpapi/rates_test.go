package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sallyport/identity/identitytest"
)

func TestRequestsAboveTheRateAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Rates = []RatePolicy{{Each: Rate{PerMinute: 2, Burst: 3}}} })
	for range 3 {
		if a := s.do(http.MethodGet, "/v1/whoami", ""); a.status != http.StatusOK {
			t.Fatalf("got %d", a.status)
		}
	}
	a := s.do(http.MethodGet, "/v1/whoami", "")
	a.wantProblem(t, http.StatusTooManyRequests, "rate_limited")
	if after := a.header.Get("Retry-After"); after != "30" && after != "29" {
		t.Errorf("Retry-After %q", after)
	}
	if a := s.do(http.MethodGet, "/livez", ""); a.status != http.StatusOK {
		t.Errorf("a request without a token: %d", a.status)
	}
}

func TestRatesAreByPolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		alice, bob := identitytest.Identity(t, "alice", time.Hour), identitytest.Identity(t, "bob", time.Hour)
		r := newRates([]RatePolicy{
			{Login: "bob"}, // no limit
			{Issuer: "none-such", Each: Rate{PerMinute: 1}},
			{Issuer: alice.Alias(), Each: Rate{PerMinute: 60}, All: Rate{PerMinute: 120, Burst: 15}},
			{Each: Rate{PerMinute: 1}},
		})
		count := func(n int) (taken int) {
			for range n {
				switch err := r.take(alice); {
				case err == nil:
					taken++
				case !errors.Is(err, errRate):
					t.Fatal(err)
				}
			}
			return taken
		}
		if n := count(50); n != 10 { // a sixth of 60
			t.Errorf("%d at once", n)
		}
		carol := identitytest.Identity(t, "carol", time.Hour)
		for i := range 6 { // 5 are left for the client, and what alice was refused cost nothing
			if err := r.take(carol); (err == nil) != (i < 5) {
				t.Errorf("number %d of another caller: %v", i, err)
			}
		}
		for range 1000 {
			if err := r.take(bob); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		if n := count(50); n != 10 {
			t.Errorf("%d after ten seconds", n)
		}
	})
}

// TestFloodOfCallersFreesNobody: who has spent his rate stays refused while others come
// in any number, the table is bounded, and who rests is forgotten for who comes.
func TestFloodOfCallersFreesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuckets[int](Rate{PerMinute: 6, Burst: 1})
		take := func(k int) bool { _, wait := b.take(k, time.Now()); return wait == 0 }
		if !take(-1) || take(-1) {
			t.Fatal("the first caller's rate")
		}
		for k := range 3 * maxBuckets {
			take(k)
		}
		if len(b.of) > maxBuckets || take(-1) {
			t.Errorf("%d buckets; or the first caller is free again", len(b.of))
		}
		time.Sleep(10 * time.Second) // all are full again
		if !take(-2) || !take(-1) || len(b.of) > 2 {
			t.Errorf("%d buckets after a rest", len(b.of))
		}
	})
}

// TestRateHoldsInEveryWindow: however requests come, no window of time has more than
// the burst and what the rate adds in it.
func TestRateHoldsInEveryWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limit := Rate{PerMinute: rapid.IntRange(1, 6000).Draw(rt, "rate"), Burst: rapid.IntRange(1, 50).Draw(rt, "burst")}
		naps := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 150).Draw(rt, "naps")
		synctest.Test(t, func(t *testing.T) {
			b := newBuckets[string](limit)
			var taken []time.Time
			for _, nap := range naps {
				time.Sleep(time.Duration(nap) * time.Millisecond)
				if _, wait := b.take("x", time.Now()); wait == 0 {
					taken = append(taken, time.Now())
				}
			}
			for i := range taken {
				for j := i; j < len(taken); j++ {
					most := float64(limit.Burst) + taken[j].Sub(taken[i]).Minutes()*float64(limit.PerMinute)
					if float64(j-i+1) > most+1e-6 {
						t.Fatal(fmt.Sprint(j-i+1, " requests in ", taken[j].Sub(taken[i]), ", at most ", most))
					}
				}
			}
		})
	})
}

// Many refusals at once must not put a bucket into debt: that of a client is everybody's.
func TestAFloodOfRefusalsCostsNothing(t *testing.T) {
	t.Parallel()
	b := newBuckets[int](Rate{PerMinute: 60, Burst: 10})
	now := time.Now()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 20_000 {
				b.take(1, now)
			}
		})
	}
	all.Wait()
	if _, wait := b.take(1, now); wait <= 0 || wait > time.Second {
		t.Errorf("one has to wait for %s, want a second at most", wait)
	}
}
