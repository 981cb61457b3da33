package ca

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store"
	"sallyport/store/audit"
)

func (w *world) cache(t testing.TB, change ...func(*CacheConfig)) *Cache {
	t.Helper()
	cfg := CacheConfig{Authority: w.Authority, Store: w.auth.Store}
	for _, f := range change {
		f(&cfg)
	}
	c, err := NewCache(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func credential(t testing.TB, c *Cache, caller identity.Identity, system string) *ssh.Certificate {
	t.Helper()
	signer, cert, err := c.Credential(t.Context(), caller, system)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign(rand.Reader, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.Key.Verify([]byte("data"), sig); err != nil {
		t.Fatalf("the key is not the certificate's: %v", err)
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), cert.Marshal()) {
		t.Fatal("the signer shows another certificate")
	}
	if !slices.Equal(cert.ValidPrincipals, []string{caller.Login()}) {
		t.Fatalf("certificate of %s is for %q", caller, cert.ValidPrincipals)
	}
	return cert
}

func TestCredentialIsReusedUntilShortlyBeforeItExpires(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		renew time.Duration
		ttl   time.Duration
		life  time.Duration // how long it is reused
	}{
		"a fifth of five minutes":    {0, 5 * time.Minute, 4 * time.Minute},
		"30 seconds of one minute":   {0, time.Minute, 30 * time.Second},
		"half of ten seconds":        {0, 10 * time.Second, 5 * time.Second},
		"as configured":              {2 * time.Minute, 5 * time.Minute, 3 * time.Minute},
		"never more than half of it": {time.Hour, 5 * time.Minute, 150 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) {
				cfg.Profiles = []ProfileConfig{{Name: "executor", DefaultTTL: c.ttl}}
			})
			defer w.close(t)
			cache := w.cache(t, func(cfg *CacheConfig) { cfg.RenewBefore = c.renew })
			caller := identitytest.Identity(t, "alice", time.Hour)
			first := credential(t, cache, caller, "daint")
			time.Sleep(c.life - time.Second)
			if again := credential(t, cache, caller, "daint"); again.Serial != first.Serial {
				t.Errorf("%s: renewed too early", name)
			}
			time.Sleep(2 * time.Second)
			renewed := credential(t, cache, caller, "daint")
			if renewed.Serial == first.Serial {
				t.Errorf("%s: renewed too late", name)
			}
			if bytes.Equal(renewed.Key.Marshal(), first.Key.Marshal()) {
				t.Errorf("%s: the new certificate has the old key", name)
			}
		})
	}
}

func TestCredentialsAreNeverShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache := w.cache(t)
	seen := make(map[uint64]string)
	for _, who := range []struct{ alias, subject, login, system string }{
		{"kc", "s1", "alice", "daint"},
		{"kc", "s1", "alice", "eiger"},
		{"kc", "s2", "alice", "daint"},  // two people, one account
		{"kc2", "s1", "alice", "daint"}, // the same subject elsewhere
		{"kc", "s1", "bob", "daint"},    // one person, two accounts
		{"kc", "s1a", "lice", "daint"},  // what a careless join would confuse
	} {
		caller := identitytest.IdentityFrom(t, who.alias, who.subject, who.login, time.Minute)
		cert := credential(t, cache, caller, who.system)
		if other, ok := seen[cert.Serial]; ok {
			t.Errorf("%v got the certificate of %s", who, other)
		}
		seen[cert.Serial] = caller.String()
		if again := credential(t, cache, caller, who.system); again.Serial != cert.Serial {
			t.Errorf("%v: not cached", who)
		}
	}
}

func TestATokenThatEndsEarlierMayUseTheCachedCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache := w.cache(t)
	first := credential(t, cache, identitytest.IdentityFrom(t, "kc", "s", "alice", time.Hour), "daint")
	if again := credential(t, cache, identitytest.IdentityFrom(t, "kc", "s", "alice", time.Minute), "daint"); again.Serial != first.Serial {
		t.Error("another certificate was made")
	}
}

func TestNobodyAndTheExpiredGetNoCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close(t)
		cache := w.cache(t)
		_, _, err := cache.Credential(t.Context(), identity.Identity{}, "daint")
		wantCode(t, err, CodeIdentity)

		caller := identitytest.Identity(t, "alice", time.Minute)
		credential(t, cache, caller, "daint")
		time.Sleep(time.Minute)
		_, _, err = cache.Credential(t.Context(), caller, "daint") // though the certificate has its grace
		wantCode(t, err, CodeIdentity)
	})
}

func TestCredentialSurvivesARestartAndIsUselessToAThief(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	signer, first, err := w.cache(t).Credential(t.Context(), alice(t), "daint")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := w.db.Get(t.Context(), recordKey(t, w))
	if err != nil {
		t.Fatal(err)
	}
	seed := openSeed(t, w.key, entry)
	private := ed25519.NewKeyFromSeed(seed)
	if plain, err := ssh.NewSignerFromSigner(private); err != nil || !bytes.Equal(plain.PublicKey().Marshal(), first.Key.Marshal()) {
		t.Fatalf("the test has not found the private key: %v", err)
	}
	w.close(t)

	file, err := os.ReadFile(filepath.Join(w.dir, "sallyport.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range [][]byte{
		seed, private, []byte(hex.EncodeToString(seed)), []byte(base64.StdEncoding.EncodeToString(seed)),
		[]byte(base64.RawStdEncoding.EncodeToString(seed)), []byte("PRIVATE KEY"), []byte("openssh-key-v1"),
	} {
		if bytes.Contains(file, form) {
			t.Errorf("the file has the private key, or a form of one: %q", form[:min(len(form), 14)])
		}
	}
	if !bytes.Contains(file, []byte(base64.StdEncoding.EncodeToString(first.Marshal()))) {
		t.Error("the file lacks the certificate, so nothing was tested")
	}

	again := openWorld(t, w.dir, w.key)
	second := credential(t, again.cache(t), alice(t), "daint")
	if second.Serial != first.Serial || !bytes.Equal(signer.PublicKey().Marshal(), second.Marshal()) {
		t.Error("another certificate was made after the restart")
	}
}

func recordKey(t testing.TB, w *world) (key string) {
	t.Helper()
	n := 0
	for e, err := range w.db.List(t.Context(), "credential/") {
		if err != nil {
			t.Fatal(err)
		}
		key, n = e.Key, n+1
	}
	if n != 1 {
		t.Fatalf("%d cached credentials", n)
	}
	return key
}

func openSeed(t testing.TB, key *Key, e store.Entry) []byte {
	t.Helper()
	s, err := newSealer(key, "credential cache")
	if err != nil {
		t.Fatal(err)
	}
	var r cacheRecord
	if err := json.Unmarshal(e.Value, &r); err != nil {
		t.Fatal(err)
	}
	seed, err := s.open(r.Sealed, sealLabel(e.Key, r.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// TestRecordsThatDoNotFitAreReplaced tampers with the store and the configuration.
func TestRecordsThatDoNotFitAreReplaced(t *testing.T) {
	t.Parallel()
	edit := func(change func(*cacheRecord)) func(testing.TB, *world, *store.Entry) {
		return func(t testing.TB, _ *world, e *store.Entry) {
			var r cacheRecord
			if err := json.Unmarshal(e.Value, &r); err != nil {
				t.Fatal(err)
			}
			change(&r)
			var err error
			if e.Value, err = json.Marshal(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	// reseal stores a certificate that this authority signed, sealed with its key.
	reseal := func(change func(*ssh.Certificate)) func(testing.TB, *world, *store.Entry) {
		return func(t testing.TB, w *world, e *store.Entry) {
			c := w.cache(t)
			_, cert, err := c.open(signingKey{Key: w.key}, *e, alice(t))
			if err != nil {
				t.Fatal(err)
			}
			seed := openSeed(t, w.key, *e)
			change(cert)
			if err := cert.SignCert(rand.Reader, w.key.Signer()); err != nil {
				t.Fatal(err)
			}
			if e.Value, err = c.seal(signingKey{Key: w.key}, e.Key, seed, cert); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tamper := range map[string]func(testing.TB, *world, *store.Entry){
		"garbage":                func(_ testing.TB, _ *world, e *store.Entry) { e.Value = []byte("garbage") },
		"empty":                  func(_ testing.TB, _ *world, e *store.Entry) { e.Value = nil },
		"flipped bit in the key": edit(func(r *cacheRecord) { r.Sealed[len(r.Sealed)-1] ^= 1 }),
		"flipped bit in cert":    edit(func(r *cacheRecord) { r.Certificate[100] ^= 1 }),
		"no key":                 edit(func(r *cacheRecord) { r.Sealed = nil }),
		"no certificate":         edit(func(r *cacheRecord) { r.Certificate = nil }),
		"another's record": func(t testing.TB, w *world, e *store.Entry) {
			bob := identitytest.Identity(t, "bob", time.Minute)
			credential(t, w.cache(t), bob, "daint")
			for other, err := range w.db.List(t.Context(), "credential/") {
				if err != nil {
					t.Fatal(err)
				}
				if other.Key != e.Key {
					e.Value = other.Value
				}
			}
		},
		"sealed with another key": func(t testing.TB, w *world, e *store.Entry) {
			c, seed := w.cache(t), openSeed(t, w.key, *e)
			_, cert, err := c.open(signingKey{Key: w.key}, *e, alice(t))
			if err != nil {
				t.Fatal(err)
			}
			if e.Value, err = c.seal(signingKey{Key: newTestKey(t, "")}, e.Key, seed, cert); err != nil {
				t.Fatal(err)
			}
		},
		"another principal":  reseal(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }),
		"more principals":    reseal(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", "root"} }),
		"no principals":      reseal(func(c *ssh.Certificate) { c.ValidPrincipals = nil }),
		"host certificate":   reseal(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }),
		"without end":        reseal(func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }),
		"a year":             reseal(func(c *ssh.Certificate) { c.ValidBefore += 365 * 86400 }),
		"not valid yet":      reseal(func(c *ssh.Certificate) { c.ValidAfter += 300 }),
		"expired":            reseal(func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 1 }),
		"extension":          reseal(func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-pty": ""} }),
		"option":             reseal(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "id"} }),
		"key of another":     reseal(func(c *ssh.Certificate) { c.Key = newPublicKey(t) }),
		"the sound original": nil,
	} {
		w := newWorld(t)
		first := credential(t, w.cache(t), alice(t), "daint")
		e, err := w.db.Get(t.Context(), recordKey(t, w))
		if err != nil {
			t.Fatal(err)
		}
		if tamper != nil {
			tamper(t, w, &e)
		}
		if _, err := w.db.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		second := credential(t, w.cache(t), alice(t), "daint")
		if (second.Serial == first.Serial) != (tamper == nil) {
			t.Errorf("%s: serial %d after %d", name, second.Serial, first.Serial)
		}
		if third := credential(t, w.cache(t), alice(t), "daint"); third.Serial != second.Serial {
			t.Errorf("%s: was not replaced in the store", name)
		}
	}
}

func TestChangedAuthorityOrProfileMakesNewCredentials(t *testing.T) {
	t.Parallel()
	for name, reopen := range map[string]func(t testing.TB, dir string, key *Key) *Cache{
		"another ca key": func(t testing.TB, dir string, key *Key) *Cache {
			w := openWorld(t, dir, key, func(c *Config) { c.Keys = testKeys(dir) })
			w.replaceActive(t)
			return w.cache(t)
		},
		"source addresses": func(t testing.TB, dir string, key *Key) *Cache {
			return openWorld(t, dir, key, func(c *Config) {
				c.Profiles = []ProfileConfig{{Name: "executor", SourceAddresses: nets("10.0.0.0/8")}}
			}).cache(t)
		},
		"shorter maximum": func(t testing.TB, dir string, key *Key) *Cache {
			return openWorld(t, dir, key, func(c *Config) {
				c.Profiles = []ProfileConfig{{Name: "executor", MaxTTL: time.Minute}}
			}).cache(t)
		},
	} {
		w := newWorld(t)
		first := credential(t, w.cache(t), alice(t), "daint")
		w.close(t)
		if second := credential(t, reopen(t, w.dir, w.key), alice(t), "daint"); second.Serial == first.Serial {
			t.Errorf("%s: the old certificate is still used", name)
		}
	}
}

func TestConcurrentCallsShareOneCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache, caller := w.cache(t), alice(t)
	serials := make([]uint64, 200)
	var wg sync.WaitGroup
	for i := range serials {
		wg.Go(func() {
			_, cert, err := cache.Credential(context.Background(), caller, "daint")
			if err != nil {
				t.Error(err)
				return
			}
			serials[i] = cert.Serial
		})
	}
	wg.Wait()
	if got := slices.Compact(serials); len(got) != 1 || len(w.rows(t)) != 1 {
		t.Errorf("%d certificates, %d rows", len(got), len(w.rows(t)))
	}
	if len(cache.flights) != 0 {
		t.Errorf("%d flights are left", len(cache.flights))
	}
}

// heldAudit holds intents until it is told to go on.
type heldAudit struct {
	audit.Recorder
	gate chan struct{}
}

func (h heldAudit) Record(ctx context.Context, e audit.Event) error {
	if e.Action == audit.CertificateIntent {
		<-h.gate
	}
	return h.Recorder.Record(ctx, e)
}

func TestACallerWhoGivesUpLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		w := newWorld(t, func(c *Config) { c.Audit = heldAudit{c.Audit, gate} })
		defer w.close(t)
		cache, caller := w.cache(t), alice(t)
		type answer struct {
			cert *ssh.Certificate
			err  error
		}
		ask := func(ctx context.Context) chan answer {
			done := make(chan answer, 1)
			go func() {
				_, cert, err := cache.Credential(ctx, caller, "daint")
				done <- answer{cert, err}
			}()
			synctest.Wait()
			return done
		}
		first, giveUpFirst := context.WithCancel(t.Context())
		second, giveUpSecond := context.WithCancel(t.Context())
		a, b, c := ask(first), ask(second), ask(t.Context())
		giveUpFirst()
		giveUpSecond()
		synctest.Wait()
		if got := <-b; !errors.Is(got.err, context.Canceled) {
			t.Errorf("who waited and gave up got %v, %v", got.cert, got.err)
		}
		close(gate)
		got, last := <-a, <-c
		if got.err != nil || last.err != nil || got.cert.Serial != last.cert.Serial {
			t.Errorf("the others got %v and %v", got, last)
		}
	})
}

func TestARefusalOfOneTokenIsNotGivenToAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close(t)
		cache, caller := w.cache(t), alice(t)
		key := cacheKey{ProfileExecutor, caller.Issuer(), caller.Subject(), caller.Login(), "daint"}
		f, mine := cache.board(key) // the call of an older token of the same person
		if !mine {
			t.Fatal("somebody is at work")
		}
		done := make(chan error, 1)
		go func() {
			_, _, err := cache.Credential(t.Context(), caller, "daint")
			done <- err
		}()
		synctest.Wait()
		f.err = &RequestError{CodeIdentity, "token", "has expired"}
		cache.mu.Lock()
		delete(cache.flights, key)
		cache.mu.Unlock()
		close(f.done)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestCacheFailsClosedWithTheAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Audit = brokenAudit{c.Audit, audit.CertificateIntent} })
	if _, cert, err := w.cache(t).Credential(t.Context(), alice(t), "daint"); cert != nil || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, %v", cert, err)
	}
	cache := w.cache(t)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, cert, err := cache.Credential(t.Context(), alice(t), "daint"); cert != nil || !errors.Is(err, ErrUnavailable) {
		t.Errorf("closed store: got %v, %v", cert, err)
	}
}

func TestCredentialIsGivenThoughItCannotBeCached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache := w.cache(t, func(c *CacheConfig) { c.Store = brokenStore{w.db} })
	first, second := credential(t, cache, alice(t), "daint"), credential(t, cache, alice(t), "daint")
	if first.Serial == second.Serial {
		t.Error("was cached, so nothing was tested")
	}
}

func TestNewCacheReportsAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := NewCache(CacheConfig{RenewBefore: -1})
	for _, want := range []string{"authority is missing", "store is missing", "renew before -1ns is negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	w := newWorld(t)
	if _, err := NewCache(CacheConfig{Authority: w.Authority, Store: w.db, Profile: "none"}); err == nil {
		t.Error("a profile that does not exist was taken")
	}
}
