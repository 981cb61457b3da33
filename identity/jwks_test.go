package identity_test

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
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
)

// A member is a JWK as JSON, to be changed at will.
type member map[string]any

func publicMember(t testing.TB, kid string, public any, changes member) member {
	t.Helper()
	var set struct{ Keys []member }
	if err := json.Unmarshal(keySetOf(t, kid, public), &set); err != nil {
		t.Fatal(err)
	}
	m := set.Keys[0]
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_ string, value any) bool { return value == nil })
	return m
}

// signedBy makes a token with a library, for keys of any kind.
func signedBy(t testing.TB, alg jose.SignatureAlgorithm, kid string, private crypto.Signer, payload []byte) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: private}, options)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func documentOf(t testing.TB, keys ...member) []byte {
	t.Helper()
	document, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// verifierWith accepts tokens of a forge's issuer by the keys of a document.
func verifierWith(t testing.TB, document []byte, changes ...func(*identity.IssuerConfig)) *identity.Verifier {
	t.Helper()
	rule := identity.IssuerConfig{
		Alias: "forge", URL: forgedIssuer, Audiences: []string{"sallyport"}, JWKSURL: forgedIssuer + "/keys",
	}
	for _, change := range changes {
		change(&rule)
	}
	server := webOf(func(*http.Request) (int, http.Header, []byte) { return http.StatusOK, nil, document })
	return newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{rule}, HTTPClient: &http.Client{Transport: server}})
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func TestAKeyThatMustNotBeUsedCostsOnlyItself(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	strong := rsaKey(t, 2048)
	for name, bad := range map[string]member{
		"use is enc":               publicMember(t, "bad", strong.Public(), member{"use": "enc"}),
		"use is unknown":           publicMember(t, "bad", strong.Public(), member{"use": "SIG"}),
		"use is a number":          publicMember(t, "bad", strong.Public(), member{"use": 1}),
		"key_ops without it":       publicMember(t, "bad", strong.Public(), member{"key_ops": []string{"encrypt"}}),
		"key_ops is empty":         publicMember(t, "bad", strong.Public(), member{"key_ops": []string{}}),
		"alg is for another":       publicMember(t, "bad", strong.Public(), member{"alg": "ES256"}),
		"alg is RSA-OAEP":          publicMember(t, "bad", strong.Public(), member{"alg": "RSA-OAEP"}),
		"alg is for another curve": publicMember(t, "bad", ecKey(t, elliptic.P256()).Public(), member{"alg": "ES384"}),
		"alg is HS256":             publicMember(t, "bad", strong.Public(), member{"alg": "HS256"}),
		"kty is unknown":           publicMember(t, "bad", strong.Public(), member{"kty": "AKP"}),
		"kty is missing":           publicMember(t, "bad", strong.Public(), member{"kty": nil}),
		"kty is another":           publicMember(t, "bad", strong.Public(), member{"kty": "EC"}),
		"n is missing":             publicMember(t, "bad", strong.Public(), member{"n": nil}),
		"n is no base64":           publicMember(t, "bad", strong.Public(), member{"n": "!"}),
		"e is 1":                   publicMember(t, "bad", strong.Public(), member{"e": encode([]byte{1})}),
		"e is 3":                   publicMember(t, "bad", strong.Public(), member{"e": encode([]byte{3})}),
		"e is even":                publicMember(t, "bad", strong.Public(), member{"e": encode([]byte{1, 0, 2})}),
		"e is huge":                publicMember(t, "bad", strong.Public(), member{"e": encode(slices.Repeat([]byte{0xff}, 64))}),
		"n is huge":                publicMember(t, "bad", strong.Public(), member{"n": encode(slices.Repeat([]byte{0xff}, 1025))}),
		"kid is very long":         publicMember(t, strings.Repeat("k", 257), strong.Public(), nil),
		"kid is a number":          publicMember(t, "bad", strong.Public(), member{"kid": 7}),
		"x5c of another":           publicMember(t, "bad", strong.Public(), member{"x5c": []string{"AAAA"}}),
		"it is private":            publicMember(t, "bad", strong, nil),
		"symmetric":                {"kty": "oct", "kid": "bad", "alg": "HS256", "k": encode([]byte("secret"))},
		"symmetric, called sig":    {"kty": "oct", "kid": "bad", "use": "sig", "k": encode(strong.N.Bytes())},
		"EC off the curve":         {"kty": "EC", "kid": "bad", "crv": "P-256", "x": encode(make([]byte, 32)), "y": encode(make([]byte, 32))},
		"EC of another curve":      {"kty": "EC", "kid": "bad", "crv": "secp256k1", "x": encode(make([]byte, 32)), "y": encode(make([]byte, 32))},
		"X25519":                   {"kty": "OKP", "kid": "bad", "crv": "X25519", "x": encode(make([]byte, 32))},
		"Ed25519, short":           {"kty": "OKP", "kid": "bad", "crv": "Ed25519", "x": encode(make([]byte, 5))},
		"empty":                    {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verifier := verifierWith(t, documentOf(t, bad, publicMember(t, "k1", f.private.Public(), nil)))
			if _, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(nil))); err != nil {
				t.Errorf("the other key gives %v", err)
			}
			if got := verifier.Stats().Issuers[0].Keys; got != 1 {
				t.Errorf("%d keys can be used, want 1", got)
			}
			refused(t, verifier, signedBy(t, jose.RS256, "bad", strong, f.claims(nil)), identity.ErrInvalidToken)
		})
	}
}

