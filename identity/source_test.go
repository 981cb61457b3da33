package identity_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// A site is an issuer's server with TLS, whose answers a test chooses, and two
// more servers that have the issuer's real keys at any path: one of another
// host, one without TLS.
type site struct {
	issuer             *identitytest.Issuer
	self, other, plain string
	client             *http.Client
	discovery, keys    func(s *site, w http.ResponseWriter, r *http.Request)
}

func newSite(t *testing.T, discovery, keys func(*site, http.ResponseWriter, *http.Request)) *site {
	t.Helper()
	s := &site{discovery: discovery, keys: keys}
	self := httptest.NewTLSServer(s)
	everywhere := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(s.issuer.JWKS()) })
	other, plain := httptest.NewTLSServer(everywhere), httptest.NewServer(everywhere)
	pool := x509.NewCertPool()
	for _, server := range []*httptest.Server{self, other, plain} {
		t.Cleanup(server.Close)
		if server.TLS != nil {
			pool.AddCert(server.Certificate())
		}
	}
	s.issuer = newIssuer(t, identitytest.Config{URL: self.URL})
	s.self, s.other, s.plain = self.URL, other.URL, plain.URL
	s.client = self.Client()
	s.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/.well-known/openid-configuration":
		s.discovery(s, w, r)
	case s.keys != nil:
		s.keys(s, w, r)
	default:
		_, _ = w.Write(s.issuer.JWKS())
	}
}

// metadata is a discovery document; SELF, OTHER and PLAIN stand for the servers.
func metadata(issuer, keys string) func(*site, http.ResponseWriter, *http.Request) {
	return func(s *site, w http.ResponseWriter, _ *http.Request) {
		urls := strings.NewReplacer("SELF", s.self, "OTHER", s.other, "PLAIN", s.plain)
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, urls.Replace(issuer), urls.Replace(keys))
	}
}

// redirect sends the client through /1, /2 ... to the keys, which are at /n.
func redirect(n int) func(*site, http.ResponseWriter, *http.Request) {
	return func(s *site, w http.ResponseWriter, r *http.Request) {
		at, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if at < n {
			http.Redirect(w, r, "/"+strconv.Itoa(at+1), http.StatusFound)
			return
		}
		_, _ = w.Write(s.issuer.JWKS())
	}
}

func TestOnlyTheIssuersOwnDocumentsAreTaken(t *testing.T) {
	t.Parallel()
	type answer = func(*site, http.ResponseWriter, *http.Request)
	good := metadata("SELF", "SELF/keys")
	for name, test := range map[string]struct {
		discovery, keys answer
		accepted        bool
	}{
		"good":                        {discovery: good, accepted: true},
		"keys at another host":        {discovery: metadata("SELF", "OTHER/keys"), accepted: true}, // as Google has it
		"keys URL with a query":       {discovery: metadata("SELF", "SELF/keys?p=policy"), accepted: true},
		"discovery of another issuer": {discovery: metadata("https://evil.test", "SELF/keys")},
		"issuer with a slash more":    {discovery: metadata("SELF/", "SELF/keys")},
		"no issuer":                   {discovery: metadata("", "SELF/keys")},
		"keys over http":              {discovery: metadata("SELF", "PLAIN/keys")},
		"keys in a file":              {discovery: metadata("SELF", "file:///etc/passwd")},
		"no keys URL":                 {discovery: metadata("SELF", "")},
		"discovery is HTML":           {discovery: func(_ *site, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }},
		"discovery is an error": {discovery: func(s *site, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			good(s, w, r)
		}},
		"keys are an error": {discovery: good, keys: func(s *site, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(s.issuer.JWKS())
		}},
		"three redirects": {discovery: good, keys: redirect(3), accepted: true},
		"four redirects":  {discovery: good, keys: redirect(4)},
		"a redirect to another host": {discovery: good, keys: func(s *site, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.other, http.StatusFound)
		}},
		"a redirect to http": {discovery: good, keys: func(s *site, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.plain, http.StatusFound)
		}},
		"keys longer than 1 MiB": {discovery: good, keys: func(s *site, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(s.issuer.JWKS(), bytes.Repeat([]byte(" "), 1<<20)...))
		}},
		"keys that inflate": {discovery: good, keys: func(s *site, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			squeezed := gzip.NewWriter(w)
			_, _ = squeezed.Write(append(s.issuer.JWKS(), bytes.Repeat([]byte(" "), 4<<20)...))
			_ = squeezed.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, test.discovery, test.keys)
			verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{s.issuer.IssuerConfig("test")}, HTTPClient: s.client})
			token := mint(t, s.issuer, nil)
			if !test.accepted {
				refused(t, verifier, token, identity.ErrUnavailable)
			} else if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARedirectFromHTTPSToHTTPOfOneHostIsRefused(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, identitytest.Config{})
	server := webOf(func(r *http.Request) (int, http.Header, []byte) {
		switch r.URL.String() {
		case discoveryURL:
			return http.StatusOK, nil, fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":%q}`, issuer.URL(), keysURL)
		case keysURL:
			return http.StatusFound, http.Header{"Location": {"http://idp.test/keys"}}, nil
		}
		return http.StatusOK, nil, issuer.JWKS()
	})
	verifier := newVerifier(t, identity.Config{
		Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: &http.Client{Transport: server},
	})
	refused(t, verifier, mint(t, issuer, nil), identity.ErrUnavailable)
	if got := server.count("http://idp.test/keys"); got != 0 {
		t.Errorf("%d requests without TLS", got)
	}
}

func TestAnIssuerWithAnUntrustedCertificateIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata("SELF", "SELF/keys"), nil)
	verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{s.issuer.IssuerConfig("test")}})
	refused(t, verifier, mint(t, s.issuer, nil), identity.ErrUnavailable)
	if failure := verifier.Stats().Issuers[0].LastError; !strings.Contains(failure, "certificate") {
		t.Errorf("the last error is %q", failure)
	}
}

func TestTheCallersClientIsNotChanged(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, identitytest.Config{})
	client := issuer.Client()
	newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: client})
	if client.CheckRedirect != nil {
		t.Error("its redirect policy was replaced")
	}
}
