package identity_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

const here = "https://api.example.org/v1/whoami"

func newProver(t testing.TB, algorithm string) *identitytest.Prover {
	t.Helper()
	prover, err := identitytest.NewProver(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return prover
}

func prove(t testing.TB, prover *identitytest.Prover, token string, changes map[string]any) string {
	t.Helper()
	proof, err := prover.Proof("GET", here, token, changes)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// shown is how a client presents a token with proofs at here.
func shown(token string, proofs ...string) identity.Presentation {
	return identity.Presentation{Token: token, DPoP: true, Proofs: proofs, Method: "GET", Addresses: []string{here}}
}

// denied checks that a presentation gives this error, which is one for 401 as well.
func denied(t *testing.T, verifier *identity.Verifier, p identity.Presentation, want error, about string) {
	t.Helper()
	caller, err := verifier.VerifyPresented(t.Context(), p)
	if !errors.Is(err, want) || !errors.Is(err, identity.ErrInvalidToken) || caller.Valid() || !strings.Contains(fmt.Sprint(err), about) {
		t.Errorf("%v, %v; want %q about %q", caller, err, want, about)
	}
	for _, secret := range append(p.Proofs, p.Token) {
		if err != nil && len(secret) > 100 && strings.Contains(err.Error(), secret[len(secret)-40:]) {
			t.Errorf("the error has a part of the token or the proof: %v", err)
		}
	}
	if refusal, ok := errors.AsType[*identity.RefusalError](err); err != nil && (!ok || refusal.Issuer != "test") {
		t.Errorf("nobody is named as the one whose token was refused: %v", err)
	}
}

func TestATokenThatIsBoundToAKeyNeedsAProofOfItForEachRequest(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"ES256", "ES384", "EdDSA", "RS256", "PS256"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, algorithm)
			verifier := verifierOf(t, issuer)
			token := mint(t, issuer, map[string]any{"cnf": prover.Confirmation()})
			first := prove(t, prover, token, nil)
			caller, err := verifier.VerifyPresented(t.Context(), shown(token, first))
			if err != nil || caller.Login() != "alice" || caller.Binding() != "dpop" || caller.Bearer() != token {
				t.Fatalf("%v bound by %q, %v", caller, caller.Binding(), err)
			}
			// The token is remembered now; a proof is needed all the same.
			denied(t, verifier, shown(token, first), identity.ErrProof, "used before")
			denied(t, verifier, shown(token), identity.ErrProof, "0 DPoP headers")
			if _, err := verifier.VerifyPresented(t.Context(), shown(token, prove(t, prover, token, nil))); err != nil {
				t.Errorf("the next proof: %v", err)
			}
			for _, p := range []identity.Presentation{shown(token), shown(token, first), {Token: token}} {
				if caller, ok, err := verifier.Recall(p); !ok || caller.Valid() || !errors.Is(err, identity.ErrInvalidToken) {
					t.Errorf("what is remembered of a bound token is %v, %v, %v without a proof", caller, ok, err)
				}
			}
			if caller, ok, err := verifier.Recall(shown(token, prove(t, prover, token, nil))); !ok || !caller.Valid() || err != nil {
				t.Errorf("with a proof it is %v, %v, %v", caller, ok, err)
			}
		})
	}
}

func TestABoundTokenIsNoBearersAndAnUnboundOneIsNotUpgraded(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "ES256")
	verifier := verifierOf(t, issuer)
	bound, plain := mint(t, issuer, map[string]any{"cnf": prover.Confirmation()}), mint(t, issuer, nil)
	p := shown(bound, prove(t, prover, bound, nil))
	p.DPoP = false // RFC 9449 §7.2
	denied(t, verifier, p, identity.ErrBinding, "as a bearer's")
	denied(t, verifier, identity.Presentation{Token: bound}, identity.ErrBinding, "as a bearer's")
	if _, err := verifier.Verify(t.Context(), bound); !errors.Is(err, identity.ErrBinding) {
		t.Errorf("Verify of a bound token gives %v", err)
	}
	denied(t, verifier, shown(plain, prove(t, prover, plain, nil)), identity.ErrBinding, "under DPoP and is not bound")
	if _, err := verifier.Verify(t.Context(), plain); err != nil {
		t.Errorf("a bearer token gives %v", err)
	}
}

func TestAProofForSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "ES256")
	verifier := verifierOf(t, issuer)
	token := mint(t, issuer, map[string]any{"cnf": prover.Confirmation()})
	another := mint(t, issuer, map[string]any{"cnf": prover.Confirmation()})
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		changes map[string]any
		about   string
	}{
		"method":               {map[string]any{"htm": "POST"}, "htm"},
		"method in lower case": {map[string]any{"htm": "get"}, "htm"},
		"no method":            {map[string]any{"htm": nil}, "htm"},
		"path":                 {map[string]any{"htu": "https://api.example.org/v1/systems"}, "htu"},
		"slash":                {map[string]any{"htu": here + "/"}, "htu"},
		"host":                 {map[string]any{"htu": "https://api.example.com/v1/whoami"}, "htu"},
		"host in front":        {map[string]any{"htu": "https://api.example.org.evil.test/v1/whoami"}, "htu"},
		"user":                 {map[string]any{"htu": "https://api.example.org@evil.test/v1/whoami"}, "htu"},
		"port":                 {map[string]any{"htu": "https://api.example.org:8443/v1/whoami"}, "htu"},
		"scheme":               {map[string]any{"htu": "http://api.example.org/v1/whoami"}, "htu"},
		"no scheme":            {map[string]any{"htu": "//api.example.org/v1/whoami"}, "htu"},
		"no address":           {map[string]any{"htu": nil}, "htu"},
		"encoded slash":        {map[string]any{"htu": "https://api.example.org/v1%2Fwhoami"}, "htu"},
		"a list":               {map[string]any{"htu": []string{here}}, "malformed"},
		"another token":        {map[string]any{"ath": strings.Repeat("A", 43)}, "ath"},
		"no token":             {map[string]any{"ath": nil}, "ath"},
		"old":                  {map[string]any{"iat": now - 95}, "old"},
		"future":               {map[string]any{"iat": now + 40}, "future"},
		"far future":           {map[string]any{"iat": 1e18}, "not a date"},
		"before the epoch":     {map[string]any{"iat": -5}, "not a date"},
		"no time":              {map[string]any{"iat": nil}, "iat is missing"},
		"time as text":         {map[string]any{"iat": "now"}, "malformed"},
		"expired":              {map[string]any{"exp": now - 60}, "expired"},
		"not yet":              {map[string]any{"nbf": now + 60}, "nbf"},
		"no id":                {map[string]any{"jti": nil}, "jti"},
		"empty id":             {map[string]any{"jti": ""}, "jti"},
		"long id":              {map[string]any{"jti": strings.Repeat("x", 257)}, "jti"},
		"number as id":         {map[string]any{"jti": 7}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			denied(t, verifier, shown(token, prove(t, prover, token, c.changes)), identity.ErrProof, c.about)
		})
	}
	good := prove(t, prover, token, nil)
	denied(t, verifier, shown(another, good), identity.ErrProof, "ath")
	denied(t, verifier, shown(token, good, good), identity.ErrProof, "2 DPoP headers")
	denied(t, verifier, shown(token, good+", "+good), identity.ErrProof, "compact")
	denied(t, verifier, shown(token, good[:len(good)-4]+"AAAA"), identity.ErrProof, "signature")
	denied(t, verifier, shown(token, strings.Repeat("x", 9000)), identity.ErrProof, "compact")
	nowhere := shown(token, good)
	nowhere.Addresses = nil
	denied(t, verifier, nowhere, identity.ErrProof, "server.public_urls")
	thief := newProver(t, "ES256")
	denied(t, verifier, shown(token, prove(t, thief, token, nil)), identity.ErrProof, "another key")
	// None of these has used the good one up.
	if _, err := verifier.VerifyPresented(t.Context(), shown(token, good)); err != nil {
		t.Errorf("the good proof: %v", err)
	}
}

