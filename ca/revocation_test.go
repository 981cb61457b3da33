package ca

import (
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/krl"
	"sallyport/ca/revocation"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

var admin = Actor{UID: 4711, Reason: "lost laptop"}

func (w *world) list(t testing.TB) *krl.List {
	t.Helper()
	l, err := krl.Parse(w.RevocationList())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) issueTo(t testing.TB, caller identity.Identity, key ssh.PublicKey) *ssh.Certificate {
	t.Helper()
	cert, err := w.Issue(t.Context(), Request{Caller: caller, Profile: "user", PublicKey: key})
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (w *world) revokeNow(t testing.TB, kind revocation.Kind, value string) revocation.Done {
	t.Helper()
	done, err := w.Revoke(t.Context(), admin, revocation.Act{Kind: kind, Value: value}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// TestEachKindRevokesWhatItNames: alice has two certificates, bob one.
func TestEachKindRevokesWhatItNames(t *testing.T) {
	t.Parallel()
	bob := identitytest.Identity(t, "bob", 10*time.Minute)
	for _, c := range []struct {
		kind    revocation.Kind
		value   func(*ssh.Certificate) string
		want    [3]bool // alice's first, alice's second, bob's
		refused bool    // alice's key, or alice, gets no more
	}{
		{revocation.Serial, func(c *ssh.Certificate) string { return strconv.FormatUint(c.Serial, 10) }, [3]bool{true, false, false}, false},
		{revocation.KeyID, func(c *ssh.Certificate) string { return c.KeyId }, [3]bool{true, false, false}, false},
		{revocation.User, func(*ssh.Certificate) string { return "alice" }, [3]bool{true, true, false}, true},
		{revocation.Subject, func(*ssh.Certificate) string { return alice(t).Issuer() + "#sub-alice" }, [3]bool{true, true, false}, true},
		{revocation.Key, func(c *ssh.Certificate) string { return ssh.FingerprintSHA256(c.Key) }, [3]bool{true, false, false}, true},
		{revocation.Key, func(c *ssh.Certificate) string { return string(ssh.MarshalAuthorizedKey(c.Key)) }, [3]bool{true, false, false}, true},
		{revocation.IssuedBefore, func(*ssh.Certificate) string { return time.Now().Format(time.RFC3339Nano) }, [3]bool{true, true, true}, false},
	} {
		w := newWorld(t)
		key := newPublicKey(t)
		certs := [3]*ssh.Certificate{
			w.issueTo(t, alice(t), key), w.issueTo(t, alice(t), newPublicKey(t)), w.issueTo(t, bob, newPublicKey(t)),
		}
		before := w.RevocationVersion()
		done := w.revokeNow(t, c.kind, c.value(certs[0]))
		if done.ListVersion <= before || done.ListVersion != w.list(t).Version {
			t.Errorf("%s: version %d after %d, the list has %d", c.kind, done.ListVersion, before, w.list(t).Version)
		}
		for i, cert := range certs {
			if got := w.list(t).Revokes(cert); got != c.want[i] {
				t.Errorf("%s: certificate %d is revoked: %t", c.kind, i, got)
			}
		}
		_, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: key})
		if c.refused {
			wantCode(t, err, CodeRevoked)
		} else if err != nil {
			t.Errorf("%s: a new certificate is refused: %v", c.kind, err)
		}
		w.issueTo(t, bob, newPublicKey(t))
	}
}

func TestMalformedRevocationsAreRefusedAndTheCAIsSpared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, r := range []revocation.Act{
		{Kind: revocation.Serial, Value: "0"},
		{Kind: revocation.Serial, Value: "-1"},
		{Kind: revocation.KeyID, Value: "a\nb"},
		{Kind: revocation.User, Value: "root"},
		{Kind: revocation.User, Value: ""},
		{Kind: revocation.Subject, Value: "no alias"},
		{Kind: revocation.Key, Value: "SHA256:short"},
		{Kind: revocation.Key, Value: "ssh-ed25519 AAAA"},
		{Kind: revocation.Key, Value: w.Fingerprint()},
		{Kind: revocation.IssuedBefore, Value: time.Now().Add(time.Hour).Format(time.RFC3339)},
		{Kind: "everybody", Value: "yes"},
	} {
		_, err := w.Revoke(t.Context(), admin, r, nil)
		if !errors.Is(err, revocation.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	_, err := w.Revoke(t.Context(), Actor{Reason: "two\nlines"}, revocation.Act{Kind: revocation.User, Value: "alice"}, nil)
	if !errors.Is(err, revocation.ErrInvalid) {
		t.Errorf("a reason of two lines: %v", err)
	}
	if n := len(w.events(t, audit.AdminAct)); n != 0 {
		t.Errorf("%d acts are recorded", n)
	}
}

// TestRevocationsSurviveARestartAndAreLifted also looks at the audit log.
func TestRevocationsSurviveARestartAndAreLifted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cert := w.issueTo(t, alice(t), newPublicKey(t))
	w.revokeNow(t, revocation.User, "alice")
	before := string(w.RevocationList())
	w.close(t)

	w = openWorld(t, w.dir, w.key)
	if string(w.RevocationList()) != before {
		t.Error("the list has other bytes after a restart")
	}
	_, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	wantCode(t, err, CodeRevoked)
	standing, err := w.Revocations(t.Context())
	if err != nil || len(standing) != 1 || standing[0].UID != 4711 || standing[0].Reason != "lost laptop" {
		t.Errorf("standing are %+v, %v", standing, err)
	}
	if _, err := w.Lift(t.Context(), admin, standing[0]); err != nil {
		t.Fatal(err)
	}
	w.issueTo(t, alice(t), newPublicKey(t))
	if !w.list(t).Revokes(cert) {
		t.Error("the certificate of before is good again")
	}
	if _, err := w.Lift(t.Context(), admin, standing[0]); !errors.Is(err, revocation.ErrNotRevoked) {
		t.Errorf("second lift: %v", err)
	}
	acts := w.events(t, audit.AdminAct)
	if len(acts) != 6 || acts[0]["sallyport.uid"] != "4711" || acts[1]["event.outcome"] != "success" || acts[5]["event.outcome"] != "failure" {
		t.Errorf("acts in the audit log: %v", acts)
	}
}

func TestEntriesLeaveOnceTheirCertificatesHaveExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := openWorld(t, privateDir(t), newTestKey(t, "ed25519"))
		defer w.close(t)
		empty := len(w.RevocationList())
		cert := w.issueTo(t, alice(t), newPublicKey(t))
		done := w.revokeNow(t, revocation.Serial, strconv.FormatUint(cert.Serial, 10))
		long := w.list(t)
		if !long.Revokes(cert) || !done.Expires.After(unixTime(cert.ValidBefore)) {
			t.Errorf("revoked %t until %s", long.Revokes(cert), done.Expires)
		}
		time.Sleep(time.Until(unixTime(cert.ValidBefore)))
		if !w.list(t).Revokes(cert) {
			t.Error("it left while the clock of a node may be slow")
		}
		time.Sleep(revocationMargin + time.Second)
		short := w.list(t)
		if short.Revokes(cert) || len(w.RevocationList()) != empty || short.Version <= long.Version {
			t.Errorf("after its end: revoked %t, version %d after %d", short.Revokes(cert), short.Version, long.Version)
		}
		if standing, err := w.Revocations(t.Context()); err != nil || len(standing) != 0 {
			t.Errorf("standing are %v, %v", standing, err)
		}
	})
}

func TestCanaryIsInEveryListAndInNoRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if !w.list(t).Revokes(w.Canary()) || !w.list(t).Revokes(w.CanarySigner().PublicKey()) {
		t.Error("the list does not revoke the canary")
	}
	_, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: w.CanarySigner().PublicKey()})
	wantCode(t, err, CodePublicKey)
	for _, k := range w.list(t).Keys {
		if ssh.FingerprintSHA256(k) == w.Fingerprint() {
			t.Error("the list revokes the active CA")
		}
	}
	before := w.Canary().Marshal()
	w.close(t)
	if w = openWorld(t, w.dir, w.key); string(w.Canary().Marshal()) != string(before) {
		t.Error("a restart makes another canary")
	}
}

// TestCachedCredentialsOfTheRevokedAreGone, on disk too.
func TestCachedCredentialsOfTheRevokedAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cache := w.cache(t)
	bob := identitytest.Identity(t, "bob", 10*time.Minute)
	ask := func(who identity.Identity) (*ssh.Certificate, error) {
		_, cert, err := cache.Credential(t.Context(), who, "daint")
		return cert, err
	}
	first, err := ask(alice(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(bob); err != nil {
		t.Fatal(err)
	}
	w.revokeNow(t, revocation.Serial, strconv.FormatUint(first.Serial, 10))
	second, err := ask(alice(t))
	if err != nil || second.Serial == first.Serial {
		t.Fatalf("after a revocation of it: %v", err)
	}
	w.revokeNow(t, revocation.Subject, alice(t).Issuer()+"#sub-alice")
	_, err = ask(alice(t))
	wantCode(t, err, CodeRevoked)
	left := 0
	for _, err := range w.db.List(t.Context(), credentialPrefix) {
		if err != nil {
			t.Fatal(err)
		}
		left++
	}
	if left != 1 {
		t.Errorf("%d credentials are left, want bob's", left)
	}
}

// TestNoCertificateEscapesARevocation: many ask while the revocation is made. Each
// certificate that anybody got is in the list.
func TestNoCertificateEscapesARevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var (
		mu  sync.Mutex
		got []*ssh.Certificate
		wg  sync.WaitGroup
	)
	for range 8 {
		wg.Go(func() {
			for {
				cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
				if err != nil {
					wantCode(t, err, CodeRevoked)
					return
				}
				mu.Lock()
				got = append(got, cert)
				mu.Unlock()
			}
		})
	}
	for {
		mu.Lock()
		n := len(got)
		mu.Unlock()
		if n > 20 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.revokeNow(t, revocation.User, "alice")
	wg.Wait()
	for _, cert := range got {
		if !w.list(t).Revokes(cert) {
			t.Errorf("certificate %d escaped", cert.Serial)
		}
	}
}

// TestRevocationThatCannotBeRecordedDoesNotHappen.
func TestRevocationThatCannotBeRecordedDoesNotHappen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Audit = brokenAudit{c.Audit, audit.AdminAct} })
	if _, err := w.Revoke(t.Context(), admin, revocation.Act{Kind: revocation.User, Value: "alice"}, func(revocation.Act) { t.Error("connections are cut") }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
	w.issueTo(t, alice(t), newPublicKey(t))
	if files, err := filepath.Glob(filepath.Join(w.dir, "audit", "*")); err != nil || len(files) == 0 {
		t.Errorf("audit log: %v", err)
	}
}
