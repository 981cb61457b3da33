package httpapi

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

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
