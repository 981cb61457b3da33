package identity_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// liveIssuer is a server with TLS that a test can make misbehave, and a rule
// and client for it.
func liveIssuer(t *testing.T, handler func(issuer *identitytest.Issuer, w http.ResponseWriter, r *http.Request)) (*identitytest.Issuer, *httptest.Server) {
	t.Helper()
	var issuer *identitytest.Issuer
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(issuer, w, r) }))
	t.Cleanup(server.Close)
	issuer = newIssuer(t, identitytest.Config{URL: server.URL})
	return issuer, server
}

func TestOnlyTheIssuersOwnDocumentsAreTaken(t *testing.T) {
	t.Parallel()
	other := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	metadata := func(issuer, jwks string) func(*identitytest.Issuer, http.ResponseWriter) {
		return func(i *identitytest.Issuer, w http.ResponseWriter) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, strings.ReplaceAll(issuer, "SELF", i.URL()), strings.ReplaceAll(jwks, "SELF", i.URL()))
		}
	}
	for name, test := range map[string]struct {
		discovery func(*identitytest.Issuer, http.ResponseWriter)
		keys      func(*identitytest.Issuer, http.ResponseWriter, *http.Request)
		accepted  bool
	}{
		"good":                        {discovery: metadata("SELF", "SELF/keys"), accepted: true},
		"discovery of another issuer": {discovery: metadata("https://evil.test", "SELF/keys")},
		"issuer with a slash more":    {discovery: metadata("SELF/", "SELF/keys")},
		"no issuer":                   {discovery: metadata("", "SELF/keys")},
		"keys over http":              {discovery: metadata("SELF", "http://127.0.0.1/keys")},
		"keys in a file":              {discovery: metadata("SELF", "file:///etc/passwd")},
		"no keys URL":                 {discovery: metadata("SELF", "")},
		"keys URL with a password":    {discovery: metadata("SELF", "https://u:p@127.0.0.1/keys")},
		"discovery is HTML":           {discovery: func(_ *identitytest.Issuer, w http.ResponseWriter) { fmt.Fprint(w, "<html>") }},
		"discovery is an error":       {discovery: func(_ *identitytest.Issuer, w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }},
		"keys are an error": {
			discovery: metadata("SELF", "SELF/keys"),
			keys: func(i *identitytest.Issuer, w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write(i.JWKS())
			},
		},
		"a redirect within the host": {
			discovery: metadata("SELF", "SELF/keys"), accepted: true,
			keys: func(i *identitytest.Issuer, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/keys" {
					http.Redirect(w, r, "/keys/v2", http.StatusFound)
					return
				}
				_, _ = w.Write(i.JWKS())
			},
		},
		"a redirect to another host": {
			discovery: metadata("SELF", "SELF/keys"),
			keys: func(_ *identitytest.Issuer, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, other.URL, http.StatusFound)
			},
		},
		"a redirect to http": {
			discovery: metadata("SELF", "SELF/keys"),
			keys: func(_ *identitytest.Issuer, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+r.Host+"/keys/v2", http.StatusFound)
			},
		},
		"redirects without end": {
			discovery: metadata("SELF", "SELF/keys"),
			keys: func(_ *identitytest.Issuer, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, r.URL.Path+"/x", http.StatusFound)
			},
		},
		"keys longer than 1 MiB": {
			discovery: metadata("SELF", "SELF/keys"),
			keys: func(i *identitytest.Issuer, w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(append(i.JWKS(), bytes.Repeat([]byte(" "), 1<<20)...))
			},
		},
		"keys that inflate": {
			discovery: metadata("SELF", "SELF/keys"),
			keys: func(i *identitytest.Issuer, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				squeezed := gzip.NewWriter(w)
				_, _ = squeezed.Write(append(i.JWKS(), bytes.Repeat([]byte(" "), 4<<20)...))
				_ = squeezed.Close()
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer, server := liveIssuer(t, func(i *identitytest.Issuer, w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/.well-known/openid-configuration":
					test.discovery(i, w)
				case test.keys != nil:
					test.keys(i, w, r)
				default:
					_, _ = w.Write(i.JWKS())
				}
			})
			client := server.Client()
			client.Transport.(*http.Transport).TLSClientConfig.RootCAs = poolOf(server, other)
			verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: client})
			token := mint(t, issuer, nil)
			if !test.accepted {
				refused(t, verifier, token, identity.ErrUnavailable)
			} else if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
}

func poolOf(servers ...*httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, server := range servers {
		pool.AddCert(server.Certificate())
	}
	return pool
}

func TestAnIssuerWithAnUntrustedCertificateIsNotBelieved(t *testing.T) {
	t.Parallel()
	issuer, _ := liveIssuer(t, func(i *identitytest.Issuer, w http.ResponseWriter, r *http.Request) { i.ServeHTTP(w, r) })
	verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}})
	refused(t, verifier, mint(t, issuer, nil), identity.ErrUnavailable)
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
