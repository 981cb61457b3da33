package identity_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// The tests of this file run in bubbles: their time is exact and costs nothing.

const keysURL, discoveryURL = "https://idp.test/keys", "https://idp.test/.well-known/openid-configuration"

// A bench is an issuer whose network can fail, and a verifier of its tokens.
type bench struct {
	*testing.T
	issuer   *identitytest.Issuer
	web      *web
	log      *bytes.Buffer
	verifier *identity.Verifier
}

func inBubble(t *testing.T, run func(b *bench), changes ...func(*identity.IssuerConfig, *web)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, issuer: newIssuer(t, identitytest.Config{}), log: &bytes.Buffer{}}
		b.web = webFor(b.issuer)
		rule := b.issuer.IssuerConfig("test")
		for _, change := range changes {
			change(&rule, b.web)
		}
		b.verifier = newVerifier(t, identity.Config{
			Issuers: []identity.IssuerConfig{rule}, HTTPClient: &http.Client{Transport: b.web},
			Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		})
		synctest.Wait()
		run(b)
	})
}

func (b *bench) mint(claims map[string]any) string {
	b.Helper()
	return mint(b, b.issuer, claims)
}

// lasting is a token that outlives the test.
func (b *bench) lasting() string {
	b.Helper()
	return b.mint(map[string]any{"exp": time.Now().Add(48 * time.Hour).Unix()})
}

// foreign is a token of the right issuer whose key is not published.
func (b *bench) foreign() string {
	b.Helper()
	claims := map[string]any{
		"iss": b.issuer.URL(), "aud": "sallyport", "sub": "s-1", "preferred_username": "alice",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		b.Fatal(err)
	}
	return signedBy(b, jose.EdDSA, rand.Text(), fuzzKey(), payload)
}

func (b *bench) want(token string, want error) {
	b.Helper()
	if want == nil {
		if _, err := b.verifier.Verify(b.Context(), token); err != nil {
			b.Errorf("at %v: error is %v, want none", time.Now().Format(time.TimeOnly), err)
		}
		return
	}
	refused(b.T, b.verifier, token, want)
}

// logged is the log of everything up to now.
func (b *bench) logged() string {
	synctest.Wait()
	return b.log.String()
}

func (b *bench) rotate() {
	b.Helper()
	if err := b.issuer.Rotate(); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantFetches(want int) {
	b.Helper()
	if got := b.web.count(keysURL); got != want {
		b.Errorf("at %v: the keys were fetched %d times, want %d", time.Now().Format(time.TimeOnly), got, want)
	}
}

func TestAThousandTokensWithRandomKeyIDsCostOneFetch(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.wantFetches(1)
		var tokens []string
		for range 1000 {
			tokens = append(tokens, b.foreign())
		}
		b.web.set(false, time.Second)
		storm := func() {
			var all sync.WaitGroup
			for _, token := range tokens {
				all.Go(func() {
					// Those that found too many waiting have not been looked at.
					_, err := b.verifier.Verify(b.Context(), token)
					if !errors.Is(err, identity.ErrInvalidToken) && !errors.Is(err, identity.ErrUnavailable) {
						b.Errorf("error is %v", err)
					}
				})
			}
			all.Wait()
		}
		began := time.Now()
		storm()
		b.wantFetches(2)
		if took := time.Since(began); took != time.Second {
			b.Errorf("the storm took %v, want the second of one fetch", took)
		}
		time.Sleep(28 * time.Second) // 29 s after the fetch was asked for
		storm()
		b.wantFetches(2)
		time.Sleep(time.Second)
		storm()
		b.wantFetches(3)
		if got := b.web.count(discoveryURL); got != 1 {
			b.Errorf("discovery was asked %d times, want once", got)
		}
	})
}

func TestATokenWithAnAbsurdKeyIDCostsNoFetch(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newForge(b)
		header := fmt.Sprintf(`{"alg":"RS256","kid":%q}`, strings.Repeat("k", 257))
		b.want(f.token(b, header, f.claims(map[string]any{"iss": b.issuer.URL()})), identity.ErrInvalidToken)
		b.wantFetches(1)
	})
}

func TestGoodTokensDoNotWaitForAStorm(t *testing.T) {
	inBubble(t, func(b *bench) {
		good := b.lasting()
		b.web.set(false, 5*time.Second)
		go b.want(b.foreign(), identity.ErrInvalidToken)
		synctest.Wait()
		began := time.Now()
		b.want(good, nil)
		if waited := time.Since(began); waited != 0 {
			b.Errorf("a good token waited %v", waited)
		}
		time.Sleep(time.Minute)
	})
}

func TestAReplacedKeyIsLearnedFromItsFirstToken(t *testing.T) {
	inBubble(t, func(b *bench) {
		old := b.lasting()
		b.want(old, nil)
		b.want(old, nil) // remembered
		b.rotate()
		b.want(old, nil) // nobody has said otherwise yet
		b.want(b.lasting(), nil)
		b.wantFetches(2)
		b.want(old, identity.ErrInvalidToken) // neither its key nor the memory of it counts
		if !strings.Contains(b.logged(), "level=WARN msg=\"all keys of the issuer were replaced at once\"") {
			b.Errorf("the log does not warn:\n%s", b.log)
		}
	})
}

