package identity_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

func newVerifier(t testing.TB, cfg identity.Config) *identity.Verifier {
	t.Helper()
	verifier, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := verifier.Close(); err != nil {
			t.Error(err)
		}
	})
	return verifier
}

func newIssuer(t testing.TB, cfg identitytest.Config) *identitytest.Issuer {
	t.Helper()
	issuer, err := identitytest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func mint(t testing.TB, issuer *identitytest.Issuer, claims map[string]any) string {
	t.Helper()
	token, err := issuer.Mint(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// verifierOf accepts an issuer's tokens, after changes to the rule.
func verifierOf(t testing.TB, issuer *identitytest.Issuer, changes ...func(*identity.IssuerConfig)) *identity.Verifier {
	t.Helper()
	rule := issuer.IssuerConfig("test")
	for _, change := range changes {
		change(&rule)
	}
	return newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{rule}, HTTPClient: issuer.Client()})
}

// A web is an HTTP transport in memory, usable in a bubble. It counts requests
// and can fail or take its time.
type web struct {
	answer func(r *http.Request) (status int, header http.Header, body []byte)

	mu       sync.Mutex
	down     bool
	delay    time.Duration
	requests map[string]int // by URL
}

func webOf(answer func(r *http.Request) (int, http.Header, []byte)) *web {
	return &web{answer: answer, requests: make(map[string]int)}
}

// webFor serves an issuer's documents.
func webFor(issuer *identitytest.Issuer) *web {
	client := issuer.Client()
	return webOf(func(r *http.Request) (int, http.Header, []byte) {
		response, err := client.Do(r)
		if err != nil {
			return http.StatusBadGateway, nil, nil
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, response.Header, body
	})
}

func (w *web) set(down bool, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down, w.delay = down, delay
}

func (w *web) count(url string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests[url]
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests[r.URL.String()]++
	down, delay := w.down, w.delay
	w.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if down {
		return nil, errors.New("connection refused")
	}
	status, header, body := w.answer(r)
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: header,
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

// A forge makes tokens that no library would, signed with RS256.
type forge struct {
	private *rsa.PrivateKey
}

const forgedIssuer = "https://forge.test"

// forgeKey is made once: it takes a while under the race detector.
var forgeKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newForge(t testing.TB) *forge {
	t.Helper()
	private, err := forgeKey()
	if err != nil {
		t.Fatal(err)
	}
	return &forge{private}
}

// newStranger is a forge with a key of its own.
func newStranger(t testing.TB) *forge {
	t.Helper()
	return &forge{rsaKey(t, 2048)}
}

func (f *forge) verifier(t testing.TB, changes ...func(*identity.IssuerConfig)) *identity.Verifier {
	t.Helper()
	document := keySet(t, jose.JSONWebKey{Key: f.private.Public(), KeyID: "k1"})
	rule := identity.IssuerConfig{
		Alias: "forge", URL: forgedIssuer, Audiences: []string{"sallyport"}, JWKSURL: forgedIssuer + "/keys",
	}
	for _, change := range changes {
		change(&rule)
	}
	server := webOf(func(*http.Request) (int, http.Header, []byte) { return http.StatusOK, nil, document })
	return newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{rule}, HTTPClient: &http.Client{Transport: server}})
}

// claims are good ones with changes; nil removes a claim.
func (f *forge) claims(changes map[string]any) []byte {
	now := time.Now().Unix()
	all := map[string]any{
		"iss": forgedIssuer, "aud": "sallyport", "sub": "s-1", "preferred_username": "alice",
		"iat": now, "exp": now + 600,
	}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return payload
}

// token signs any header and any payload.
func (f *forge) token(t testing.TB, header string, payload []byte) string {
	t.Helper()
	signed := encode([]byte(header)) + "." + encode(payload)
	return signed + "." + f.sign(t, signed)
}

func (f *forge) sign(t testing.TB, signed string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, f.private, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return encode(signature)
}

// unencoded is a token whose signature is good if "b64" is heeded (RFC 7797),
// which a JWT must not use (its §7).
func (f *forge) unencoded(t testing.TB) string {
	t.Helper()
	header, payload := encode([]byte(`{"alg":"RS256","kid":"k1","crit":["b64"],"b64":false}`)), f.claims(nil)
	return header + "." + encode(payload) + "." + f.sign(t, header+"."+string(payload))
}

const goodHeader = `{"alg":"RS256","kid":"k1","typ":"at+jwt"}`

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func keySet(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	document, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// refused checks that a token gives this error, no identity, and a text
// without any part of the token.
func refused(t *testing.T, verifier *identity.Verifier, token string, want error) {
	t.Helper()
	caller, err := verifier.Verify(t.Context(), token)
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %q", err, want)
	}
	if caller.Valid() || caller.Login() != "" || caller.Bearer() != "" {
		t.Errorf("a refused token gives the identity %v", caller)
	}
	for part := range bytes.SplitSeq([]byte(token), []byte(".")) {
		if err != nil && len(part) > 16 && bytes.Contains([]byte(err.Error()), part) {
			t.Errorf("the error holds a part of the token: %v", err)
		}
	}
}

func keySetOf(t testing.TB, kid string, public any) []byte {
	t.Helper()
	return keySet(t, jose.JSONWebKey{Key: public, KeyID: kid})
}
