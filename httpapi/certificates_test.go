package httpapi

import (
	"crypto/dsa" //nolint:staticcheck // a key that must be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// newAuthority is the real one, on a database of its own.
func newAuthority(t testing.TB, trail audit.Recorder) (*ca.Authority, *bolt.DB, *ca.Key) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	pem, _, err := ca.GenerateKey("ed25519", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca"), pem, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ca.LoadKey(filepath.Join(dir, "ca"), nil)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	authority, err := ca.New(ca.Config{Key: key, Store: db, Audit: trail})
	if err != nil {
		t.Fatal(err)
	}
	return authority, db, key
}

// issues makes a service with the real authority.
func issues(t *testing.T) (*service, *ca.Authority) {
	t.Helper()
	var authority *ca.Authority
	s := start(t, func(c *Config) {
		authority, _, _ = newAuthority(t, c.Audit)
		c.Certificates, c.Ledger = authority, authority
	})
	return s, authority
}

func publicKey(t testing.TB, key any) string {
	t.Helper()
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func newKey(t testing.TB) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicKey(t, public)
}

// jsonOf is a request body.
func jsonOf(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestACertificateIsWhatTheAnswerSays(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	key := newKey(t)
	a := s.do("POST", "/v1/certificates", jsonOf(t, map[string]any{
		"public_key": key + " alice@laptop\n", "ttl": "90s", "principals": []string{"alice"},
		"source_address": "192.0.2.7,2001:db8::/32", "force_command": "/bin/true",
	}))
	if a.status != http.StatusCreated {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	var got certificateAnswer
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(got.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok {
		t.Fatalf("a %T is no certificate", parsed)
	}
	want := certificateAnswer{
		Certificate: got.Certificate, Serial: strconv.FormatUint(cert.Serial, 10), KeyID: cert.KeyId,
		Principals:  []string{"alice"},
		ValidAfter:  time.Unix(int64(cert.ValidAfter), 0).UTC(),
		ValidBefore: time.Unix(int64(cert.ValidBefore), 0).UTC(), CAFingerprint: authority.Fingerprint(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-certificate +answer):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"source-address": "192.0.2.7/32,2001:db8::/32", "force-command": "/bin/true"}, cert.CriticalOptions); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert.Key))) != key {
		t.Error("another key was certified")
	}
	row, err := authority.Lookup(t.Context(), cert.Serial)
	if err != nil || row.RequestID != a.header.Get("X-Request-Id") {
		t.Errorf("ledger %+v, %v", row, err)
	}
}

func TestHostileCertificateRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := issues(t)
	key := newKey(t)
	certificate := s.do("POST", "/v1/certificates", jsonOf(t, map[string]any{"public_key": key}))
	var issued certificateAnswer
	if err := json.Unmarshal([]byte(certificate.body), &issued); err != nil || certificate.status != 201 {
		t.Fatalf("%d %s %v", certificate.status, certificate.body, err)
	}
	rsa1024 := publicKey(t, &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)), E: 65537})
	dsaKey := publicKey(t, &dsa.PublicKey{Parameters: dsa.Parameters{
		P: new(big.Int).Lsh(big.NewInt(1), 1023), Q: new(big.Int).Lsh(big.NewInt(1), 159), G: big.NewInt(2),
	}, Y: big.NewInt(4)})
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	type m = map[string]any
	for _, c := range []struct {
		name        string
		body        any
		status      int
		code, field string
	}{
		{"no key", m{}, 422, "field_invalid", "public_key"},
		{"empty key", m{"public_key": ""}, 422, "public_key_not_allowed", "public_key"},
		{"certificate as key", m{"public_key": issued.Certificate}, 422, "public_key_not_allowed", "public_key"},
		{"DSA", m{"public_key": dsaKey}, 422, "public_key_not_allowed", "public_key"},
		{"RSA-1024", m{"public_key": rsa1024}, 422, "public_key_not_allowed", "public_key"},
		{"1 MB key", m{"public_key": strings.Repeat("A", 1<<20)}, 413, "body_too_large", ""},
		{"20 KB key", m{"public_key": "ssh-ed25519 " + strings.Repeat("A", 20<<10)}, 422, "public_key_not_allowed", "public_key"},
		{"comment with newline", m{"public_key": key + " a\nssh-ed25519 b"}, 422, "public_key_not_allowed", "public_key"},
		{"options", m{"public_key": "cert-authority " + key}, 422, "public_key_not_allowed", "public_key"},
		{"private key", m{"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, 422, "public_key_not_allowed", "public_key"},
		{"empty principals", m{"public_key": key, "principals": []string{}}, 403, "principal_not_allowed", "principals"},
		{"wildcard principal", m{"public_key": key, "principals": []string{"*"}}, 403, "principal_not_allowed", "principals"},
		{"someone else", m{"public_key": key, "principals": []string{"alice", "bob"}}, 403, "principal_not_allowed", "principals"},
		{"root", m{"public_key": key, "principals": []string{"root"}}, 403, "principal_not_allowed", "principals"},
		{"principals as text", m{"public_key": key, "principals": "alice"}, 422, "field_invalid", "principals"},
		{"TTL 0", m{"public_key": key, "ttl": 0}, 422, "field_invalid", "ttl"},
		{"TTL 0s", m{"public_key": key, "ttl": "0s"}, 422, "field_invalid", "ttl"},
		{"TTL negative", m{"public_key": key, "ttl": -60}, 422, "field_invalid", "ttl"},
		{"TTL below a second", m{"public_key": key, "ttl": "10ms"}, 422, "ttl_not_allowed", "ttl"},
		{"no forced command", m{"public_key": key, "force_command": ""}, 422, "field_invalid", "force_command"},
		{"no address", m{"public_key": key, "source_address": ""}, 422, "field_invalid", "source_address"},
		{"bad address", m{"public_key": key, "source_address": "192.0.2.1,!10.0.0.0/8"}, 422, "field_invalid", "source_address"},
		{"zone", m{"public_key": key, "source_address": "fe80::1%eth0"}, 422, "field_invalid", "source_address"},
		{"force command with newline", m{"public_key": key, "force_command": "a\nb"}, 422, "force_command_not_allowed", "force_command"},
		{"own serial", m{"public_key": key, "serial": "1"}, 422, "field_invalid", "serial"},
		{"own extensions", m{"public_key": key, "extensions": m{"permit-pty": ""}}, 422, "field_invalid", "extensions"},
		{"own profile", m{"public_key": key, "profile": "executor"}, 422, "field_invalid", "profile"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.do("POST", "/v1/certificates", jsonOf(t, c.body))
			if p := a.wantProblem(t, c.status, c.code); p.Field != c.field {
				t.Errorf("field %q, want %q", p.Field, c.field)
			}
		})
	}
	if a := s.do("POST", "/v1/certificates", jsonOf(t, m{"public_key": publicKey(t, &p256.PublicKey)})); a.status != 201 {
		t.Errorf("a good key after all that: %d %s", a.status, a.body)
	}
	refused := 0
	for _, e := range s.trail.all() {
		if e.Action == audit.CertificateRefused && e.Login == "alice" {
			refused++
		}
	}
	if refused < 10 {
		t.Errorf("only %d refusals were audited", refused)
	}
}

