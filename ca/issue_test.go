package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store"
	"sallyport/store/audit"
)

func TestIssuedCertificateIsKnownToLedgerAndAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	caller, key := alice(t), newPublicKey(t)
	ctx := audit.WithRequest(t.Context(), audit.Request{ID: "req-1", SourceIP: "192.0.2.7"})
	cert, err := w.Issue(ctx, Request{
		Caller: caller, Profile: "user", PublicKey: key, TTL: time.Minute,
		SourceAddresses: nets("192.0.2.0/24"), ForceCommand: "/usr/bin/true --secret",
	})
	if err != nil {
		t.Fatal(err)
	}

	row, err := w.Lookup(t.Context(), cert.Serial)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case row.Serial != cert.Serial, row.KeyID != "v1:test:sub-alice:alice:req-1", row.KeyID != cert.KeyId,
		row.Profile != "user", !slices.Equal(row.Principals, []string{"alice"}),
		!row.ValidAfter.Equal(unixTime(cert.ValidAfter)), !row.ValidBefore.Equal(unixTime(cert.ValidBefore)),
		row.Issuer != "test", row.Subject != "sub-alice", row.Login != "alice", row.RequestID != "req-1",
		row.PublicKey != ssh.FingerprintSHA256(key), row.CA != w.Fingerprint(), time.Since(row.IssuedAt) > time.Minute:
		t.Errorf("ledger row is %+v for certificate %+v", row, cert)
	}

	for action, outcome := range map[audit.Action]string{audit.CertificateIntent: "unknown", audit.CertificateIssued: "success"} {
		events := w.events(t, action)
		if len(events) != 1 {
			t.Fatalf("%d events of %s", len(events), action)
		}
		for name, want := range map[string]string{
			"event.outcome": outcome, "http.request.id": "req-1", "source.ip": "192.0.2.7",
			"sallyport.issuer": "test", "user.id": "sub-alice", "user.name": "alice",
			"sallyport.serial": strconv.FormatUint(cert.Serial, 10), "sallyport.key_id": cert.KeyId, "sallyport.profile": "user",
			"sallyport.principals": "alice", "sallyport.public_key": ssh.FingerprintSHA256(key), "sallyport.ca_fingerprint": w.Fingerprint(),
			"sallyport.valid_before": unixTime(cert.ValidBefore).Format(time.RFC3339), "sallyport.source_address": "192.0.2.0/24",
			"sallyport.token_sha256": caller.TokenDigest(), "sallyport.jti": caller.TokenID(),
		} {
			if events[0][name] != want {
				t.Errorf("%s: %s is %v, want %q", action, name, events[0][name], want)
			}
		}
		text := fmt.Sprint(events[0])
		if strings.Contains(text, "--secret") || strings.Contains(text, caller.Bearer()) {
			t.Errorf("%s shows the command or the token: %s", action, text)
		}
	}
}

func TestHostileRequestsAreRefusedAndRecorded(t *testing.T) {
	t.Parallel()
	retired := newTestKey(t, "")
	w := newWorld(t, func(c *Config) { c.Retired = []ssh.PublicKey{retired.PublicKey()} })
	spy := spyOn(w.key)
	good := Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)}
	cases := map[string]struct {
		change func(*Request)
		code   string
	}{
		"nobody":                 {func(r *Request) { r.Caller = identity.Identity{} }, CodeIdentity},
		"no profile":             {func(r *Request) { r.Profile = "" }, CodeProfile},
		"unknown profile":        {func(r *Request) { r.Profile = strings.Repeat("x\n", 5000) }, CodeProfile},
		"no key":                 {func(r *Request) { r.PublicKey = nil }, CodePublicKey},
		"certificate as key":     {func(r *Request) { r.PublicKey = testCertificate(t) }, CodePublicKey},
		"dsa":                    {func(r *Request) { r.PublicKey = sshKey(t, dsaKey()) }, CodePublicKey},
		"the active ca key":      {func(r *Request) { r.PublicKey = w.key.PublicKey() }, CodePublicKey},
		"a retired ca key":       {func(r *Request) { r.PublicKey = retired.PublicKey() }, CodePublicKey},
		"principal of bob":       {func(r *Request) { r.Principals = []string{"bob"} }, CodePrincipal},
		"no principals":          {func(r *Request) { r.Principals = []string{} }, CodePrincipal},
		"wildcard":               {func(r *Request) { r.Principals = []string{"*"} }, CodePrincipal},
		"negative ttl":           {func(r *Request) { r.TTL = -time.Second }, CodeTTL},
		"tiny ttl":               {func(r *Request) { r.TTL = time.Millisecond }, CodeTTL},
		"forced command, 2 KiB":  {func(r *Request) { r.ForceCommand = strings.Repeat("x", 2048) }, CodeForceCommand},
		"addresses from nowhere": {func(r *Request) { r.SourceAddresses = nets("0.0.0.0/0") }, CodeSourceAddress},
	}
	for name, c := range cases {
		r := good
		c.change(&r)
		cert, err := w.Issue(t.Context(), r)
		if cert != nil || err == nil {
			t.Errorf("%s: issued %v", name, cert)
			continue
		}
		wantCode(t, err, c.code)
	}
	if n := spy.count(); n != 0 {
		t.Errorf("%d signatures were made", n)
	}
	if rows := w.rows(t); len(rows) != 0 {
		t.Errorf("ledger has %d rows", len(rows))
	}
	if err := w.log.Close(); err != nil { // counts of what came again are recorded now at the latest
		t.Fatal(err)
	}
	events, refusals := w.events(t, audit.CertificateRefused), 0
	for _, e := range events {
		refusals++
		if again, ok := e["sallyport.repeated"].(string); ok { // in place of the first, which has its own record
			n, err := strconv.Atoi(again)
			if err != nil {
				t.Errorf("a refusal came again %q times", again)
			}
			refusals += n - 1
		}
	}
	if refusals != len(cases) {
		t.Errorf("%d refusals are recorded or counted, want %d", refusals, len(cases))
	}
	for _, e := range events {
		if e["event.outcome"] != "failure" || e["event.reason"] == "" || e["sallyport.code"] == nil {
			t.Errorf("refusal lacks outcome, reason or code: %v", e)
		}
	}
	if intents := w.events(t, audit.CertificateIntent); len(intents) != 0 {
		t.Errorf("%d intents are recorded", len(intents))
	}
}