func TestTheLogSaysWhyAKeyWasRefused(t *testing.T) {
	t.Parallel()
	public := newForge(t).private.Public()
	for want, bad := range map[string]member{
		`use is \"enc\"`:                          publicMember(t, "bad", public, member{"use": "enc"}),
		`key type \"oct\" is symmetric`:           {"kty": "oct", "k": encode([]byte("hunter2"))},
		`it is a private key, which is no secret`: publicMember(t, "bad", edKey(t), nil),
		`RSA with 1024 bits`:                      publicMember(t, "bad", rsaKey(t, 1024).Public(), nil),
		`algorithm \"RSA-OAEP\" is not known`:     publicMember(t, "bad", public, member{"alg": "RSA-OAEP"}),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			verifier, err := identity.New(identity.Config{
				Issuers: []identity.IssuerConfig{{Alias: "site", URL: forgedIssuer, Audiences: []string{"a"}}},
				HTTPClient: &http.Client{Transport: webOf(func(r *http.Request) (int, http.Header, []byte) {
					if strings.Contains(r.URL.Path, "openid") {
						return http.StatusOK, nil, fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":%q}`, forgedIssuer, forgedIssuer+"/k")
					}
					return http.StatusOK, nil, documentOf(t, bad)
				})},
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			f := newForge(t)
			refused(t, verifier, f.token(t, goodHeader, f.claims(nil)), identity.ErrInvalidToken)
			if err := verifier.Close(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "issuer=site") {
				t.Errorf("the log does not say %q:\n%s", want, log.String())
			}
			if strings.Contains(log.String(), encode([]byte("hunter2"))) {
				t.Error("the log holds the key")
			}
		})
	}
}

func TestWeakRSAKeysAreRefused(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	weak := rsaKey(t, 1024)
	verifier := verifierWith(t, documentOf(t, publicMember(t, "weak", weak.Public(), nil), publicMember(t, "k1", f.private.Public(), nil)))
	refused(t, verifier, signedBy(t, jose.RS256, "weak", weak, f.claims(nil)), identity.ErrInvalidToken)
	// One bit short of the floor, which is of no use to sign with.
	short := new(big.Int).SetBit(big.NewInt(1), 2046, 1)
	public := &rsa.PublicKey{N: short, E: 65537}
	verifier = verifierWith(t, documentOf(t, publicMember(t, "short", public, nil), publicMember(t, "k1", f.private.Public(), nil)))
	if _, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(nil))); err != nil {
		t.Fatal(err)
	}
	if got := verifier.Stats().Issuers[0].Keys; got != 1 {
		t.Errorf("a key of 2047 bits is used")
	}
}

