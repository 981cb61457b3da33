package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/internal/idp"
	"sallyport/internal/loginnode"
)

// The tests of this file present tokens that are bound to a key (RFC 9449) or to a
// certificate (RFC 8705) to a whole service, configured by its file. The first two get
// them from a provider that others wrote.

const (
	askedWhoami = "/v1/whoami"
	badProofSay = `, error="invalid_dpop_proof", error_description="Proof is not valid"`
	unboundSay  = `, error="invalid_token", error_description="Token is not bound as it has to be"`
)

// A showing is a request with what proves a token, and what must come of it.
type showing struct {
	name                  string
	client                *http.Client
	url                   string
	authorization         string
	proof                 string
	status                int
	code, binding, saying string // saying is the WWW-Authenticate without "DPoP algs"
}

func (s showing) check(t *testing.T) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", s.authorization)
	if s.proof != "" {
		request.Header.Set("DPoP", s.proof)
	}
	if s.client == nil {
		s.client = http.DefaultClient
	}
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	defer closeBody(response)
	var body struct {
		Code    string
		Binding string `json:"token_binding"`
	}
	text, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil || response.StatusCode != s.status || body.Code != s.code || body.Binding != s.binding {
		t.Errorf("%s: got %d %s (%v), want %d with code %q and token_binding %q", s.name, response.StatusCode, text, err, s.status, s.code, s.binding)
	}
	challenge := response.Header.Get("WWW-Authenticate")
	if want := `DPoP algs="` + strings.Join(identity.ProofAlgorithms(), " ") + `"` + s.saying; s.saying != "" && challenge != want {
		t.Errorf("%s: WWW-Authenticate is %q, want %q", s.name, challenge, want)
	}
}

func aProof(t *testing.T, by *identitytest.Prover, method, address, token string) string {
	t.Helper()
	proof, err := by.Proof(method, address, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func newProver(t *testing.T) *identitytest.Prover {
	t.Helper()
	prover, err := identitytest.NewProver("ES256")
	if err != nil {
		t.Fatal(err)
	}
	return prover
}

// realBound starts npm's oidc-provider.
func realBound(t *testing.T) (provider *idp.Provider, login string) {
	t.Helper()
	login = "alice"
	if os.Geteuid() != 0 {
		login = currentLogin(t)
	}
	provider, err := idp.StartOIDCProvider(t.Context(), t.TempDir(), login)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, provider.Close()) })
	return provider, login
}

