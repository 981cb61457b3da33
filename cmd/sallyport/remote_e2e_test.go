package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/identity/identitytest"
	"sallyport/internal/loginnode"
	"sallyport/store/audit"
)

// A process is a real one: "sallyport serve" in a data folder of its own.
type process struct {
	t    *testing.T
	dir  string
	role string
	url  string
	cmd  *exec.Cmd
	log  textLog
}

// A textLog can be read while it is written.
type textLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *textLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *textLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs the service and waits until it answers. It can be called again
// after stop.
func (p *process) start() {
	p.t.Helper()
	address := filepath.Join(p.dir, "address")
	if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command("sallyport", "serve", "--role", p.role, "--config", filepath.Join(p.dir, "sallyport.toml"), "--address-file", address)
	p.cmd.Stderr = &p.log
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	text, err := awaitFile(ctx, address)
	if err != nil {
		p.stop(syscall.SIGKILL)
		p.t.Fatalf("%s does not answer: %v\n%s", p.role, err, p.log.String())
	}
	p.url = "http://" + text
}

func (p *process) stop(how os.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	check(p.t, p.cmd.Process.Signal(how))
	err := p.cmd.Wait()
	if how == syscall.SIGTERM {
		check(p.t, err)
	}
	p.cmd = nil
}

// A split is a CA and an executor as two processes, with a real sshd.
type split struct {
	*installation // of the executor
	ca, executor  *process
	issuer        *identitytest.Issuer
}

// A splitConfig says what is not as usual.
type splitConfig struct {
	format string // "remote" or "deic"
	sshd   loginnode.Config
	jump   bool
}

// newSplit starts both.
func newSplit(t *testing.T, cfg splitConfig) *split {
	t.Helper()
	in, trusted := initialize(t)
	s := &split{issuer: startIssuer(t), installation: &installation{dir: t.TempDir(), node: startNode(t, cfg.sshd, trusted)}}
	if cfg.jump {
		s.jump = startNode(t, loginnode.Config{}, trusted)
	}
	issuers := fmt.Sprintf("[[issuers]]\nalias = \"centre\"\nurl = %q\naudiences = [\"sallyport\"]\nallow_http = true\n", s.issuer.URL())

	s.ca = &process{t: t, dir: filepath.Join(in.dir, "data"), role: "ca"}
	formats := issuers + "[ca.compat]\nssh_keys = true\ndeic = \"sallyport\"\n"
	if cfg.jump {
		formats += "profile = \"user\"\n[ca.profiles.user]\nextensions = [\"permit-port-forwarding\"]\n"
	}
	s.write(t, s.ca, "127.0.0.1:0", formats)
	s.ca.start()
	t.Cleanup(func() { s.ca.stop(syscall.SIGTERM) })
	s.write(t, s.ca, strings.TrimPrefix(s.ca.url, "http://"), formats)

	s.executor = &process{t: t, dir: filepath.Join(s.dir, "data"), role: "executor"}
	if err := os.Mkdir(s.executor.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.executor.dir, "trusted.pub"), trusted, 0o600); err != nil {
		t.Fatal(err)
	}
	s.write(t, s.executor, "127.0.0.1:0", issuers+s.executorConfig(cfg.format))
	s.executor.start()
	t.Cleanup(func() { s.executor.stop(syscall.SIGTERM) })
	s.url = s.executor.url
	return s
}

func (s *split) executorConfig(format string) string {
	base, extensions, system := s.ca.url, "[]", fmt.Sprintf("known_hosts = [%q]\n", s.node.KnownHosts())
	if format == "deic" {
		base += "/sallyport"
	}
	if s.jump != nil {
		extensions = `["permit-port-forwarding"]`
		system = fmt.Sprintf("jump = %q\nknown_hosts = [%q, %q]\n", s.jump.Addr(), s.node.KnownHosts(), s.jump.KnownHosts())
	}
	return fmt.Sprintf(`
[executor]
credentials = %q
[executor.remote]
url = %q
ca_keys = "trusted.pub"
ttl = "5m"
extensions = %s
[[systems]]
name = "daint"
nodes = [%q]
grace = "1s"
%s`, format, base, extensions, s.node.Addr(), system)
}

