package identity_test

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

func TestARememberedTokenGivesTheSameAsANewOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t, identitytest.Config{})
		rules := []identity.IssuerConfig{issuer.IssuerConfig("test")}
		caching := newVerifier(t, identity.Config{Issuers: rules, HTTPClient: issuer.Client()})
		plain := newVerifier(t, identity.Config{Issuers: rules, HTTPClient: issuer.Client(), CacheSize: -1})
		token := mint(t, issuer, map[string]any{"scope": "a b", "azp": "portal", "exp": time.Now().Add(10 * time.Minute).Unix()})
		began := time.Now()
		for _, at := range []time.Duration{
			0, time.Second, 9 * time.Minute, 590*time.Second - 1, 590 * time.Second, 590*time.Second + 1, 599 * time.Second, 600 * time.Second, time.Hour,
		} {
			time.Sleep(time.Until(began.Add(at)))
			remembered, err1 := caching.Verify(t.Context(), token)
			fresh, err2 := plain.Verify(t.Context(), token)
			if fmt.Sprint(err1) != fmt.Sprint(err2) || !reflect.DeepEqual(remembered, fresh) {
				t.Errorf("at %v: remembered %v, %v; fresh %v, %v", at, remembered, err1, fresh, err2)
			}
			if good := at <= 590*time.Second; (err1 == nil) != good {
				t.Errorf("at %v: error is %v, want good: %v", at, err1, good)
			}
		}
		stats := caching.Stats()
		if stats.CacheHits != 4 || stats.CacheEntries != 0 {
			t.Errorf("%d hits and %d entries, want 4 and none after its expiry", stats.CacheHits, stats.CacheEntries)
		}
		if stats := plain.Stats(); stats.CacheHits != 0 || stats.CacheEntries != 0 {
			t.Errorf("the cache that is off has %+v", stats)
		}
	})
}

func TestARefusedTokenIsNotRemembered(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, identitytest.Config{})
	verifier := verifierOf(t, issuer)
	for _, claims := range []map[string]any{{"aud": "other"}, {"preferred_username": "root"}, {"exp": 1}} {
		token := mint(t, issuer, claims)
		for range 2 {
			refused(t, verifier, token, map[bool]error{true: identity.ErrNoLogin, false: identity.ErrInvalidToken}[claims["preferred_username"] != nil])
		}
	}
	if got := verifier.Stats().CacheEntries; got != 0 {
		t.Errorf("%d entries", got)
	}
}

func TestTheCacheIsBoundedAndForgetsTheExpiredFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t, identitytest.Config{})
		verifier := newVerifier(t, identity.Config{
			Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: &http.Client{Transport: webFor(issuer)}, CacheSize: 10,
		})
		token := func(life time.Duration) string {
			token := mint(t, issuer, map[string]any{"exp": time.Now().Add(life).Unix()})
			if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			return token
		}
		for range 5 {
			token(time.Minute)
		}
		var lasting []string
		for range 5 {
			lasting = append(lasting, token(time.Hour))
		}
		time.Sleep(2 * time.Minute)
		token(time.Hour)
		if got := verifier.Stats().CacheEntries; got != 6 {
			t.Errorf("%d entries after the first five have expired, want 6", got)
		}
		before := verifier.Stats().CacheHits
		for _, each := range lasting {
			if _, err := verifier.Verify(t.Context(), each); err != nil {
				t.Error(err)
			}
		}
		if got := verifier.Stats().CacheHits - before; got != 5 {
			t.Errorf("%d of 5 lasting tokens were remembered", got)
		}
		for range 100 {
			token(time.Hour)
			if got := verifier.Stats().CacheEntries; got > 10 {
				t.Fatalf("%d entries, want at most 10", got)
			}
		}
	})
}
