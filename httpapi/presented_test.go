package httpapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/httpapi/contract"
	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// bound is a service whose tokens are real ones, with a client that has a key.
type bound struct {
	*service
	issuer   *identitytest.Issuer
	prover   *identitytest.Prover
	verifier *identity.Verifier
}

func newBound(t *testing.T, change func(*Config), nonces bool) *bound {
	t.Helper()
	issuer, err := identitytest.New(identitytest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	prover, err := identitytest.NewProver("ES256")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := identity.New(identity.Config{
		Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: issuer.Client(), ProofNonces: nonces,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { verifier.Close() })
	s := newService(t, func(c *Config) {
		c.Tokens, c.ProofNonce = verifier, verifier.Nonce
		if change != nil {
			change(c)
		}
	})
	return &bound{s, issuer, prover, verifier}
}

func (b *bound) token(t *testing.T, cnf map[string]any) string {
	t.Helper()
	claims := map[string]any{}
	if cnf != nil {
		claims["cnf"] = cnf
	}
	token, err := b.issuer.Mint(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (b *bound) proof(t *testing.T, method, address, token string, changes map[string]any) string {
	t.Helper()
	proof, err := b.prover.Proof(method, address, token, changes)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func TestABoundTokenIsTakenUnderDPoPWithAProofAndNotElse(t *testing.T) {
	t.Parallel()
	b := newBound(t, nil, false)
	b.serve()
	token, plain := b.token(t, b.prover.Confirmation()), b.token(t, nil)
	here := b.url + "/v1/whoami"
	good := b.proof(t, "GET", here, token, nil)
	algs := `DPoP algs="` + strings.Join(identity.ProofAlgorithms(), " ") + `"`
	for _, c := range []struct {
		name, authorization, proof string
		status                     int
		code, challenge            string
	}{
		{"proof", "DPoP " + token, good, 200, "", ""},
		{"used proof", "DPoP " + token, good, 401, "proof_invalid", algs + `, error="invalid_dpop_proof", error_description="Proof is not valid"`},
		{"scheme in lower case", "dpop " + token, b.proof(t, "GET", here, token, nil), 200, "", ""},
		{"query", "DPoP " + token, b.proof(t, "GET", here+"?a=b", token, nil), 200, "", ""},
		{"no proof", "DPoP " + token, "", 401, "proof_invalid", algs + `, error="invalid_dpop_proof", error_description="Proof is not valid"`},
		{"other call", "DPoP " + token, b.proof(t, "GET", b.url+"/v1/systems", token, nil), 401, "proof_invalid", ""},
		{"other method", "DPoP " + token, b.proof(t, "POST", here, token, nil), 401, "proof_invalid", ""},
		{"other service", "DPoP " + token, b.proof(t, "GET", "https://evil.test/v1/whoami", token, nil), 401, "proof_invalid", ""},
		{"as a bearer's", "Bearer " + token, b.proof(t, "GET", here, token, nil), 401, "token_binding", algs + `, error="invalid_token", error_description="Token is not bound as it has to be"`},
		{"unbound", "DPoP " + plain, b.proof(t, "GET", here, plain, nil), 401, "token_binding", ""},
		{"unbound as a bearer's", "Bearer " + plain, "", 200, "", ""},
		{"empty", "DPoP ", good, 401, "token_missing", ""},
		{"nonsense", "DPoP x", good, 401, "token_invalid", ""},
	} {
		headers := []string{"Authorization", c.authorization}
		if c.proof != "" {
			headers = append(headers, "DPoP", c.proof)
		}
		a := b.do("GET", "/v1/whoami?a=b", "", headers...)
		if c.code != "" {
			a.wantProblem(t, c.status, c.code)
		}
		if got := a.header.Get("WWW-Authenticate"); a.status != c.status || c.challenge != "" && got != c.challenge {
			t.Errorf("%s: status %d, WWW-Authenticate %q", c.name, a.status, got)
		}
		if a.header.Get("DPoP-Nonce") != "" {
			t.Errorf("%s: a nonce that nobody needs", c.name)
		}
	}
	a := b.do("GET", "/v1/whoami", "", "Authorization", "")
	if got := a.header.Values("WWW-Authenticate"); len(got) != 2 || got[1] != algs {
		t.Errorf("without a token: %q", got)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", here, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header["Dpop"] = []string{b.proof(t, "GET", here, token, nil), b.proof(t, "GET", here, token, nil)}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("two proofs: %d", answer.StatusCode)
	}
	if strings.Contains(b.log.String(), good) || strings.Contains(b.log.String(), token) {
		t.Error("the log has a token or a proof")
	}
}

func TestTheBodyOfADeiCCallHoldsABoundTokenOnlyWithAProofInTheHeader(t *testing.T) {
	t.Parallel()
	b := newBound(t, nil, false)
	b.serve()
	token := b.token(t, b.prover.Confirmation())
	body := `{"PublicKey":"x","OTT":"` + token + `"}`
	b.do("POST", "/demoCA/sign", body, "Authorization", "").wantProblem(t, 401, "token_binding")
	proof := b.proof(t, "POST", b.url+"/demoCA/sign", token, nil)
	b.do("POST", "/demoCA/sign", body, "Authorization", "", "DPoP", proof).wantProblem(t, 422, "public_key_not_allowed")
	b.do("POST", "/demoCA/sign", body, "Authorization", "", "DPoP", proof).wantProblem(t, 401, "proof_invalid")
}

func TestANonceIsAskedForAndEachAnswerTellsTheNextOne(t *testing.T) {
	t.Parallel()
	b := newBound(t, nil, true)
	b.serve()
	token, here := b.token(t, b.prover.Confirmation()), b.url+"/v1/whoami"
	a := b.do("GET", "/v1/whoami", "", "Authorization", "DPoP "+token, "DPoP", b.proof(t, "GET", here, token, nil))
	a.wantProblem(t, 401, "proof_nonce_missing")
	nonce := a.header.Get("DPoP-Nonce")
	if !strings.Contains(a.header.Get("WWW-Authenticate"), `error="use_dpop_nonce"`) || nonce == "" {
		t.Fatalf("challenge %q, nonce %q", a.header.Get("WWW-Authenticate"), nonce)
	}
	a = b.do("GET", "/v1/whoami", "", "Authorization", "DPoP "+token, "DPoP", b.proof(t, "GET", here, token, map[string]any{"nonce": nonce}))
	if a.status != http.StatusOK || a.header.Get("DPoP-Nonce") == "" {
		t.Errorf("with the nonce: %d %v", a.status, a.header)
	}
}

// Whoever has a proof that was made for another service must not have it taken here by
// writing that service's name into the request.
func TestAHostHeaderDoesNotSayWhoseNameItIs(t *testing.T) {
	t.Parallel()
	const other = "https://other.example.org"
	for name, c := range map[string]struct {
		public      []string
		own         string
		tls         bool
		host, prove string
		status      int
	}{
		"another's name":                {nil, "", false, "other.example.org", "http://other.example.org", 401},
		"another's name over TLS":       {nil, "api.example.org", true, "other.example.org", other, 401},
		"our certificate's name":        {nil, "api.example.org", true, "api.example.org", "https://api.example.org", 200},
		"TLS without a certificate":     {nil, "", true, "api.example.org", "https://api.example.org", 401},
		"loopback":                      {nil, "", false, "127.0.0.1:80", "http://127.0.0.1", 200},
		"loopback by name":              {nil, "", false, "localhost:8080", "http://localhost:8080", 200},
		"configured":                    {[]string{"https://api.example.org/"}, "", false, "127.0.0.1:8080", "https://api.example.org", 200},
		"configured, whatever the host": {[]string{"https://api.example.org"}, "", false, "other.example.org", other, 401},
		"second name, below a path":     {[]string{"https://a.example.org", "https://b.example.org/sp/"}, "", false, "x", "https://b.example.org/sp", 200},
		"forwarded headers":             {nil, "", false, "proxy", other, 401},
	} {
		b := newBound(t, func(cfg *Config) {
			cfg.PublicURLs = c.public
			if c.own != "" {
				cfg.OwnName = func(host string) bool { return host == c.own }
			}
		}, false)
		token := b.token(t, b.prover.Confirmation())
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/whoami", nil)
		r.Host = c.host
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", b.proof(t, "GET", c.prove+"/v1/whoami", token, nil))
		r.Header.Set("X-Forwarded-Host", "other.example.org")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("Forwarded", "host=other.example.org;proto=https")
		w := httptest.NewRecorder()
		b.api.Handler().ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, c.status, b.log)
		}
	}
	for _, bad := range []string{"api.example.org", "ftp://x", "https://", "https://u:p@x", "https://x/?a", "https://x#f", "https://x:"} {
		if err := checkPublicURLs([]string{bad}); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// clientCertificate makes a certificate that nobody but itself has signed.
func clientCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestATokenIsGoodOverTheConnectionWithItsCertificateAlone(t *testing.T) {
	t.Parallel()
	b := newBound(t, nil, false)
	server := httptest.NewUnstartedServer(contract.Check(t, b.api.Handler()))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	mine, other := clientCertificate(t), clientCertificate(t)
	sum := sha256.Sum256(mine.Certificate[0])
	cnf := map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, c := range map[string]struct {
			shown  []tls.Certificate
			cnf    map[string]any
			status int
		}{
			"its certificate":         {[]tls.Certificate{mine}, cnf, 200},
			"another certificate":     {[]tls.Certificate{other}, cnf, 401},
			"no certificate":          {nil, cnf, 401},
			"one behind another":      {[]tls.Certificate{{Certificate: [][]byte{other.Certificate[0], mine.Certificate[0]}, PrivateKey: other.PrivateKey}}, cnf, 401},
			"a token that needs none": {[]tls.Certificate{mine}, nil, 200},
		} {
			transport := server.Client().Transport.(*http.Transport).Clone()
			transport.TLSClientConfig.Certificates = c.shown
			transport.TLSClientConfig.MaxVersion = version
			r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v1/whoami", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+b.token(t, c.cnf))
			r.Header.Set("X-Client-Cert", base64.StdEncoding.EncodeToString(mine.Certificate[0])) // a proxy's word is no proof
			r.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(mine.Certificate[0])+":")
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			transport.CloseIdleConnections()
			if answer.StatusCode != c.status || answer.ProtoMajor != 2 {
				t.Errorf("TLS %x, %s: %d over HTTP/%d", version, name, answer.StatusCode, answer.ProtoMajor)
			}
		}
	}
}