func TestRSAAuthoritySignsWithSHA512(t *testing.T) {
	t.Parallel()
	key, err := parseKey(rsaKeyText(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, privateDir(t), key)
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	if cert.Signature.Format != ssh.KeyAlgoRSASHA512 {
		t.Errorf("signature format is %q", cert.Signature.Format)
	}
	if out := keygenL(t, cert); !strings.Contains(out, "(using rsa-sha2-512)") {
		t.Errorf("ssh-keygen says:\n%s", out)
	}
}

func TestWithoutAuditThereIsNoRowNoSignatureNoCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Audit = brokenAudit{c.Audit, audit.CertificateIntent} })
	spy := spyOn(w.key)
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if cert != nil || !errors.Is(err, ErrUnavailable) || !errors.Is(err, errDisk) {
		t.Errorf("got %v, %v", cert, err)
	}
	if rows := w.rows(t); len(rows) != 0 || spy.count() != 0 {
		t.Errorf("%d rows, %d signatures", len(rows), spy.count())
	}
}

func TestCertificateIsWithheldWhenItsOutcomeCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Audit = brokenAudit{c.Audit, audit.CertificateIssued} })
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if cert != nil || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, %v", cert, err)
	}
	if rows := w.rows(t); len(rows) != 1 || len(w.events(t, audit.CertificateIntent)) != 1 {
		t.Errorf("%d rows: what was signed must stay known", len(rows))
	}
}

func TestRefusalThatCannotBeRecordedIsUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Audit = brokenAudit{c.Audit, audit.CertificateRefused} })
	_, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "none", PublicKey: newPublicKey(t)})
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrPolicy) {
		t.Errorf("error is %v", err)
	}
}

func TestWithoutLedgerThereIsNoSignature(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Store = brokenStore{c.Store} })
	spy := spyOn(w.key)
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if cert != nil || !errors.Is(err, ErrUnavailable) || spy.count() != 0 {
		t.Errorf("got %v, %v, %d signatures", cert, err, spy.count())
	}
	if events := w.events(t, audit.CertificateIssued); len(events) != 1 || events[0]["event.outcome"] != "failure" {
		t.Errorf("the intent has no outcome: %v", events)
	}
}

func TestASerialIsNeverUsedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	draft := func() *draft {
		d, err := newDraft(Request{Caller: alice(t), PublicKey: newPublicKey(t)}, w.profiles["user"], time.Now(), 7, "r")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if _, err := w.enterAndSign(t.Context(), draft(), signingKey{w.key, w.Fingerprint()}, "r"); err != nil {
		t.Fatal(err)
	}
	cert, err := w.enterAndSign(t.Context(), draft(), signingKey{w.key, w.Fingerprint()}, "r")
	if cert != nil || !errors.Is(err, ErrUnavailable) || !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v, %v", cert, err)
	}
}

