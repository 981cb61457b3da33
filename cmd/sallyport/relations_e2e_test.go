package main

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/internal/fgaserver"
	"sallyport/internal/loginnode"
)

// A relationSite is a whole service with a real OpenFGA server, which knows no relation.
type relationSite struct {
	*installation
	*fgaserver.Server
	token string
	login string
}

func newRelationSite(t *testing.T, remember string) *relationSite {
	t.Helper()
	fga, err := fgaserver.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, fga.Close()) })
	issuer := startIssuer(t)
	in, trusted := initialize(t)
	secret := filepath.Join(in.dir, "data", "openfga.token")
	if err := os.WriteFile(secret, []byte(fgaserver.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	in.node = startNode(t, loginnode.Config{}, trusted)
	in.extra = fmt.Sprintf(`
[[systems]]
name = "eiger"
nodes = [%q]
known_hosts = [%q]
[firecrest]
enabled = true
[ca.compat]
ssh_keys = true
deic = "demo"
[policy.openfga]
url = %q
store = %q
token_file = %q
timeout = "3s"
remember = %q
`, in.node.Addr(), in.node.KnownHosts(), fga.URL, fga.Store, secret, remember)
	in.serve(t, []identity.IssuerConfig{issuer.IssuerConfig("centre")})
	s := &relationSite{installation: in, Server: fga, login: in.node.Users()[0]}
	if s.token, err = issuer.Mint(map[string]any{"sub": "s", "preferred_username": s.login}); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask returns the status and the body of an answer.
func (s *relationSite) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// What a server that says no to everything leaves is nothing: no call with a token is
// served, certificates in all three formats included, whatever the spelling.
func TestARelationIsNeededForEveryCall(t *testing.T) {
	t.Parallel()
	s := newRelationSite(t, "0s")
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line)))
	native := fmt.Sprintf(`{"public_key": %q}`, key)
	calls := []struct{ method, path, body, relation string }{
		{"GET", "/v1/whoami", "", "member"},
		{"HEAD", "/v1/whoami", "", "member"},
		{"GET", "/v1/systems", "", "member"},
		{"GET", "/status/systems", "", "member"},
		{"GET", "/STATUS/%73ystems/", "", "member"},
		{"POST", "/v1/certificates", native, "certificate_holder"},
		{"POST", "/api/v1/ssh-keys", `{"duration": "1min"}`, "certificate_holder"},
		{"POST", "/demo/sign", fmt.Sprintf(`{"PublicKey": %q, "OTT": %q}`, key, s.token), "certificate_holder"},
		{"POST", "/demo/signJSON", fmt.Sprintf(`{"PublicKey": %q, "OTT": %q}`, key, s.token), "certificate_holder"},
		{"GET", "/v1/systems/daint", "", "system"},
		{"POST", "/v1/systems/daint/exec", `{"argv": ["true"]}`, "system"},
		{"GET", "/status/DAINT/userinfo", "", "system"},
	}
	try := func(has string) {
		t.Helper()
		for _, c := range calls {
			status, body := s.ask(t, c.method, c.path, c.body)
			if allowed := status < 300; allowed != (c.relation == has) || !allowed && status != http.StatusForbidden {
				t.Errorf("with %q: %s %s: %d %s", has, c.method, c.path, status, body)
			}
		}
	}
	try("")
	for _, relation := range []string{"member", "certificate_holder"} {
		if err := s.Relate(t.Context(), s.login, relation); err != nil {
			t.Fatal(err)
		}
		try(relation)
		if err := s.Unrelate(t.Context(), s.login, relation); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Grant(t.Context(), s.login, "daint"); err != nil {
		t.Fatal(err)
	}
	try("system")
	// A system that there is not is told in the same words as one that is not for them.
	_, other := s.ask(t, "POST", "/v1/systems/eiger/exec", `{"argv": ["true"]}`)
	_, none := s.ask(t, "POST", "/v1/systems/eigen/exec", `{"argv": ["true"]}`)
	if a, b := withoutID(other), withoutID(none); a != b || !strings.Contains(a, "policy_denied") {
		t.Errorf("a system of others: %s\nno system:          %s", a, b)
	}
}

func withoutID(problem string) string {
	before, after, _ := strings.Cut(problem, `"request_id":"`)
	_, after, _ = strings.Cut(after, `"`)
	return before + after
}

// A list of systems shows those alone to which there is a relation.
func TestAListShowsNoSystemWithoutARelation(t *testing.T) {
	t.Parallel()
	s := newRelationSite(t, "0s")
	for _, err := range []error{s.Relate(t.Context(), s.login, "member"), s.Grant(t.Context(), s.login, "eiger")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/v1/systems", "/status/systems"} {
		status, body := s.ask(t, "GET", path, "")
		if lower := strings.ToLower(body); status != http.StatusOK || strings.Contains(lower, "daint") || !strings.Contains(lower, `"eiger"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, s.Thaw()) }()
	for _, path := range []string{"/v1/systems", "/v1/certificates"} {
		method := map[string]string{"/v1/certificates": "POST"}[path]
		if status, body := s.ask(t, method, path, "{}"); status != http.StatusServiceUnavailable || !strings.Contains(body, "policy_unavailable") {
			t.Errorf("%s of a server that does not answer: %d %s", path, status, body)
		}
	}
}