func TestTokenOfARealProviderThatIsBoundToAKeyNeedsAProofOfIt(t *testing.T) {
	t.Parallel()
	provider, login := realBound(t)
	mine, other := newProver(t), newProver(t)
	token, err := provider.BoundToken(t.Context(), login, aProof(t, mine, http.MethodPost, provider.TokenEndpoint(), ""))
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := provider.Token(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	in, trusted := initialize(t)
	in.node, in.issuer = startNode(t, loginnode.Config{}, trusted), "token_binding = \"dpop\"\n"
	in.serve(t, []identity.IssuerConfig{provider.IssuerConfig("centre")})

	here, bound := in.url+askedWhoami, "DPoP "+token
	good := aProof(t, mine, "GET", here, token)
	for _, s := range []showing{
		{name: "proof", authorization: bound, proof: good, status: 200, binding: "dpop"},
		{name: "proof that was used", authorization: bound, proof: good, status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "next proof", authorization: bound, proof: aProof(t, mine, "GET", here, token), status: 200, binding: "dpop"},
		{name: "no proof", authorization: bound, status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "as a bearer's", authorization: "Bearer " + token, status: 401, code: "token_binding", saying: unboundSay},
		{name: "as a bearer's with a proof", authorization: "Bearer " + token, proof: aProof(t, mine, "GET", here, token), status: 401, code: "token_binding", saying: unboundSay},
		{name: "other method", authorization: bound, proof: aProof(t, mine, "POST", here, token), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "other call", authorization: bound, proof: aProof(t, mine, "GET", in.url+"/v1/systems", token), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "other service", authorization: bound, proof: aProof(t, mine, "GET", "https://evil.test/v1/whoami", token), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "other key", authorization: bound, proof: aProof(t, other, "GET", here, token), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "other token", authorization: bound, proof: aProof(t, mine, "GET", here, bearer), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "bearer's token where dpop is demanded", authorization: "Bearer " + bearer, status: 401, code: "token_binding", saying: unboundSay},
	} {
		s.url = here
		s.check(t)
	}
	in.execBound(t, token, mine, login)
}

// execBound runs a command with a proof and finds the binding in its record.
func (in *installation) execBound(t *testing.T, token string, by *identitytest.Prover, login string) {
	t.Helper()
	p := &prover{key: by.Key, alg: "ES256"}
	c := &client{base: in.url, token: token, dpop: p, http: http.DefaultClient}
	var got answer
	if err := c.call(t.Context(), http.MethodPost, "/v1/systems/daint/exec", execBody{Command: "id -un"}, &got); err != nil {
		t.Fatal(err)
	}
	if got.Stdout != login+"\n" {
		t.Errorf("got %+v", got)
	}
	in.mustKnow(t, got.Serial)
	records, err := os.ReadFile(filepath.Join(in.dir, "data", "audit", "audit-000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(records), token) {
		t.Error("the token is in the audit log")
	}
	for line := range strings.Lines(string(records)) {
		if strings.Contains(line, `"exec.start"`) && !strings.Contains(line, `"sallyport.token_binding":"dpop"`) {
			t.Errorf("the record does not say how the token is bound: %s", line)
		}
	}
}

func TestTokenOfARealProviderThatIsBoundToACertificateNeedsAConnectionWithIt(t *testing.T) {
	t.Parallel()
	provider, login := realBound(t)
	in, trusted := initialize(t)
	at := func(name string) string { return filepath.Join(in.dir, name) }
	writePair(t, at("tls.crt"), at("tls.key"), 1)
	mine, other := writePair(t, at("mine.crt"), at("mine.key"), 2), writePair(t, at("other.crt"), at("other.key"), 3)
	in.node = startNode(t, loginnode.Config{}, trusted)
	in.server = fmt.Sprintf("tls_certificate = %q\ntls_key = %q\nclient_certificates = true\n", at("tls.crt"), at("tls.key"))
	in.issuer = "token_binding = \"mtls\"\n"
	in.serve(t, []identity.IssuerConfig{provider.IssuerConfig("centre")})

	token, err := provider.CertificateToken(t.Context(), login, mine.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	plain, err := provider.Token(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	with := func(certificates ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, Certificates: certificates, // of loopback, made for this test
		}}}
	}
	for _, s := range []showing{
		{name: "its certificate", client: with(mine), authorization: "Bearer " + token, status: 200, binding: "mtls"},
		{name: "another certificate", client: with(other), authorization: "Bearer " + token, status: 401, code: "token_binding", saying: unboundSay},
		{name: "its certificate behind another", client: with(chain(other, mine)), authorization: "Bearer " + token, status: 401, code: "token_binding", saying: unboundSay},
		{name: "no certificate", client: with(), authorization: "Bearer " + token, status: 401, code: "token_binding", saying: unboundSay},
		{name: "bearer's token", client: with(mine), authorization: "Bearer " + plain, status: 401, code: "token_binding", saying: unboundSay},
	} {
		s.url = in.url + askedWhoami
		s.check(t)
	}
	// Who lacks the key of a certificate, which is public, cannot show it.
	stolen := tls.Certificate{Certificate: mine.Certificate, PrivateKey: other.PrivateKey}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, in.url+askedWhoami, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if response, err := with(stolen).Do(request); err == nil {
		closeBody(response)
		t.Errorf("a certificate without its key: got %s", response.Status)
	}
}

// chain is a certificate with another one behind it, as if that had signed it.
func chain(first, then tls.Certificate) tls.Certificate {
	first.Certificate = append(first.Certificate[:1:1], then.Certificate...)
	return first
}

func TestBehindAProxyAProofNamesAPublicAddressAndNoOther(t *testing.T) {
	t.Parallel()
	issuer, mine := startIssuer(t), newProver(t)
	in, trusted := initialize(t)
	// The proxy ends TLS below a path of its own, and says so in all the usual headers.
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, err := url.Parse(in.url)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Path = strings.TrimPrefix(p.In.URL.Path, "/hpc")
			p.SetURL(target)
			p.SetXForwarded()
		}}).ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	in.node = startNode(t, loginnode.Config{}, trusted)
	in.server = fmt.Sprintf("public_urls = [%q]\n", proxy.URL+"/hpc")
	in.serve(t, []identity.IssuerConfig{issuer.IssuerConfig("centre")})
	token, err := issuer.Mint(map[string]any{"sub": in.node.Users()[0], "cnf": mine.Confirmation()})
	if err != nil {
		t.Fatal(err)
	}
	public, private := proxy.URL+"/hpc"+askedWhoami, in.url+askedWhoami
	for _, s := range []showing{
		{name: "public address", url: public, proof: aProof(t, mine, "GET", public, token), status: 200, binding: "dpop"},
		{name: "the address behind the proxy", url: public, proof: aProof(t, mine, "GET", private, token), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "that one, directly", url: private, proof: aProof(t, mine, "GET", private, token), status: 401, code: "proof_invalid", saying: badProofSay},
		{name: "without the path", url: public, proof: aProof(t, mine, "GET", proxy.URL+askedWhoami, token), status: 401, code: "proof_invalid", saying: badProofSay},
	} {
		s.client, s.authorization = proxy.Client(), "DPoP "+token
		s.check(t)
	}
}