func TestAWithdrawnKeyStopsWithinTheRefreshInterval(t *testing.T) {
	inBubble(t, func(b *bench) {
		old := b.lasting()
		b.want(old, nil)
		b.rotate()
		time.Sleep(5*time.Minute - time.Second)
		b.want(old, nil)
		b.wantFetches(1)
		time.Sleep(time.Second)
		synctest.Wait()
		b.wantFetches(2)
		b.want(old, identity.ErrInvalidToken)
	})
}

func TestTokensAreServedThroughAnOutageUpToMaxStale(t *testing.T) {
	inBubble(t, func(b *bench) {
		known, fresh := b.lasting(), b.lasting()
		b.want(known, nil)
		b.web.set(true, 0)
		time.Sleep(time.Hour)
		b.want(known, nil)
		b.want(fresh, nil) // also one that was not seen before
		if stats := b.verifier.Stats().Issuers[0]; stats.Failures == 0 || stats.LastError == "" || stats.Keys != 1 {
			b.Errorf("statistics say nothing of the outage: %+v", stats)
		}
		time.Sleep(time.Nanosecond)
		b.want(known, identity.ErrUnavailable)
		b.want(b.lasting(), identity.ErrUnavailable)
		if stats := b.verifier.Stats().Issuers[0]; stats.Keys != 0 {
			b.Errorf("stale keys are counted: %+v", stats)
		}
		if err := b.verifier.Ready(b.Context()); err != nil {
			b.Errorf("an outage makes the service not ready: %v", err)
		}
		b.web.set(false, 0)
		time.Sleep(30 * time.Second)
		b.want(known, nil)
		for text, want := range map[string]int{"level=WARN msg=\"keys cannot be fetched\"": 1, "keys can be fetched again": 1} {
			if got := strings.Count(b.logged(), text); got != want {
				b.Errorf("the log says %q %d times, want %d", text, got, want)
			}
		}
	})
}

func TestATokenOfAnUnknownKeyIsNotRefusedDuringAnOutage(t *testing.T) {
	inBubble(t, func(b *bench) {
		old := b.lasting()
		b.rotate()
		fresh := b.lasting()
		b.web.set(true, 0)
		b.want(fresh, identity.ErrUnavailable) // it may be good: nobody can say
		b.want(fresh, identity.ErrUnavailable)
		b.want(old[:strings.LastIndex(old, ".")+1]+strings.Repeat("A", 86), identity.ErrInvalidToken)
		b.web.set(false, 0)
		time.Sleep(30 * time.Second)
		b.want(fresh, nil)
	})
}

func TestAnIssuerThatIsDownAtTheStartIsAskedAgainSoon(t *testing.T) {
	down := func(_ *identity.IssuerConfig, w *web) { w.set(true, 0) }
	inBubble(t, func(b *bench) {
		if err := b.verifier.Ready(b.Context()); !errors.Is(err, identity.ErrUnavailable) || !strings.Contains(err.Error(), `"test"`) {
			b.Errorf("ready gives %v", err)
		}
		began := time.Now()
		b.want(b.lasting(), identity.ErrUnavailable)
		if waited := time.Since(began); waited != 0 {
			b.Errorf("the caller waited %v for nothing", waited)
		}
		// The one above asked at 0 s, too, which counts as a failure: 2 s more.
		for _, at := range []time.Duration{2, 6, 14, 30, 60, 90, 120} {
			before := b.web.count(discoveryURL)
			time.Sleep(time.Until(began.Add(at*time.Second - time.Nanosecond)))
			if got := b.web.count(discoveryURL); got != before {
				b.Errorf("asked %d times before %d s", got-before, at)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if got := b.web.count(discoveryURL); got != before+1 {
				b.Errorf("asked %d times at %d s, want once", got-before, at)
			}
		}
		b.web.set(false, 0)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if err := b.verifier.Ready(b.Context()); err != nil {
			b.Errorf("ready gives %v", err)
		}
		b.want(b.lasting(), nil)
	}, down)
}

func TestTheFirstTokensWaitForTheFirstKeys(t *testing.T) {
	slow := func(_ *identity.IssuerConfig, w *web) { w.set(false, 2*time.Second) }
	inBubble(t, func(b *bench) {
		began := time.Now()
		impatient, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		_, err := b.verifier.Verify(impatient, b.lasting())
		if !errors.Is(err, identity.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			b.Errorf("after %v an impatient caller has %v", time.Since(began), err)
		}
		b.want(b.lasting(), nil)
		if waited := time.Since(began); waited != 4*time.Second { // discovery, then keys
			b.Errorf("waited %v, want 4s", waited)
		}
		b.wantFetches(1)
	}, slow)
}

func TestAnIssuerThatHangsIsGivenUp(t *testing.T) {
	hung := func(_ *identity.IssuerConfig, w *web) { w.set(false, time.Hour) }
	inBubble(t, func(b *bench) {
		began := time.Now()
		b.want(b.lasting(), identity.ErrUnavailable)
		if waited := time.Since(began); waited != 10*time.Second {
			b.Errorf("waited %v, want 10s", waited)
		}
	}, hung)
}

func TestKeysThatMovedAreFoundAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t, identitytest.Config{})
		var mu sync.Mutex
		place := "https://keys.test/one"
		server := webOf(func(r *http.Request) (int, http.Header, []byte) {
			mu.Lock()
			defer mu.Unlock()
			switch r.URL.String() {
			case discoveryURL:
				return http.StatusOK, nil, fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":%q}`, issuer.URL(), place)
			case place:
				return http.StatusOK, nil, issuer.JWKS()
			}
			return http.StatusNotFound, nil, nil
		})
		verifier := newVerifier(t, identity.Config{
			Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: &http.Client{Transport: server},
		})
		if _, err := verifier.Verify(t.Context(), mint(t, issuer, nil)); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		place = "https://keys.test/two"
		mu.Unlock()
		if err := issuer.Rotate(); err != nil {
			t.Fatal(err)
		}
		refused(t, verifier, mint(t, issuer, nil), identity.ErrUnavailable)
		time.Sleep(time.Second) // the first retry
		synctest.Wait()
		if _, err := verifier.Verify(t.Context(), mint(t, issuer, nil)); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsAFetchAndWaitsForIt(t *testing.T) {
	hung := func(_ *identity.IssuerConfig, w *web) { w.set(false, time.Hour) }
	inBubble(t, func(b *bench) {
		failed := make(chan error, 1)
		go func() {
			_, err := b.verifier.Verify(b.Context(), b.lasting())
			failed <- err
		}()
		synctest.Wait()
		began := time.Now()
		for range 2 {
			if err := b.verifier.Close(); err != nil {
				b.Error(err)
			}
		}
		if err := <-failed; !errors.Is(err, identity.ErrUnavailable) {
			b.Errorf("the caller that waited has %v", err)
		}
		b.want(b.lasting(), identity.ErrUnavailable)
		b.want(b.lasting(), identity.ErrUnavailable)
		if took := time.Since(began); took != 0 {
			b.Errorf("Close and what followed took %v", took)
		}
	}, hung)
}

func TestAKeyFileIsReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t, identitytest.Config{})
		path := filepath.Join(t.TempDir(), "jwks.json")
		write := func(document []byte) {
			t.Helper()
			if err := os.WriteFile(path, document, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(issuer.JWKS())
		verifier := verifierOf(t, issuer, func(rule *identity.IssuerConfig) { rule.JWKSFile = path })
		b := &bench{T: t, issuer: issuer, verifier: verifier}
		first := b.lasting()
		b.want(first, nil)

		b.rotate()
		write(issuer.JWKS())
		b.want(first, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want(first, identity.ErrInvalidToken)
		second := b.lasting()
		b.want(second, nil)

		time.Sleep(30 * time.Second)
		b.rotate()
		write(issuer.JWKS())
		b.want(b.lasting(), nil) // a token of the new key does not wait for the timer
		third := b.lasting()

		for name, harm := range map[string]func(){
			"half written": func() { write([]byte(`{"keys":[`)) },
			"gone":         func() { _ = os.Remove(path) },
		} {
			harm()
			time.Sleep(time.Minute)
			b.want(third, nil)
			if failure := verifier.Stats().Issuers[0].LastError; failure == "" {
				t.Errorf("%s: no error is shown", name)
			}
		}
		time.Sleep(time.Hour)
		b.want(third, identity.ErrUnavailable)
		write(issuer.JWKS())
		time.Sleep(30 * time.Second)
		b.want(third, nil)
	})
}

// Whoever sends tokens that no key fits, while the issuer is slow, must not take all the
// places in which requests wait.
func TestFewTokensWaitForASlowIssuer(t *testing.T) {
	inBubble(t, func(b *bench) {
		good := b.lasting()
		b.want(good, nil)
		time.Sleep(time.Minute) // a token may cause a fetch again
		b.web.set(false, 5*time.Second)
		const tokens, most = 400, 128
		var all sync.WaitGroup
		var atOnce, later atomic.Int64
		began := time.Now()
		for range tokens {
			token := b.foreign()
			all.Go(func() {
				_, err := b.verifier.Verify(b.Context(), token)
				switch took := time.Since(began); {
				case took > 0 && errors.Is(err, identity.ErrInvalidToken):
					later.Add(1)
				case took == 0 && errors.Is(err, identity.ErrUnavailable):
					atOnce.Add(1)
				default:
					b.Errorf("after %v: %v", took, err)
				}
			})
		}
		synctest.Wait()
		b.want(good, nil)
		if took := time.Since(began); took > 0 {
			b.Errorf("a good token waited for %v", took)
		}
		all.Wait()
		if atOnce.Load() != tokens-most || later.Load() != most {
			b.Errorf("%d were refused at once and %d waited, want %d to wait", atOnce.Load(), later.Load(), most)
		}
		time.Sleep(time.Minute)
		b.want(b.foreign(), identity.ErrInvalidToken) // the places are free again
	})
}