func TestFaultySignersAreFoundOut(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*spySigner){
		"panic":            func(s *spySigner) { s.before = func() { panic("token was pulled out") } },
		"flipped bit":      func(s *spySigner) { s.after = func(sig *ssh.Signature) { sig.Blob[5] ^= 1 } },
		"another format":   func(s *spySigner) { s.after = func(sig *ssh.Signature) { sig.Format = ssh.KeyAlgoRSA } },
		"empty signature":  func(s *spySigner) { s.after = func(sig *ssh.Signature) { sig.Blob = nil } },
		"key of another":   func(s *spySigner) { s.AlgorithmSigner = liar{newTestKey(t, "").signer.inner, s.PublicKey()} },
		"signature of old": func(s *spySigner) { s.after = func(sig *ssh.Signature) { sig.Blob = make([]byte, 64) } },
	} {
		w := newWorld(t)
		prepare(spyOn(w.key))
		cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
		if cert != nil || err == nil || errors.Is(err, ErrPolicy) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, %v", name, cert, err)
		}
		if events := w.events(t, audit.CertificateIssued); len(events) != 1 || events[0]["event.outcome"] != "failure" || events[0]["event.reason"] == nil {
			t.Errorf("%s: the failure is not recorded: %v", name, events)
		}
	}
}

// liar signs with one key and shows another.
type liar struct {
	ssh.AlgorithmSigner
	shown ssh.PublicKey
}

func (l liar) PublicKey() ssh.PublicKey { return l.shown }

func TestAnImpatientCallerStopsNothingAfterTheIntent(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := newWorld(t, func(c *Config) { c.Audit = cancelAfter{c.Audit, cancel} })
	cert, err := w.Issue(ctx, Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if err != nil || cert == nil || ctx.Err() == nil {
		t.Fatalf("got %v, %v; context %v", cert, err, ctx.Err())
	}
	if len(w.rows(t)) != 1 || len(w.events(t, audit.CertificateIssued)) != 1 {
		t.Error("the intent has no outcome")
	}
}

// cancelAfter ends the caller's context when the intent is durable.
type cancelAfter struct {
	audit.Recorder
	cancel context.CancelFunc
}

func (c cancelAfter) Record(ctx context.Context, e audit.Event) error {
	err := c.Recorder.Record(ctx, e)
	if e.Action == audit.CertificateIntent {
		c.cancel()
	}
	return err
}

func TestAContextThatIsOverStartsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if cert, err := w.Issue(ctx, Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)}); err == nil {
		t.Errorf("issued %v", cert)
	}
	if len(w.rows(t)) != 0 || len(w.events(t, audit.CertificateIntent)) != 0 {
		t.Error("something was recorded")
	}
}

func TestThousandConcurrentRequestsHaveThousandRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	caller, key := alice(t), newPublicKey(t)
	const n = 1000
	serials, ids := make([]uint64, n), make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cert, err := w.Issue(context.Background(), Request{Caller: caller, Profile: "user", PublicKey: key})
			if err != nil {
				t.Error(err)
				return
			}
			serials[i], ids[i] = cert.Serial, cert.KeyId
		})
	}
	wg.Wait()
	slices.Sort(serials)
	slices.Sort(ids)
	if len(slices.Compact(slices.Clone(serials))) != n || len(slices.Compact(ids)) != n {
		t.Fatal("serials or key ids are not unique")
	}
	var ledger []uint64
	for _, row := range w.rows(t) {
		ledger = append(ledger, row.Serial)
	}
	if !slices.Equal(ledger, serials) {
		t.Errorf("ledger has %d serials that are not the %d issued ones", len(ledger), n)
	}
	for _, action := range []audit.Action{audit.CertificateIntent, audit.CertificateIssued} {
		if got := serialsOf(t, w.events(t, action)); !slices.Equal(got, serials) {
			t.Errorf("%s has %d serials that are not the %d issued ones", action, len(got), n)
		}
	}
	if _, err := audit.Verify(filepath.Join(w.dir, "audit")); err != nil {
		t.Error(err)
	}
}

func serialsOf(t testing.TB, events []map[string]any) (serials []uint64) {
	t.Helper()
	for _, e := range events {
		text, _ := e["sallyport.serial"].(string)
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("serial of %v: %v", e, err)
		}
		serials = append(serials, n)
	}
	slices.Sort(serials)
	return serials
}

// TestKeyOfSomebodyElseIsNoted is the second half of threat 16.
func TestKeyOfSomebodyElseIsNoted(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	w := newWorld(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	key := newPublicKey(t)
	bob := identitytest.Identity(t, "bob", time.Minute)
	for _, caller := range []identity.Identity{alice(t), alice(t), bob, alice(t)} {
		if _, err := w.Issue(t.Context(), Request{Caller: caller, Profile: "user", PublicKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range w.events(t, audit.CertificateIntent) {
		want := any(nil)
		if i == 2 {
			want = "test:sub-alice"
		}
		if got := e["sallyport.public_key_also_of"]; got != want {
			t.Errorf("intent %d: key also of %v, want %v", i, got, want)
		}
	}
	if n := strings.Count(logged.String(), "level=WARN"); n != 1 || strings.Contains(logged.String(), bob.Bearer()) {
		t.Errorf("log has %d warnings:\n%s", n, logged.String())
	}
}
