package credential_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// A token that is bound to a key is not shown to anybody who could not use it.
func TestABoundTokenIsNotPassedOn(t *testing.T) {
	t.Parallel()
	issuer, err := identitytest.New(identitytest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{issuer.IssuerConfig("test")}, HTTPClient: issuer.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer verifier.Close()
	sum := sha256.Sum256([]byte("certificate"))
	token, err := issuer.Mint(map[string]any{"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := verifier.VerifyPresented(t.Context(), identity.Presentation{Token: token, Certificate: []byte("certificate")})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	cfg := credential.ServiceConfig{URL: server.URL, Expect: credential.Expectation{CAFingerprints: []string{"SHA256:" + strings.Repeat("A", 43)}}}
	remote, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: cfg})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	deic, err := credential.NewDeiC(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer deic.Close()
	type provider interface {
		Credential(ctx context.Context, caller identity.Identity, node executor.Node) (executor.Credential, error)
	}
	for _, p := range []provider{remote, deic} {
		_, err := p.Credential(t.Context(), caller, executor.Node{})
		if !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "bound to a key") {
			t.Errorf("%T: %v", p, err)
		}
	}
	if asked.Load() > 0 {
		t.Error("the service was asked")
	}
}