func (s *split) write(t *testing.T, p *process, listen, text string) {
	t.Helper()
	text = fmt.Sprintf("[server]\nlisten = %q\n", listen) + text
	if err := os.WriteFile(filepath.Join(p.dir, "sallyport.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *split) token(t *testing.T, login string) string {
	t.Helper()
	token, err := s.issuer.Mint(map[string]any{"sub": "sub-" + login, "preferred_username": login})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A whole answer of the exec call.
type wholeAnswer struct {
	User      string  `json:"user"`
	ExitCode  *int    `json:"exit_code"`
	Signal    *string `json:"signal"`
	Stdout    string  `json:"stdout"`
	Stderr    string  `json:"stderr"`
	Encoding  string  `json:"encoding"`
	TimedOut  bool    `json:"timed_out"`
	Truncated bool    `json:"truncated"`
	Serial    string  `json:"certificate_serial"`
}

func (s *split) run(t *testing.T, token string, body map[string]any) wholeAnswer {
	t.Helper()
	var a wholeAnswer
	c := &client{base: s.url, token: token, http: http.DefaultClient}
	if err := c.call(t.Context(), http.MethodPost, "/v1/systems/daint/exec", body, &a); err != nil {
		t.Fatalf("%v: %v\n%s", body, err, s.executor.log.String())
	}
	return a
}

// The executor's behaviours, as they are with the built-in CA.
func TestAnExecutorBehindACAElsewhereBehavesAsWithItsOwn(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"remote", "deic"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			s := newSplit(t, splitConfig{format: format, sshd: loginnode.Config{MaxSessions: 10}})
			user := s.node.Users()[0]
			token := s.token(t, user)
			s.results(t, token, user)
			s.streams(t, token)
			s.timeouts(t, token, user)
			s.parallel(t, token)
			if users := s.node.Users(); len(users) > 1 {
				if a := s.run(t, s.token(t, users[1]), map[string]any{"argv": []string{"id", "-un"}}); a.Stdout != users[1]+"\n" {
					t.Errorf("the second user is %+v", a)
				}
			}
			s.records(t, s.run(t, token, map[string]any{"argv": []string{"true"}}).Serial)
			s.secrets(t, token)
		})
	}
}

