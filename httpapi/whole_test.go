package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

// whole is a service without any fake: a token of a test issuer is verified, a
// certificate is issued and recorded, a node in memory is logged in to, and
// /bin/sh runs the command.
type whole struct {
	*service
	issuer    *identitytest.Issuer
	authority *ca.Authority
	node      *sshtest.Server
	auditDir  string
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{auditDir: filepath.Join(t.TempDir(), "audit")}
	var err error
	if w.issuer, err = identitytest.Start(identitytest.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.issuer.Close() })
	rule := w.issuer.IssuerConfig("test")
	rule.AllowHTTP = true
	verifier, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{rule}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { verifier.Close() })
	log, err := audit.Open(audit.Config{Dir: w.auditDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	authority, db, key := newAuthority(t, log)
	w.authority = authority
	cache, err := ca.NewCache(ca.CacheConfig{Authority: authority, Store: db})
	if err != nil {
		t.Fatal(err)
	}
	w.node = sshtest.New(sshtest.Config{
		Exec:       sshtest.RunProcess,
		TrustedCAs: func() []ssh.PublicKey { return []ssh.PublicKey{key.PublicKey()} },
	})
	const address = "login1.example:22"
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(knownhosts.Line([]string{address}, w.node.HostKey())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runner, err := executor.New(executor.Config{
		Systems:     []executor.System{{Name: "hpc", Nodes: []string{address}, KnownHosts: []string{known}}},
		Credentials: credential.NewBuiltin(cache, cache), Audit: log,
		Dial: func(context.Context, string) (net.Conn, error) { return w.node.Dial() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := runner.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := w.node.Close(); err != nil {
			t.Error(err)
		}
	})
	w.service = start(t, func(c *Config) {
		c.Tokens, c.Commands, c.Certificates, c.Ledger, c.Audit = verifier, runner, authority, authority, log
		c.Checks = []Check{{"identity", verifier.Ready}}
	})
	return w
}

// as sends a request with a fresh token of login.
func (w *whole) as(login, method, path, body string, headers ...string) answer {
	w.t.Helper()
	token, err := w.issuer.Mint(map[string]any{"sub": "sub-" + login, "preferred_username": login})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(method, path, body, append(headers, "Authorization", "Bearer "+token)...)
}

func TestATokenGoesInAndTheOutputOfACommandComesOut(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	a := w.as("alice", "POST", "/v1/systems/hpc/exec",
		`{"command":"read line; echo \"got $line\"; echo oops >&2; exit 7","stdin":"a b\n"}`, "X-Request-Id", "whole-1")
	var got wholeAnswer
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if *got.ExitCode != 7 || got.Stdout != "got a b\n" || got.Stderr != "oops\n" || got.User != "alice" || got.Node != "login1.example:22" {
		t.Errorf("answer %s", a.body)
	}

	// The certificate of that login is known to node, ledger and audit log.
	logins := w.node.Logins()
	if len(logins) != 1 || *serialOf(logins[0].Serial) != *got.CertificateSerial {
		t.Fatalf("logins %+v, answer %s", logins, a.body)
	}
	row, err := w.authority.Lookup(t.Context(), logins[0].Serial)
	if err != nil || row.KeyID != logins[0].KeyID || row.Login != "alice" || row.RequestID != a.header.Get("Sallyport-Request-Id") {
		t.Errorf("ledger row %+v, %v", row, err)
	}
	var log []byte
	for deadline := time.Now().Add(20 * time.Second); !bytes.Contains(log, []byte("exec.end")); {
		if time.Now().After(deadline) {
			t.Fatalf("20 s after the answer the end is not in the audit log:\n%s", log)
		}
		if log, err = os.ReadFile(filepath.Join(w.auditDir, "audit-000001.jsonl")); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"certificate.intent", "certificate.issued", "exec.start", `"sallyport.client_request_id":"whole-1"`, `"http.request.id":"` + row.RequestID, *got.CertificateSerial} {
		if !strings.Contains(string(log), want) {
			t.Errorf("%q is not in the audit log:\n%s", want, log)
		}
	}
}

func TestTheWholeServiceStreamsAndRefuses(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	a := w.as("alice", "POST", "/v1/systems/hpc/exec", `{"argv":["/bin/sh","-c","printf 1; printf 2 >&2; kill -KILL $$"]}`, "Accept", mediaNDJSON)
	events := strings.Join(eventsOf(t, a.body), " ")
	if events != "start stdout stderr exit" && events != "start stderr stdout exit" || !strings.Contains(a.body, `"exit_code":null,"signal":"KILL"`) {
		t.Errorf("stream:\n%s", a.body)
	}
	if a := w.as("alice", "POST", "/v1/certificates", jsonOf(t, map[string]any{"public_key": newKey(t)})); a.status != http.StatusCreated {
		t.Errorf("certificate: %d %s", a.status, a.body)
	}
	if a := w.as("alice", "GET", "/v1/whoami", ""); !strings.Contains(a.body, `"login":"alice"`) {
		t.Errorf("whoami: %s", a.body)
	}
	if a := w.as("alice", "GET", "/v1/systems", ""); !strings.Contains(a.body, `"name":"hpc"`) {
		t.Errorf("systems: %s", a.body)
	}
	if a := w.do("GET", "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("readyz: %d %s", a.status, a.body)
	}
	w.as("root", "GET", "/v1/whoami", "").wantProblem(t, 403, "login_refused")
	w.as("alice", "GET", "/v1/systems/other", "").wantProblem(t, 404, "system_unknown")
	w.as("alice", "POST", "/v1/systems/hpc/exec", `{"command":"x","env":{"A=B":"1"}}`).wantProblem(t, 422, "command_invalid")
	w.as("alice", "POST", "/v1/systems/hpc/exec", `{"command":"x\u0000y"}`).wantProblem(t, 422, "command_invalid")
	w.as("alice", "POST", "/v1/systems/hpc/exec", `{"command":"x","timeout":"9000h"}`).wantProblem(t, 422, "command_invalid")
	if a := w.as("alice", "POST", "/v1/systems/hpc/exec", `{"command":"sleep 60","timeout":"200ms"}`); !strings.Contains(a.body, `"timed_out":true`) {
		t.Errorf("timeout: %d %s", a.status, a.body)
	}
	old, err := w.issuer.Mint(map[string]any{"exp": time.Now().Add(-time.Hour).Unix(), "iat": time.Now().Add(-2 * time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	w.do("GET", "/v1/whoami", "", "Authorization", "Bearer "+old).wantProblem(t, 401, "token_expired")
}

func TestAClientThatLeavesAStreamEndsTheProcess(t *testing.T) {
	t.Parallel()
	w := newWhole(t)
	token, err := w.issuer.Mint(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", w.url+"/v1/systems/hpc/exec", strings.NewReader(`{"command":"echo here; sleep 1000"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", mediaSSE)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), "here") {
		continue
	}
	if now, _ := w.node.Execs(); now != 1 {
		t.Fatalf("%d commands run", now)
	}
	leave()
	resp.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // real processes
		if now, _ := w.node.Execs(); now == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command still runs")
		}
	}
}
