// Package identitytest is an identity provider for tests and for
// `sallyport demo`: it mints tokens and serves what a verifier needs to check
// them. Whoever reaches its Mint method can be anybody, so it is never part of
// a real installation.
//
// [Identity] and [IdentityFrom] give other packages' tests a caller. They go
// through the real [identity.Verifier]; there is no back door into the type.
package identitytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
)

// A Config describes a test issuer. The zero value is a good one.
type Config struct {
	// Address is the loopback "host:port" that Start listens on. Default:
	// "127.0.0.1:0".
	Address string
	// URL is the issuer identifier. Default: for Start the address it listens on,
	// for New "https://idp.test".
	URL string
	// Audience is the "aud" of minted tokens. Default: "sallyport".
	Audience string
	// Algorithm is RS256, PS256, ES256, ES384 or EdDSA. Default: ES256.
	Algorithm string
	// Type is the "typ" header. Default: "at+jwt" (RFC 9068).
	Type string
}

// An Issuer mints tokens and publishes the keys for them. It is safe for
// concurrent use.
type Issuer struct {
	cfg      Config
	server   *http.Server // nil unless started
	served   chan struct{}
	requests atomic.Uint64

	mu  sync.Mutex // guards what follows
	key jose.JSONWebKey
	n   int // keys made so far
}

// New makes an issuer without a network. Its [Issuer.Client] reaches it from
// within the process, also in a synctest bubble.
func New(cfg Config) (*Issuer, error) {
	setDefault(&cfg.URL, "https://idp.test")
	setDefault(&cfg.Audience, "sallyport")
	setDefault(&cfg.Algorithm, string(jose.ES256))
	setDefault(&cfg.Type, "at+jwt")
	i := &Issuer{cfg: cfg}
	if err := i.Rotate(); err != nil {
		return nil, err
	}
	return i, nil
}

// Start makes an issuer that serves discovery and keys on a loopback listener.
func Start(cfg Config) (*Issuer, error) {
	setDefault(&cfg.Address, "127.0.0.1:0")
	listener, err := net.Listen("tcp", cfg.Address) //nolint:noctx // binding a loopback port does not block
	if err != nil {
		return nil, err
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("address %q is not loopback", cfg.Address), listener.Close())
	}
	setDefault(&cfg.URL, "http://"+listener.Addr().String())
	i, err := New(cfg)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	i.server = &http.Server{Handler: i, ReadHeaderTimeout: 5 * time.Second}
	i.served = make(chan struct{})
	go func() {
		defer close(i.served)
		_ = i.server.Serve(listener) // ends with Close
	}()
	return i, nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// Close ends the listener, if there is one.
func (i *Issuer) Close() error {
	if i.server == nil {
		return nil
	}
	err := i.server.Close()
	<-i.served
	return err
}

// URL is the issuer identifier.
func (i *Issuer) URL() string { return i.cfg.URL }

// Requests counts the HTTP requests so far.
func (i *Issuer) Requests() uint64 { return i.requests.Load() }

// IssuerConfig is the rule that accepts this issuer's tokens.
func (i *Issuer) IssuerConfig(alias string) identity.IssuerConfig {
	return identity.IssuerConfig{
		Alias: alias, URL: i.cfg.URL, Audiences: []string{i.cfg.Audience}, AllowHTTP: i.server != nil,
	}
}

// Rotate replaces the key. Tokens that the old one signed are good no longer.
func (i *Issuer) Rotate() error {
	private, err := newKey(i.cfg.Algorithm)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n++
	i.key = jose.JSONWebKey{Key: private, KeyID: fmt.Sprintf("key-%d", i.n), Algorithm: i.cfg.Algorithm, Use: "sig"}
	return nil
}

func newKey(algorithm string) (crypto.Signer, error) {
	switch jose.SignatureAlgorithm(algorithm) {
	case jose.RS256, jose.PS256:
		return rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	default:
		return nil, fmt.Errorf("algorithm %q is not one that a test issuer signs with", algorithm)
	}
}

func (i *Issuer) current() jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key
}

// JWKS is the public key set as the issuer serves it, for a key file.
func (i *Issuer) JWKS() []byte {
	key := i.current()
	document, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	if err != nil {
		panic("a key of our own making does not marshal: " + err.Error())
	}
	return document
}

// Mint signs a token with these claims. It adds what is absent: iss, aud, iat,
// exp (10 minutes ahead), sub ("alice"), preferred_username (the subject) and
// jti. A claim with the value nil is left out of the token, also one of these.
func (i *Issuer) Mint(claims map[string]any) (string, error) {
	now := time.Now()
	all := map[string]any{
		"iss": i.cfg.URL, "aud": i.cfg.Audience, "sub": "alice",
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "jti": rand.Text(),
	}
	maps.Copy(all, claims)
	if _, ok := claims["preferred_username"]; !ok {
		all["preferred_username"] = all["sub"]
	}
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	return i.Sign(payload)
}

// Sign signs any payload, for tokens that Mint would not make.
func (i *Issuer) Sign(payload []byte) (string, error) {
	key := i.current()
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(i.cfg.Type))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(i.cfg.Algorithm), Key: key}, options)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// ServeHTTP answers the discovery document and the keys.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, document := i.answer(r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(document) // a client that is gone needs no answer
}

func (i *Issuer) answer(path string) (status int, document []byte) {
	i.requests.Add(1)
	switch path {
	case "/.well-known/openid-configuration":
		return http.StatusOK, fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":%q}`, i.cfg.URL, i.cfg.URL+"/keys")
	case "/keys":
		return http.StatusOK, i.JWKS()
	}
	return http.StatusNotFound, nil
}

// Client is an HTTP client whose every request is answered by this issuer
// without a network.
func (i *Issuer) Client() *http.Client {
	return &http.Client{Transport: directly{i}}
}

type directly struct{ issuer *Issuer }

func (d directly) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	status, document := d.issuer.answer(r.URL.Path)
	return &http.Response{
		StatusCode: status, Status: strconv.Itoa(status) + " " + http.StatusText(status),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(document)), Request: r,
	}, nil
}

// expiry is the "exp" claim of a token that lives at least ttl.
func expiry(now time.Time, ttl time.Duration) int64 {
	return int64(math.Ceil(float64(now.Add(ttl).UnixNano()) / float64(time.Second)))
}