func TestSpellingsOfOneAddressAreTheSame(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "EdDSA")
	verifier := verifierOf(t, issuer)
	token := mint(t, issuer, map[string]any{"cnf": prover.Confirmation()})
	for _, c := range []struct{ own, htu string }{
		{here, here},
		{here, "HTTPS://API.Example.ORG/v1/whoami"},
		{here, "https://api.example.org:443/v1/whoami"},
		{here, here + "?a=b#c"},
		{here + "?a=b", here},
		{here, "https://api.example.org/v1/%77hoami"},
		{here, "https://api.example.org/v2/../v1/./whoami"},
		{"https://api.example.org/a%2fb", "https://api.example.org/a%2Fb"},
		{"https://api.example.org", "https://api.example.org/"},
		{"http://127.0.0.1:80/x", "http://127.0.0.1/x"},
		{"https://[::1]:8443/x", "https://[::1]:8443/x"},
	} {
		p := shown(token, prove(t, prover, token, map[string]any{"htu": c.htu}))
		p.Addresses = []string{"https://other.example.org/", c.own}
		if _, err := verifier.VerifyPresented(t.Context(), p); err != nil {
			t.Errorf("%q for %q: %v", c.htu, c.own, err)
		}
	}
}

// header replaces the header of a proof and signs it again.
func (f *proofForge) header(t *testing.T, changes map[string]any) string {
	t.Helper()
	all := map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": f.jwk}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(f.token))
	payload := fmt.Appendf(nil, `{"jti":%q,"htm":"GET","htu":%q,"iat":%d,"ath":%q}`, t.Name(), here, time.Now().Unix(), encode(sum[:]))
	signed := encode(text) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(nil, f.private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// A proofForge makes proofs with headers that no library would.
type proofForge struct {
	private *ecdsa.PrivateKey
	jwk     map[string]any
	token   string
}

func TestAProofWithAStrangeHeaderIsRefused(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "ES256")
	verifier := verifierOf(t, issuer)
	f := &proofForge{private: prover.Key.(*ecdsa.PrivateKey), token: mint(t, issuer, map[string]any{"cnf": prover.Confirmation()})}
	text, err := jose.JSONWebKey{Key: prover.Key.Public()}.MarshalJSON()
	if err != nil || json.Unmarshal(text, &f.jwk) != nil {
		t.Fatal(err)
	}
	with := func(more map[string]any) map[string]any {
		all := maps.Clone(f.jwk)
		maps.Copy(all, more)
		return map[string]any{"jwk": all}
	}
	d := base64.RawURLEncoding.EncodeToString(f.private.D.FillBytes(make([]byte, 32))) //nolint:staticcheck // the value that must not be sent
	for name, changes := range map[string]map[string]any{
		"as it should be":        {},
		"typ in upper case":      {"typ": "DPoP+JWT"},
		"typ of an access token": {"typ": "at+jwt"},
		"no typ":                 {"typ": nil},
		"typ is a number":        {"typ": 1},
		"alg none":               {"alg": "none"},
		"HMAC":                   {"alg": "HS256"},
		"another curve":          {"alg": "ES384"},
		"no alg":                 {"alg": nil},
		"critical":               {"crit": []string{"exp"}, "exp": 1},
		"no key":                 {"jwk": nil},
		"key by id alone":        {"jwk": nil, "kid": "k1"},
		"key elsewhere":          {"jwk": nil, "jku": "https://evil.test/keys"},
		"a private key":          with(map[string]any{"d": d}),
		"a part of one":          with(map[string]any{"qi": "AA"}),
		"a symmetric key":        {"jwk": map[string]any{"kty": "oct", "k": "c2VjcmV0"}},
		"for encryption":         with(map[string]any{"use": "enc"}),
		"not on the curve":       with(map[string]any{"x": f.jwk["y"]}),
		"of no known curve":      with(map[string]any{"crv": "P-999"}),
		"key is a string":        {"jwk": "key"},
		"key is huge":            with(map[string]any{"kid": strings.Repeat("x", 9000)}),
	} {
		t.Run(name, func(t *testing.T) {
			p := shown(f.token, f.header(t, changes))
			if strings.HasPrefix(name, "as it") || strings.HasPrefix(name, "typ in upper") {
				if _, err := verifier.VerifyPresented(t.Context(), p); err != nil {
					t.Error(err)
				}
				return
			}
			denied(t, verifier, p, identity.ErrProof, "")
		})
	}
	rsa := newProver(t, "RS256")
	denied(t, verifier, shown(f.token, prove(t, rsa, f.token, nil)), identity.ErrProof, "another key")
}

func TestAConfirmationThatIsNotUnderstoodRefusesTheToken(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "ES256")
	verifier := verifierOf(t, issuer)
	jkt := prover.Confirmation()["jkt"].(string)
	for name, cnf := range map[string]any{
		"string": jkt, "number": 1, "list": []string{jkt}, "false": false, "empty": map[string]any{}, "empty string": "",
		"jwk": map[string]any{"jwk": map[string]any{"kty": "EC"}}, "kid": map[string]any{"kid": "k1"}, "jku": map[string]any{"jku": "https://x.test"},
		"one more":       map[string]any{"jkt": jkt, "kid": jkt},
		"other case":     map[string]any{"JKT": jkt},
		"short":          map[string]any{"jkt": jkt[:42]},
		"padded":         map[string]any{"jkt": jkt + "="},
		"wrapped":        map[string]any{"jkt": jkt + "\n"},
		"number in it":   map[string]any{"jkt": 5},
		"null in it":     map[string]any{"jkt": nil},
		"list in it":     map[string]any{"x5t#S256": []string{jkt}},
		"SHA-1":          map[string]any{"x5t": jkt[:27]},
		"one half empty": map[string]any{"jkt": jkt, "x5t#S256": ""},
	} {
		token := mint(t, issuer, map[string]any{"cnf": cnf})
		p := shown(token, prove(t, prover, token, nil))
		p.Certificate = []byte("a certificate")
		denied(t, verifier, p, identity.ErrInvalidToken, "")
		p.DPoP = false
		denied(t, verifier, p, identity.ErrInvalidToken, "")
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestATokenThatIsBoundToACertificateNeedsItInTheConnection(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "ES256")
	verifier := verifierOf(t, issuer)
	certificate := []byte("what the client showed, in DER")
	sum := sha256.Sum256(certificate)
	cnf := map[string]any{"x5t#S256": encode(sum[:])}
	token := mint(t, issuer, map[string]any{"cnf": cnf})
	caller, err := verifier.VerifyPresented(t.Context(), identity.Presentation{Token: token, Certificate: certificate})
	if err != nil || caller.Binding() != "mtls" {
		t.Errorf("%v, %v", caller, err)
	}
	denied(t, verifier, identity.Presentation{Token: token}, identity.ErrBinding, "has none")
	denied(t, verifier, identity.Presentation{Token: token, Certificate: []byte("another")}, identity.ErrBinding, "another certificate")
	p := shown(token, prove(t, prover, token, nil))
	p.Certificate = certificate
	denied(t, verifier, p, identity.ErrBinding, "under DPoP")

	cnf["jkt"] = prover.Confirmation()["jkt"]
	both := mint(t, issuer, map[string]any{"cnf": cnf})
	p = shown(both, prove(t, prover, both, nil))
	denied(t, verifier, p, identity.ErrBinding, "has none")
	p.Certificate = certificate
	if caller, err = verifier.VerifyPresented(t.Context(), p); err != nil || caller.Binding() != "dpop+mtls" {
		t.Errorf("%v, %v", caller, err)
	}
	p.DPoP = false
	denied(t, verifier, p, identity.ErrBinding, "as a bearer's")
}

func TestARuleCanDemandBoundTokens(t *testing.T) {
	t.Parallel()
	issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "ES256")
	certificate := []byte("DER")
	sum := sha256.Sum256(certificate)
	key, cert := prover.Confirmation(), map[string]any{"x5t#S256": encode(sum[:])}
	both := map[string]any{"jkt": key["jkt"], "x5t#S256": cert["x5t#S256"]}
	for demanded, admitted := range map[identity.Binding]string{
		identity.BindingAny: "none key cert both", identity.BindingDPoP: "key both", identity.BindingMTLS: "cert both", identity.BindingEither: "key cert both",
	} {
		verifier := verifierOf(t, issuer, func(c *identity.IssuerConfig) { c.Binding = demanded })
		for name, cnf := range map[string]map[string]any{"none": nil, "key": key, "cert": cert, "both": both} {
			claims := map[string]any{}
			if cnf != nil {
				claims["cnf"] = cnf
			}
			token := mint(t, issuer, claims)
			p := shown(token, prove(t, prover, token, nil))
			p.DPoP, p.Certificate = cnf["jkt"] != nil, certificate
			if strings.Contains(admitted, name) {
				if _, err := verifier.VerifyPresented(t.Context(), p); err != nil {
					t.Errorf("%s: a token bound by %s: %v", demanded, name, err)
				}
				continue
			}
			denied(t, verifier, p, identity.ErrBinding, "")
		}
	}
	rule := issuer.IssuerConfig("test")
	rule.Binding = "tls"
	if _, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{rule}}); err == nil || !strings.Contains(err.Error(), `binding "tls"`) {
		t.Errorf("an unknown binding: %v", err)
	}
}