func TestALifetimeAboveTheMaximumIsCut(t *testing.T) {
	t.Parallel()
	s, _ := issues(t)
	a := s.do("POST", "/v1/certificates", jsonOf(t, map[string]any{"public_key": newKey(t), "ttl": "9000h"}))
	var got certificateAnswer
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 201 {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	if left := time.Until(got.ValidBefore); left > 2*time.Hour {
		t.Errorf("good for %s; the token is good for an hour", left)
	}
}

func TestNoCertificateWithoutAudit(t *testing.T) {
	t.Parallel()
	s, _ := issues(t)
	s.trail.mu.Lock()
	s.trail.err = fmt.Errorf("disk is full: %w", audit.ErrUnavailable)
	s.trail.mu.Unlock()
	s.do("POST", "/v1/certificates", jsonOf(t, map[string]any{"public_key": newKey(t)})).wantProblem(t, 503, "audit_unavailable")
	s.do("POST", "/v1/certificates", `{"public_key":"x"}`).wantProblem(t, 503, "audit_unavailable")
}

func TestNodesFetchWhatTheyNeedWithoutAToken(t *testing.T) {
	t.Parallel()
	s, authority := issues(t)
	for path, want := range map[string]string{
		"/v1/ca/trusted-user-ca-keys": string(authority.TrustBundle()),
		"/v1/ca/revoked-keys":         string(authority.RevocationList()),
		"/v1/ca/manifest":             fakeManifest,
		"/v1/ca/manifest.sig":         "-----BEGIN SSH SIGNATURE-----\n",
	} {
		a := s.do("GET", path, "", "Authorization", "")
		tag := a.header.Get("ETag")
		if a.status != 200 || a.body != want || tag == "" || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: status %d, headers %v, body %q", path, a.status, a.header, a.body)
		}
		for known, status := range map[string]int{
			tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200, strings.Trim(tag, `"`): 200,
		} {
			a := s.do("GET", path, "", "If-None-Match", known, "Authorization", "Bearer nonsense")
			if a.status != status || (a.body == "") != (status == 304) || a.header.Get("ETag") != tag {
				t.Errorf("%s with If-None-Match %s: status %d, %d bytes, ETag %s", path, known, a.status, len(a.body), a.header.Get("ETag"))
			}
		}
	}
}

func TestAManifestThatCannotBeMadeIsUnavailable(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Distribution = fakeDistributor{fmt.Errorf("%w: the store is closed", ca.ErrUnavailable)}
	})
	for _, path := range []string{"/v1/ca/manifest", "/v1/ca/manifest.sig"} {
		s.do("GET", path, "").wantProblem(t, 503, "ca_unavailable")
	}
}

func TestAddressesAreReadAsOpenSSHWritesThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]netip.Prefix{
		`"192.0.2.7"`: {netip.MustParsePrefix("192.0.2.7/32")},
		`"10.0.0.0/8,2001:db8::1"`: {
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128"),
		},
	} {
		o, err := parseObject([]byte(`{"a":` + text + `}`))
		if err != nil {
			t.Fatal(err)
		}
		got := addresses(o, "a")
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || o.finish() != nil {
			t.Errorf("%s (-want +got):\n%s%v", text, diff, o.finish())
		}
	}
}
