package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/httpapi/contract"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// good is the token that fakeTokens accepts, as alice.
const good = "good.token.of-alice"

// A wholeAnswer is what a client reads of an exec call.
type wholeAnswer struct {
	execAnswer
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	execAnswerEnd
}

// fakeTokens knows one good token, and an error for each other.
type fakeTokens struct {
	alice  identity.Identity
	errors map[string]error
}

func (f fakeTokens) VerifyPresented(_ context.Context, p identity.Presentation) (identity.Identity, error) {
	raw := p.Token
	if raw == good && !p.DPoP {
		return f.alice, nil
	}
	if err, ok := f.errors[raw]; ok {
		return identity.Identity{}, err
	}
	return identity.Identity{}, fmt.Errorf("%w: signature does not fit key %q", identity.ErrInvalidToken, "k1")
}

// fakeRunner has one system, "daint", and runs commands by a function.
type fakeRunner struct {
	run func(ctx context.Context, cmd executor.Command) (executor.Result, error)
}

var started = executor.Start{ID: "run-1", System: "daint", Node: "login1:22", User: "alice", CertificateSerial: 1<<63 - 1}

// Run moves what a test puts into the Result to the writers of an answer, as the
// contract of Command wants it; a stream's writers are the test's business.
func (f fakeRunner) Run(ctx context.Context, _ identity.Identity, _ string, cmd executor.Command) (executor.Result, error) {
	result, err := f.run(ctx, cmd)
	for w, text := range map[io.Writer][]byte{cmd.Stdout: result.Stdout, cmd.Stderr: result.Stderr} {
		if _, collects := w.(*collector); collects {
			_, writeErr := w.Write(text)
			err = errors.Join(err, writeErr)
		}
	}
	result.Stdout, result.Stderr = nil, nil
	return result, err
}

func (f fakeRunner) Systems(caller identity.Identity) []executor.SystemInfo {
	info, _ := f.System(caller, "daint")
	return []executor.SystemInfo{info}
}

func (f fakeRunner) System(caller identity.Identity, name string) (executor.SystemInfo, error) {
	if name != "daint" {
		return executor.SystemInfo{}, fmt.Errorf("%q: %w", name, executor.ErrUnknownSystem)
	}
	return executor.SystemInfo{
		Name: "daint", Description: "The big one", Nodes: []string{"login1:22", "login2:22"},
		User: caller.Login(), DefaultTimeout: time.Minute, MaxTimeout: time.Hour,
	}, nil
}

// fakeCA issues by a function.
type fakeCA struct {
	issue func(ca.Request) (*ssh.Certificate, error)
}

func (f fakeCA) Issue(_ context.Context, r ca.Request) (*ssh.Certificate, error) { return f.issue(r) }

func (f fakeCA) TrustBundle() []byte { return []byte("ssh-ed25519 AAAA ca\n") }

func (f fakeCA) RevocationList() []byte { return []byte("SSHKRL\n\x00") }

func (f fakeCA) RevocationVersion() uint64 { return 1 }

func (f fakeCA) AwaitRevocationList(ctx context.Context, _ uint64) { <-ctx.Done() }

// fakeDistributor publishes one manifest.
type fakeDistributor struct{ err error }

const fakeManifest = `{"format": 1, "ca": "x", "version": 7, "issued_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-03T03:04:05Z",
	"files": {"trusted_user_ca_keys": {"sha256": "00", "size": 20}, "revoked.krl": {"sha256": "00", "size": 8}}, "keys": []}`

func (f fakeDistributor) Manifest(context.Context) (text, signature []byte, err error) {
	return []byte(fakeManifest), []byte("-----BEGIN SSH SIGNATURE-----\n"), f.err
}

// fakeLedger has these rows.
type fakeLedger []ca.Issued

func (f fakeLedger) Ledger(context.Context) iter.Seq2[ca.Issued, error] {
	return func(yield func(ca.Issued, error) bool) {
		for _, row := range f {
			var err error
			if row.Serial == 0 {
				err = errors.New("row is damaged")
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func (f fakeLedger) Lookup(_ context.Context, serial uint64) (ca.Issued, error) {
	for _, row := range f {
		if row.Serial == serial {
			return row, nil
		}
	}
	return ca.Issued{}, ca.ErrNotFound
}

// trail is an audit log in memory that can fail.
type trail struct {
	mu     sync.Mutex
	err    error
	events []audit.Event
}

func (l *trail) Record(_ context.Context, e audit.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.events = append(l.events, e)
	}
	return l.err
}

func (l *trail) all() []audit.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]audit.Event(nil), l.events...)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// service is an API with fakes around it.
type service struct {
	t     testing.TB
	api   *API
	trail *trail
	log   *logBuffer

	url    string
	client *http.Client
}

// newService makes an API whose every exchange is held against its document.
func newService(t testing.TB, change func(*Config)) *service {
	t.Helper()
	s := &service{t: t, trail: &trail{}, log: &logBuffer{}, client: client}
	cfg := Config{
		Tokens: fakeTokens{alice: identitytest.Identity(t, "alice", time.Hour), errors: map[string]error{
			"tok.expired": fmt.Errorf("exp is over: %w", identity.ErrExpired),
			"tok.scope":   fmt.Errorf("no scope x: %w", identity.ErrScope),
			"tok.root":    fmt.Errorf("root is reserved: %w", identity.ErrNoLogin),
			"tok.outage":  fmt.Errorf("idp is down: %w", identity.ErrUnavailable),
			"tok.nobody":  nil,
		}},
		Commands: fakeRunner{func(context.Context, executor.Command) (executor.Result, error) {
			return executor.Result{Start: started, Stdout: []byte("hello\n"), Duration: 12 * time.Millisecond}, nil
		}},
		Certificates: fakeCA{func(ca.Request) (*ssh.Certificate, error) { return nil, ca.ErrUnavailable }},
		Distribution: fakeDistributor{},
		Compat:       Compat{SSHKeys: true, DeiC: "demoCA"},
		Approvals:    noApprovals{}, Approvers: administrators(t, "alice"),
		Audit:  s.trail,
		Logger: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	api, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	s.api = api
	return s
}

// serve starts it on loopback.
func (s *service) serve() *service {
	s.t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config = s.api.Server()
	server.Config.Handler = contract.Check(s.t, s.api.Handler())
	server.Start()
	s.t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func start(t testing.TB, change func(*Config)) *service {
	t.Helper()
	return newService(t, change).serve()
}

// An answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// client keeps nothing open, so that goleak has nothing to find.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// do sends one request; headers come as pairs. Those of a good JSON request are
// set unless the pairs say otherwise; an empty value removes one.
func (s *service) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+good)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: reading the answer: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

const execPath = "/v1/systems/daint/exec"

// problem reads a problem document.
func (a answer) problem(t testing.TB) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("no problem document: %v\n%s", err, a.body)
	}
	if p.Status != a.status {
		t.Errorf("status %d in the document, %d in the answer", p.Status, a.status)
	}
	return p
}

// wantProblem checks status and code.
func (a answer) wantProblem(t testing.TB, status int, code string) problem {
	t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("status %d, Content-Type %q: no problem document\n%s", a.status, ct, a.body)
	}
	p := a.problem(t)
	if a.status != status || p.Code != code {
		t.Errorf("got %d %s, want %d %s\n%s", a.status, p.Code, status, code, a.body)
	}
	return p
}

// golden compares with testdata/name; -update rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", name, diff)
	}
}
