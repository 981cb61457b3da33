package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/identity"
	"sallyport/internal/idp"
	"sallyport/internal/loginnode"
	"sallyport/store/audit"
)

// An installation is a whole service in this process with a real sshd as its
// node. The node's users are alice and bob, or without root the current one.
type installation struct {
	dir  string
	url  string
	node *loginnode.Node
	jump *loginnode.Node // nil: none
	// server and issuer are more keys of those tables; extra is more text of the
	// configuration: whole tables.
	server, issuer, extra string
}

// install starts a service that believes the given issuers.
func install(t *testing.T, sshd loginnode.Config, issuers ...identity.IssuerConfig) *installation {
	t.Helper()
	in, trusted := initialize(t)
	in.node = startNode(t, sshd, trusted)
	in.serve(t, issuers)
	return in
}

// initialize makes a data folder; trusted is its CA's public key.
func initialize(t *testing.T) (in *installation, trusted []byte) {
	t.Helper()
	in = &installation{dir: t.TempDir()}
	if err := runInit(streams{out: io.Discard, err: io.Discard, getenv: noEnv}, filepath.Join(in.dir, "data"), initOptions{keyType: "ed25519"}); err != nil {
		t.Fatal(err)
	}
	trusted, err := os.ReadFile(filepath.Join(in.dir, "data", "ca_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return in, trusted
}

func startNode(t *testing.T, sshd loginnode.Config, trusted []byte) *loginnode.Node {
	t.Helper()
	sshd.TrustedUserCAKeys = trusted
	if os.Geteuid() == 0 {
		sshd.Users = []loginnode.User{{Name: "alice"}, {Name: "bob"}}
	}
	node, err := loginnode.Start(t.Context(), sshd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, node.Close()) })
	return node
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func (in *installation) serve(t *testing.T, issuers []identity.IssuerConfig) {
	t.Helper()
	path := filepath.Join(in.dir, "data", "sallyport.toml")
	if err := replaceFile(path, []byte(in.config(issuers))); err != nil {
		t.Fatal(err)
	}
	f, err := loadConfig(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	key, err := loadCAKey(streams{getenv: noEnv}, f)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	d, err := newDaemon(f, key, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	address, done := filepath.Join(in.dir, "address"), make(chan error, 1)
	go func() { done <- serve(ctx, d, f, log, address, unconfined) }()
	t.Cleanup(func() {
		stop()
		check(t, <-done)
		check(t, d.close())
	})
	text, err := awaitFile(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	in.url = "http://" + text
	if f.Server.TLSCertificate != "" {
		in.url = "https://" + text
	}
}

func (in *installation) config(issuers []identity.IssuerConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[server]\nlisten = \"127.0.0.1:0\"\n%s", in.server)
	for _, i := range issuers {
		fmt.Fprintf(&b, "[[issuers]]\nalias = %q\nurl = %q\naudiences = [%q]\nallow_http = true\nmin_refresh_interval = \"1s\"\n", i.Alias, i.URL, i.Audiences[0])
		if i.Type != "" {
			fmt.Fprintf(&b, "type = %q\n", i.Type)
		}
		b.WriteString(in.issuer)
	}
	fmt.Fprintf(&b, "[[systems]]\nname = \"daint\"\nnodes = [%q]\n", in.node.Addr())
	if in.jump == nil {
		fmt.Fprintf(&b, "known_hosts = [%q]\n", in.node.KnownHosts())
	} else {
		fmt.Fprintf(&b, "jump = %q\nknown_hosts = [%q, %q]\n", in.jump.Addr(), in.node.KnownHosts(), in.jump.KnownHosts())
	}
	return b.String() + in.extra
}

// An answer is that of POST /v1/systems/{system}/exec.
type answer struct {
	User     string `json:"user"`
	ExitCode *int   `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Serial   string `json:"certificate_serial"`
}

func (in *installation) exec(ctx context.Context, token, line string) (answer, error) {
	c := &client{base: in.url, token: token, http: http.DefaultClient}
	var raw json.RawMessage
	if err := c.call(ctx, http.MethodPost, "/v1/systems/daint/exec", execBody{Command: line}, &raw); err != nil {
		return answer{}, err
	}
	var a answer
	return a, json.Unmarshal(raw, &a)
}

func TestTokenOfARealProviderRunsACommandOnARealNode(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(context.Context, string, ...string) (*idp.Provider, error){
		"dex":           idp.StartDex,
		"oidc-provider": idp.StartOIDCProvider,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			login := "alice"
			if os.Geteuid() != 0 {
				login = currentLogin(t)
			}
			provider, err := start(t.Context(), t.TempDir(), login)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { check(t, provider.Close()) })
			in := install(t, loginnode.Config{}, provider.IssuerConfig("centre"))
			token, err := provider.Token(t.Context(), login)
			if err != nil {
				t.Fatal(err)
			}
			got, err := in.exec(t.Context(), token, "id -un")
			if err != nil {
				t.Fatal(err)
			}
			if got.Stdout != login+"\n" || got.User != login || *got.ExitCode != 0 {
				t.Errorf("got %+v", got)
			}
			in.mustKnow(t, got.Serial)

			// The provider's key is replaced: new tokens are accepted without a
			// restart, and the old one is not.
			if err := provider.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			fresh, err := provider.Token(t.Context(), login)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "a token of the new key is accepted", func() bool {
				_, err := in.exec(t.Context(), fresh, "true")
				return err == nil
			})
			if _, err := in.exec(t.Context(), token, "true"); err == nil || !strings.Contains(err.Error(), "token_invalid") {
				t.Errorf("token of the retired key: got %v, want token_invalid", err)
			}
		})
	}
}

func currentLogin(t *testing.T) string {
	t.Helper()
	node, err := loginnode.Start(t.Context(), loginnode.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, node.Close()) }()
	return node.Users()[0]
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s it is not so: %s", what)
		}
	}
}

// mustKnow checks that sshd's log, the audit log and (by the admin command) the
// ledger know a certificate by the same serial and key ID.
func (in *installation) mustKnow(t *testing.T, serial string) {
	t.Helper()
	accepted := regexp.MustCompile(`Accepted publickey for \S+ .* ID (v1:\S+) \(serial ` + serial + `\) CA ED25519 SHA256:`)
	m := accepted.FindStringSubmatch(in.node.Log())
	if m == nil {
		t.Fatalf("sshd did not log serial %s:\n%s", serial, in.node.Log())
	}
	records, err := os.ReadFile(filepath.Join(in.dir, "data", "audit", "audit-000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"certificate.intent", "certificate.issued", "exec.start"} {
		found := false
		for line := range strings.Lines(string(records)) {
			found = found || strings.Contains(line, `"`+action+`"`) && strings.Contains(line, serial)
		}
		if !found {
			t.Errorf("the audit log has no %s for serial %s", action, serial)
		}
	}
	var out strings.Builder
	code := run(t.Context(), []string{"ca", "certificates", serial, "--config", filepath.Join(in.dir, "data", "sallyport.toml")},
		streams{in: strings.NewReader(""), out: &out, err: &out, getenv: noEnv})
	if code != 0 || !strings.Contains(out.String(), m[1]) {
		t.Errorf("the ledger does not know serial %s with key ID %s: %s", serial, m[1], out.String())
	}
}

func TestTwoHundredCommandsOfOneUserAtMaxSessionsTenAllAnswer(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	in := install(t, loginnode.Config{MaxSessions: 10}, issuer.IssuerConfig("centre"))
	user := in.node.Users()[0]
	token, err := issuer.Mint(map[string]any{"sub": user})
	if err != nil {
		t.Fatal(err)
	}
	const commands = 200
	var wg sync.WaitGroup
	errs := make([]error, commands)
	for i := range commands {
		wg.Go(func() {
			got, err := in.exec(t.Context(), token, fmt.Sprintf("echo %d", i))
			if err == nil && got.Stdout != fmt.Sprintf("%d\n", i) {
				err = fmt.Errorf("got %+v", got)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("command %d: %v", i, err)
		}
	}
	eventually(t, "every start and every end is in the audit log", func() bool {
		report, err := audit.Verify(filepath.Join(in.dir, "data", "audit"))
		if err != nil {
			t.Fatal(err)
		}
		return report.Events >= 2*commands
	})
}

func TestAJumpHostIsPassedWithACertificateOfItsOwn(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	in, trusted := initialize(t)
	in.node, in.jump = startNode(t, loginnode.Config{}, trusted), startNode(t, loginnode.Config{}, trusted)
	in.serve(t, []identity.IssuerConfig{issuer.IssuerConfig("centre")})
	user := in.node.Users()[0]
	token, err := issuer.Mint(map[string]any{"sub": user})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := in.exec(t.Context(), token, "id -un")
		if err != nil {
			t.Fatal(err)
		}
		if got.Stdout != user+"\n" {
			t.Errorf("got %+v", got)
		}
		in.mustKnow(t, got.Serial)
	}
	serial := regexp.MustCompile(`Accepted publickey .* \(serial (\d+)\)`)
	node, jump := serial.FindAllStringSubmatch(in.node.Log(), -1), serial.FindAllStringSubmatch(in.jump.Log(), -1)
	if len(node) != 1 || len(jump) != 1 || node[0][1] == jump[0][1] {
		t.Errorf("logins on the node %v, on the jump host %v; want one on each, with different certificates", node, jump)
	}
}
