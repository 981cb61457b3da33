package firecrest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/revocation"
	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// An authority signs the certificates of every caller.
type authority struct{ signer ssh.Signer }

func newKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(private)
}

func (a authority) Credential(_ context.Context, caller identity.Identity, _ executor.Node) (executor.Credential, error) {
	key, err := newKey()
	if err != nil {
		return executor.Credential{}, err
	}
	now := time.Now()
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, Serial: 1, KeyId: "test", ValidPrincipals: []string{caller.Login()},
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
	}
	if caller.Narrow() {
		cert.CriticalOptions = map[string]string{"force-command": "internal-sftp"}
	}
	if err := cert.SignCert(rand.Reader, a.signer); err != nil {
		return executor.Credential{}, err
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		return executor.Credential{}, err
	}
	return executor.Credential{User: caller.Login(), Signer: signer, Certificate: cert, NotAfter: now.Add(time.Hour)}, nil
}

// noAudit forgets.
type noAudit struct{}

func (noAudit) Record(context.Context, audit.Event) error { return nil }

// A site is a whole service: tokens of a test issuer, an executor, and the API.
type site struct {
	t      testing.TB
	url    string
	issuer *identitytest.Issuer
	// revoked is who is refused at admission.
	revoked *revocation.Register
}

// gate asks a real register.
type gate struct{ *revocation.Register }

func (g gate) Admit(caller identity.Identity) error { return g.Register.Admit(caller) }

// serve starts the API for systems that run serves.
func serve(t testing.TB, cfg firecrest.Config) *site {
	t.Helper()
	return serveWith(t, cfg, nil)
}

// serveWith is serve with a policy.
func serveWith(t testing.TB, cfg firecrest.Config, policy httpapi.Authorizer) *site {
	t.Helper()
	issuer, err := identitytest.Start(identitytest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { issuer.Close() })
	rule := issuer.IssuerConfig("test")
	rule.AllowHTTP = true
	verifier, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{rule}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { verifier.Close() })
	server := httptest.NewUnstartedServer(nil)
	if cfg.Streaming != nil {
		cfg.Streaming.URL = "ws://" + server.Listener.Addr().String()
	}
	handler, err := firecrest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Streaming != nil {
		door := httptest.NewServer(handler.Door())
		t.Cleanup(door.Close)
		cfg.Streaming.Port = door.Listener.Addr().(*net.TCPAddr).Port
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "revoked.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	revoked, err := revocation.Open(t.Context(), revocation.Config{Store: db, Audit: noAudit{}})
	if err != nil {
		t.Fatal(err)
	}
	api, err := httpapi.New(httpapi.Config{
		Gate: gate{revoked}, Tokens: verifier, Commands: cfg.Commands.(httpapi.CommandRunner), Audit: noAudit{}, Policy: policy, Mounts: []httpapi.Mounted{handler},
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config = api.Server()
	server.Start()
	t.Cleanup(server.Close)
	return &site{t: t, url: server.URL, issuer: issuer, revoked: revoked}
}

// An answer is a response that was read to its end.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   string
}

// client keeps nothing open, so that goleak has nothing to find, and follows no
// redirect, as pyfirecrest's.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// as sends a request with a token of login; without a login there is none. Headers
// come as pairs.
func (s *site) as(login, method, path, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if login != "" {
		token, err := s.issuer.Mint(map[string]any{"sub": "sub-" + login, "preferred_username": login})
		if err != nil {
			s.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: reading the answer: %v", method, path, err)
	}
	return answer{s.t, method + " " + path, resp.StatusCode, resp.Header, string(text)}
}

// A fault is the body of an error, as strictly as clients may read it.
type fault struct {
	ErrorType string
	Message   string
	CausedBy  []string
	Data      *struct {
		Fields []struct{ Location, Name, Message string }
	}
	User *string
}

// fails checks status and phrase of an error and the five keys of its body.
func (a answer) fails(status int, phrase string) fault {
	a.t.Helper()
	var keys map[string]json.RawMessage
	var f fault
	if err := json.Unmarshal([]byte(a.body), &keys); err != nil {
		a.t.Fatalf("%s: status %d, no JSON: %q", a.what, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &f); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
	for _, key := range []string{"errorType", "message", "causedBy", "data", "user"} {
		if _, ok := keys[key]; !ok || len(keys) != 5 {
			a.t.Errorf("%s: the keys are not those of an error: %s", a.what, a.body)
		}
	}
	if a.status != status || !strings.Contains(f.Message, phrase) {
		a.t.Errorf("%s: status %d, want %d with %q: %s", a.what, a.status, status, phrase, a.body)
	}
	if a.header.Get("Content-Type") != "application/json" || a.header.Get("F7T-AppVersion") != firecrest.CompatibilityLevel ||
		a.header.Get("F7T-Timestamp") == "" || a.header.Get("F7T-ErrorCode") == "" {
		a.t.Errorf("%s: headers %v", a.what, a.header)
	}
	return f
}