func (s *split) results(t *testing.T, token, user string) {
	t.Helper()
	code := func(n int) *int { return &n }
	kill := "KILL"
	for name, c := range map[string]struct {
		body map[string]any
		want wholeAnswer
	}{
		"success":   {map[string]any{"argv": []string{"id", "-un"}}, wholeAnswer{ExitCode: code(0), Stdout: user + "\n"}},
		"failure":   {map[string]any{"command": "echo out; echo err >&2; exit 7"}, wholeAnswer{ExitCode: code(7), Stdout: "out\n", Stderr: "err\n"}},
		"last code": {map[string]any{"command": "exit 255"}, wholeAnswer{ExitCode: code(255)}},
		"not found": {map[string]any{"command": "/nowhere/at-all 2>/dev/null"}, wholeAnswer{ExitCode: code(127)}},
		"signal":    {map[string]any{"command": "kill -KILL $$"}, wholeAnswer{Signal: &kill}},
		"quoting":   {map[string]any{"argv": []string{"printf", "%s|", "a  b", "$HOME", "`id`", "it's", ""}}, wholeAnswer{ExitCode: code(0), Stdout: "a  b|$HOME|`id`|it's||"}},
		"stdin":     {map[string]any{"argv": []string{"wc", "-c"}, "stdin": strings.Repeat("x", 300_000)}, wholeAnswer{ExitCode: code(0), Stdout: "300000\n"}},
		"no stdin":  {map[string]any{"argv": []string{"cat"}}, wholeAnswer{ExitCode: code(0)}},
		"env": {
			map[string]any{"command": "echo $GREETING from $(pwd)", "env": map[string]string{"GREETING": "it's $me"}, "workdir": "/tmp"},
			wholeAnswer{ExitCode: code(0), Stdout: "it's $me from /tmp\n"},
		},
		"truncated": {map[string]any{"command": "head -c 100000 /dev/zero | tr '\\0' x", "max_output_bytes": 10}, wholeAnswer{ExitCode: code(0), Stdout: "xxxxxxxxxx", Truncated: true}},
		"binary": {
			map[string]any{"command": `printf '\377\000'`},
			wholeAnswer{ExitCode: code(0), Stdout: base64.StdEncoding.EncodeToString([]byte{0xff, 0}), Encoding: "base64"},
		},
	} {
		got := s.run(t, token, c.body)
		c.want.User, c.want.Serial = user, got.Serial
		if c.want.Encoding == "" {
			c.want.Encoding = "utf-8"
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(c.want)
		if got.Serial == "" || !bytes.Equal(a, b) {
			t.Errorf("%s: got\n%s, want\n%s", name, a, b)
		}
	}
}

// streams checks that frames come as they happen and that a client who leaves
// ends its command.
func (s *split) streams(t *testing.T, token string) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	body := `{"command": "echo one; echo two >&2; exec sleep 1234"}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/systems/daint/exec", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	seen := map[string]string{}
	lines := bufio.NewScanner(resp.Body)
	for (seen["stdout"] == "" || seen["stderr"] == "") && lines.Scan() {
		var frame struct{ Event, Data string }
		if err := json.Unmarshal(lines.Bytes(), &frame); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		seen[frame.Event] += frame.Data
	}
	if _, begun := seen["start"]; !begun || seen["stdout"] != "one\n" || seen["stderr"] != "two\n" {
		t.Fatalf("frames %q", seen)
	}
	eventually(t, "the command runs while its frames are read", func() bool { return s.running(t, "sleep 1234") })
	leave()
	eventually(t, "the command of a client that left has ended", func() bool { return !s.running(t, "sleep 1234") })
}

func (s *split) running(t *testing.T, command string) bool {
	t.Helper()
	list, err := s.node.Processes(s.node.Users()[0])
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(p loginnode.Process) bool { return p.Command == command })
}

func (s *split) timeouts(t *testing.T, token, user string) {
	t.Helper()
	began := time.Now()
	a := s.run(t, token, map[string]any{"command": "echo begun; exec sleep 4321", "timeout": "1s"})
	if !a.TimedOut || a.ExitCode != nil || a.Signal == nil || *a.Signal != "TERM" || a.Stdout != "begun\n" || a.User != user {
		t.Errorf("timeout: %+v", a)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a timeout of 1 s took %s", took)
	}
	eventually(t, "the command has ended on the node", func() bool { return !s.running(t, "sleep 4321") })
}

func (s *split) parallel(t *testing.T, token string) {
	t.Helper()
	const commands = 200
	var wg sync.WaitGroup
	errs := make([]error, commands)
	for i := range commands {
		wg.Go(func() {
			got, err := s.exec(t.Context(), token, fmt.Sprintf("echo %d", i))
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
}

// records checks that the CA's ledger and the node know the certificate that the
// executor's answer names, and that the request's id went along.
func (s *split) records(t *testing.T, serial string) {
	t.Helper()
	if log := s.node.Log(); !strings.Contains(log, "(serial "+serial+") CA ED25519") {
		t.Errorf("sshd does not know serial %s", serial)
	}
	var out strings.Builder
	code := run(t.Context(), []string{"ca", "certificates", serial, "--config", filepath.Join(s.ca.dir, "sallyport.toml")},
		streams{in: strings.NewReader(""), out: &out, err: &out, getenv: noEnv})
	if code != 0 || !strings.Contains(out.String(), "v1:centre:sub-") {
		t.Errorf("the CA's ledger does not know serial %s: %s", serial, out.String())
	}
	theirs, ours := readAudit(t, s.ca, "sallyport.client_request_id"), readAudit(t, s.executor, "http.request.id")
	shared := 0
	for id := range theirs {
		if ours[id] {
			shared++
		}
	}
	if shared == 0 {
		t.Errorf("no request id is in both audit logs: the CA has %v", theirs)
	}
}

// readAudit returns the values of a field in an audit log, which it verifies.
func readAudit(t *testing.T, p *process, field string) map[string]bool {
	t.Helper()
	dir := filepath.Join(p.dir, "audit")
	if report, err := audit.Verify(dir); err != nil || report.Events == 0 {
		t.Errorf("audit log of %s: %+v, %v", p.role, report, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "audit-000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(line, `"`+field+`":"`)
		id, _, _ := strings.Cut(rest, `"`)
		ids[id] = id != ""
	}
	delete(ids, "")
	return ids
}