func TestProofsNeedANonceIfTheyAreRequired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "EdDSA")
		verifiers := make([]*identity.Verifier, 2)
		for i := range verifiers {
			verifiers[i] = newVerifier(t, identity.Config{
				Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: issuer.Client(), ProofNonces: true,
			})
		}
		token := mint(t, issuer, map[string]any{"cnf": prover.Confirmation()})
		present := func(nonce any) identity.Presentation {
			return shown(token, prove(t, prover, token, map[string]any{"nonce": nonce}))
		}
		nonce := verifiers[0].Nonce()
		for _, bad := range []any{nil, "", "x", nonce + "A", strings.ToLower(nonce), nonce[:31], verifiers[1].Nonce(), strings.Repeat("A", 32)} {
			denied(t, verifiers[0], present(bad), identity.ErrNonce, "")
		}
		for _, wait := range []time.Duration{0, 4 * time.Minute} {
			time.Sleep(wait)
			if _, err := verifiers[0].VerifyPresented(t.Context(), present(nonce)); err != nil {
				t.Errorf("after %v: %v", wait, err)
			}
		}
		time.Sleep(time.Minute)
		denied(t, verifiers[0], present(nonce), identity.ErrNonce, "")
		if next := verifiers[0].Nonce(); next == nonce || next == "" {
			t.Errorf("the nonce is %q for ever", next)
		}
	})
	if nonce := verifierOf(t, newIssuer(t, identitytest.Config{})).Nonce(); nonce != "" {
		t.Errorf("a nonce %q that nobody needs", nonce)
	}
}

func TestAProofIsGoodForASpanAndRefusedWhenTheServiceStartsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer, prover := newIssuer(t, identitytest.Config{}), newProver(t, "EdDSA")
		token := mint(t, issuer, map[string]any{"cnf": prover.Confirmation(), "exp": time.Now().Add(time.Hour).Unix()})
		before := prove(t, prover, token, nil)
		old := verifierOf(t, issuer)
		time.Sleep(2 * time.Second)
		next := verifierOf(t, issuer) // has no memory of what old has seen
		if _, err := old.VerifyPresented(t.Context(), shown(token, before)); err != nil {
			t.Error(err)
		}
		denied(t, next, shown(token, before), identity.ErrProof, "before the service started")
		for wait, want := range map[time.Duration]error{88 * time.Second: nil, 93 * time.Second: identity.ErrProof} {
			proof := prove(t, prover, token, nil)
			time.Sleep(wait)
			if _, err := next.VerifyPresented(t.Context(), shown(token, proof)); !errors.Is(err, want) {
				t.Errorf("after %v: %v", wait, err)
			}
		}
	})
}