func TestEveryAlgorithmNeedsAKeyOfItsKind(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	all := []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
	keys := map[string]crypto.Signer{
		"rsa": f.private, "p256": ecKey(t, elliptic.P256()), "p384": ecKey(t, elliptic.P384()), "p521": ecKey(t, elliptic.P521()), "ed": edKey(t),
	}
	kind := func(alg jose.SignatureAlgorithm) string {
		switch alg {
		case jose.ES256:
			return "p256"
		case jose.ES384:
			return "p384"
		case jose.ES512:
			return "p521"
		case jose.EdDSA:
			return "ed"
		default:
			return "rsa"
		}
	}
	var members []member
	for kid, private := range keys {
		members = append(members, publicMember(t, kid, private.Public(), nil))
	}
	verifier := verifierWith(t, documentOf(t, members...), func(rule *identity.IssuerConfig) {
		for _, alg := range all {
			rule.Algorithms = append(rule.Algorithms, string(alg))
		}
	})
	for _, alg := range all {
		for kid := range keys {
			t.Run(fmt.Sprintf("%s said to be by %s", alg, kid), func(t *testing.T) {
				t.Parallel()
				token := signedBy(t, alg, kid, keys[kind(alg)], f.claims(map[string]any{"jti": string(alg) + kid}))
				if kid != kind(alg) {
					refused(t, verifier, token, identity.ErrInvalidToken)
				} else if _, err := verifier.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestTheAlgorithmOfAKeyBinds(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := verifierWith(t, documentOf(t, publicMember(t, "k1", f.private.Public(), member{"alg": "RS256", "use": "sig", "key_ops": []string{"verify"}})))
	if _, err := verifier.Verify(t.Context(), signedBy(t, jose.RS256, "k1", f.private, f.claims(nil))); err != nil {
		t.Error(err)
	}
	refused(t, verifier, signedBy(t, jose.PS256, "k1", f.private, f.claims(nil)), identity.ErrInvalidToken)
}

func TestKeysAreFoundByTheirID(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	a, b, ec := edKey(t), edKey(t), ecKey(t, elliptic.P256())
	named := func(kid string, private crypto.Signer) member {
		var changes member
		if kid == "" {
			changes = member{"kid": nil}
		}
		return publicMember(t, kid, private.Public(), changes)
	}
	for name, test := range map[string]struct {
		set      []member
		alg      jose.SignatureAlgorithm
		kid      string
		by       crypto.Signer
		accepted bool
	}{
		"its own":                               {[]member{named("a", a), named("b", b)}, jose.EdDSA, "b", b, true},
		"that of another key":                   {[]member{named("a", a), named("b", b)}, jose.EdDSA, "a", b, false},
		"unknown":                               {[]member{named("a", a)}, jose.EdDSA, "x", a, false},
		"in other case":                         {[]member{named("a", a)}, jose.EdDSA, "A", a, false},
		"duplicate, first":                      {[]member{named("a", a), named("a", b)}, jose.EdDSA, "a", a, true},
		"duplicate, last":                       {[]member{named("a", a), named("a", b)}, jose.EdDSA, "a", b, true},
		"duplicate of another kind":             {[]member{named("a", ec), named("a", b)}, jose.EdDSA, "a", b, true},
		"none in the token, one key":            {[]member{named("a", a)}, jose.EdDSA, "", a, true},
		"none in the token, several keys":       {[]member{named("a", a), named("x", ec), named("b", b)}, jose.EdDSA, "", b, true},
		"none in the token, none by it":         {[]member{named("a", a)}, jose.EdDSA, "", b, false},
		"none in the set":                       {[]member{named("", a)}, jose.EdDSA, "x", a, true},
		"none in the set, several":              {[]member{named("", a), named("", b)}, jose.EdDSA, "x", b, true},
		"none anywhere":                         {[]member{named("", a)}, jose.EdDSA, "", a, true},
		"none on the key, but another bears it": {[]member{named("", a), named("b", b)}, jose.EdDSA, "b", a, false},
		"other kind bears it":                   {[]member{named("", a), named("b", ec)}, jose.EdDSA, "b", a, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verifier := verifierWith(t, documentOf(t, test.set...))
			token := signedBy(t, test.alg, test.kid, test.by, f.claims(nil))
			if !test.accepted {
				refused(t, verifier, token, identity.ErrInvalidToken)
			} else if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADocumentThatIsNoKeySetIsNotTaken(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	many := slices.Repeat([]member{publicMember(t, "k1", f.private.Public(), nil)}, 65)
	for name, document := range map[string][]byte{
		"nothing":       nil,
		"HTML":          []byte("<html>please log in</html>"),
		"a list":        []byte(`[]`),
		"no keys":       []byte(`{}`),
		"keys are null": []byte(`{"keys":null}`),
		"keys is a map": []byte(`{"keys":{"k1":{}}}`),
		"Keys":          []byte(`{"Keys":[]}`),
		"keys twice":    []byte(`{"keys":[],"keys":[]}`),
		"65 keys":       documentOf(t, many...),
		"1 MiB":         append(documentOf(t, many[:1]...), make([]byte, 1<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verifier := verifierWith(t, document)
			refused(t, verifier, f.token(t, goodHeader, f.claims(nil)), identity.ErrUnavailable)
			if err := verifier.Ready(t.Context()); !errors.Is(err, identity.ErrUnavailable) {
				t.Errorf("ready gives %v", err)
			}
		})
	}
	verifier := verifierWith(t, documentOf(t, many[:64]...))
	if _, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(nil))); err != nil {
		t.Errorf("64 keys give %v", err)
	}
}

func TestAnIssuerMayWithdrawItsLastKey(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := verifierWith(t, []byte(`{"keys":[]}`))
	refused(t, verifier, f.token(t, goodHeader, f.claims(nil)), identity.ErrInvalidToken)
	if err := verifier.Ready(t.Context()); !errors.Is(err, identity.ErrUnavailable) {
		t.Errorf("ready without a key gives %v", err)
	}
}

func TestKeysOfOneIssuerDoNotVouchForAnother(t *testing.T) {
	t.Parallel()
	one, two := newForge(t), newStranger(t)
	documents := map[string][]byte{
		"https://one.test/keys": keySetOf(t, "k1", one.private.Public()),
		"https://two.test/keys": keySetOf(t, "k1", two.private.Public()),
	}
	server := webOf(func(r *http.Request) (int, http.Header, []byte) { return http.StatusOK, nil, documents[r.URL.String()] })
	rule := func(name string) identity.IssuerConfig {
		return identity.IssuerConfig{
			Alias: name, URL: "https://" + name + ".test", Audiences: []string{"for-" + name}, JWKSURL: "https://" + name + ".test/keys",
		}
	}
	verifier := newVerifier(t, identity.Config{
		Issuers: []identity.IssuerConfig{rule("one"), rule("two")}, HTTPClient: &http.Client{Transport: server},
	})
	claims := func(iss, aud string) []byte {
		return one.claims(map[string]any{"iss": "https://" + iss + ".test", "aud": "for-" + aud})
	}
	for alias, f := range map[string]*forge{"one": one, "two": two} {
		caller, err := verifier.Verify(t.Context(), f.token(t, goodHeader, claims(alias, alias)))
		if err != nil || caller.Alias() != alias {
			t.Errorf("issuer %s gives %v, %v", alias, caller, err)
		}
	}
	refused(t, verifier, one.token(t, goodHeader, claims("two", "two")), identity.ErrInvalidToken)
	refused(t, verifier, two.token(t, goodHeader, claims("one", "one")), identity.ErrInvalidToken)
	refused(t, verifier, one.token(t, goodHeader, claims("one", "two")), identity.ErrInvalidToken)
}

func TestAKeyFileIsReadAtTheStart(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, keySetOf(t, "k1", f.private.Public()), 0o600); err != nil {
		t.Fatal(err)
	}
	verifier := f.verifier(t, func(rule *identity.IssuerConfig) { rule.JWKSURL, rule.JWKSFile = "", path })
	if err := verifier.Ready(t.Context()); err != nil {
		t.Errorf("not ready at once: %v", err)
	}
	if _, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(nil))); err != nil {
		t.Error(err)
	}
}