// secrets checks that the executor has no CA key, and that no log has a token or a
// private key.
func (s *split) secrets(t *testing.T, token string) {
	t.Helper()
	err := filepath.WalkDir(s.executor.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if entry.Name() == auditKey { // its own, which signs its own audit log
			text = bytes.Replace(text, []byte("BEGIN OPENSSH PRIVATE KEY"), nil, 1)
			text = bytes.Replace(text, []byte("END OPENSSH PRIVATE KEY"), nil, 1)
		}
		if bytes.Contains(text, []byte("PRIVATE KEY")) || bytes.Contains(text, []byte(token)) {
			t.Errorf("%s holds a private key or a token", path)
		}
		return err
	})
	check(t, err)
	if log := s.ca.log.String(); !strings.Contains(log, "private keys are sent over the network") {
		t.Errorf("the CA does not warn of a format that ships private keys:\n%s", log)
	}
	for _, p := range []*process{s.ca, s.executor} {
		if log := p.log.String(); strings.Contains(log, token) || strings.Contains(log, "PRIVATE KEY") {
			t.Errorf("the log of %s has a secret", p.role)
		}
	}
}

func TestAnExecutorPassesAJumpHostIfTheCAElsewhereLetsIt(t *testing.T) {
	t.Parallel()
	s := newSplit(t, splitConfig{format: "deic", jump: true})
	user := s.node.Users()[0]
	if a := s.run(t, s.token(t, user), map[string]any{"argv": []string{"id", "-un"}}); a.Stdout != user+"\n" {
		t.Errorf("got %+v", a)
	}
	for name, node := range map[string]*loginnode.Node{"node": s.node, "jump host": s.jump} {
		if n := strings.Count(node.Log(), "Accepted publickey"); n != 1 {
			t.Errorf("%d logins on the %s", n, name)
		}
	}
}

func TestAnExecutorOutlivesItsCA(t *testing.T) {
	t.Parallel()
	s := newSplit(t, splitConfig{format: "remote"})
	user := s.node.Users()[0]
	token := s.token(t, user)
	s.run(t, token, map[string]any{"argv": []string{"true"}})
	s.ca.stop(syscall.SIGKILL)
	// The open connection serves as long as its certificate is good.
	s.run(t, token, map[string]any{"argv": []string{"true"}})
	// Another person on the same account needs a certificate, which nobody makes.
	other, err := s.issuer.Mint(map[string]any{"sub": "somebody-else", "preferred_username": user})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.exec(t.Context(), other, "true"); err == nil || !strings.Contains(err.Error(), "node_unavailable") {
		t.Errorf("without a CA: %v", err)
	}
	s.ca.start()
	eventually(t, "the CA is asked again", func() bool {
		_, err := s.exec(t.Context(), other, "true")
		return err == nil
	})
}

func TestAnExecutorDoesNotBelieveAnotherCA(t *testing.T) {
	t.Parallel()
	s := newSplit(t, splitConfig{format: "deic"})
	_, foreign := initialize(t)
	if err := os.WriteFile(filepath.Join(s.executor.dir, "trusted.pub"), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.exec(t.Context(), s.token(t, s.node.Users()[0]), "true")
	if err == nil || !strings.Contains(err.Error(), "credential_refused") {
		t.Errorf("got %v, want credential_refused", err)
	}
	eventually(t, "the log says why", func() bool { return strings.Contains(s.executor.log.String(), "no CA that is expected") })
	if strings.Contains(s.node.Log(), "Accepted publickey") {
		t.Error("the executor logged in all the same")
	}
}
