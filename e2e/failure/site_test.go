// Package failure breaks, one after the other, what a running Sallyport depends on, and
// compares what its callers see with docs/failures.md. All parts are real: the binary,
// built with the race detector, sshd, and a network that fails on demand between them.
package failure

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/identity/identitytest"
	"sallyport/internal/faultproxy"
	"sallyport/internal/loginnode"
)

// binary is the program under test.
var binary string //nolint:gochecknoglobals // made once, by TestMain

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "failure-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "sallyport")
	if out, err := exec.Command("go", "build", "-race", "-o", binary, "sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const users = 4

// A site is a service with a login node behind a network that can fail.
type site struct {
	t       testing.TB
	dir     string
	node    *loginnode.Node
	network *faultproxy.Proxy
	issuer  *identitytest.Issuer
	tokens  []string
	metrics string // address of the metrics
	client  *http.Client

	mu      sync.Mutex // guards what follows
	service *service
	next    int // number of a command
}

// A service is one run of the binary.
type service struct {
	cmd     *exec.Cmd
	address string
	log     *logBuffer
	ended   chan struct{}
	err     error
}

// logBuffer collects what several goroutines write.
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

const configuration = `[server]
listen = "127.0.0.1:0"
drain_timeout = "20s"
[metrics]
listen = %[6]q
[audit]
dir = %[4]q
commands = %[5]t
caller_bytes_per_minute = 0
reserve_bytes = 0
[[rates]]
[[issuers]]
alias = "test"
url = %[1]q
audiences = ["sallyport"]
allow_http = true
[executor]
keepalive_interval = "1s"
keepalive_timeout = "2s"
wait_timeout = "10s"
idle_timeout = "5s"
[ca.profiles.executor]
default_ttl = "30s"
[[systems]]
name = "own"
nodes = [%[2]q]
known_hosts = [%[3]q]
connect_timeout = "3s"
grace = "1s"
sessions = "isolated"
[[systems]]
name = "warm"
nodes = [%[2]q]
known_hosts = [%[3]q]
connect_timeout = "3s"
grace = "1s"
sessions = "warm"
warm_after = 0
`

type option struct {
	node  loginnode.Config
	audit string // folder of the audit log; empty: in the data folder
	// commands has the audit log hold them.
	commands bool
}

// start starts everything.
func start(t testing.TB, o option) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a login node with users of its own needs root; CI has it")
	}
	s := &site{t: t, dir: t.TempDir(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	s.sallyport("init", s.data())
	trusted, err := os.ReadFile(filepath.Join(s.data(), "ca_key.pub"))
	s.must(err)
	o.node.TrustedUserCAKeys = trusted
	for i := range users {
		o.node.Users = append(o.node.Users, loginnode.User{Name: fmt.Sprintf("user%d", i), Shell: "/bin/bash"})
	}
	s.node, err = loginnode.Start(t.Context(), o.node)
	s.must(err)
	t.Cleanup(func() { s.must(s.node.Close()) })
	s.network, err = faultproxy.Start(s.node.Addr())
	s.must(err)
	t.Cleanup(func() { s.must(s.network.Close()) })
	s.issuer, err = identitytest.Start(identitytest.Config{})
	s.must(err)
	t.Cleanup(func() { _ = s.issuer.Close() }) // it may be closed already
	for i := range users {
		token, err := s.issuer.Mint(map[string]any{
			"sub": fmt.Sprintf("person-%d", i), "preferred_username": fmt.Sprintf("user%d", i), "exp": time.Now().Add(2 * time.Hour).Unix(),
		})
		s.must(err)
		s.tokens = append(s.tokens, token)
	}
	known, err := os.ReadFile(s.node.KnownHosts())
	s.must(err)
	_, nodePort, _ := net.SplitHostPort(s.node.Addr())
	_, port, _ := net.SplitHostPort(s.network.Addr())
	file := filepath.Join(s.dir, "known_hosts")
	s.must(os.WriteFile(file, bytes.ReplaceAll(known, []byte("]:"+nodePort), []byte("]:"+port)), 0o600))
	s.metrics = s.freePort()
	text := fmt.Sprintf(configuration, s.issuer.URL(), s.network.Addr(), file, cmp.Or(o.audit, "audit"), o.commands, s.metrics)
	s.must(os.WriteFile(s.config(), []byte(text), 0o600))
	s.serve()
	t.Cleanup(func() {
		s.stop()
		if log := s.service.log.String(); t.Failed() || strings.Contains(log, "DATA RACE") {
			t.Errorf("log of the service:\n%s", last(log, 6000))
		}
	})
	return s
}

func last(text string, n int) string { return text[max(0, len(text)-n):] }

func (s *site) data() string   { return filepath.Join(s.dir, "data") }
func (s *site) config() string { return filepath.Join(s.data(), "sallyport.toml") }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) freePort() string {
	l, err := new(net.ListenConfig).Listen(s.t.Context(), "tcp", "127.0.0.1:0")
	s.must(err)
	defer l.Close()
	return l.Addr().String()
}

// sallyport runs the binary to its end.
func (s *site) sallyport(args ...string) string {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), binary, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("sallyport %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// serve starts the service and waits until it is ready.
func (s *site) serve() {
	s.t.Helper()
	address := filepath.Join(s.dir, "address")
	_ = os.Remove(address) // of the last run
	v := &service{log: new(logBuffer), ended: make(chan struct{})}
	v.cmd = exec.Command(binary, "serve", "--config", s.config(), "--address-file", address)
	v.cmd.Stderr = v.log
	s.must(v.cmd.Start())
	go func() {
		v.err = v.cmd.Wait()
		close(v.ended)
	}()
	s.mu.Lock()
	s.service = v
	s.mu.Unlock()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // a real process
		text, err := os.ReadFile(address)
		if err != nil {
			continue
		}
		s.mu.Lock()
		v.address = strings.TrimSpace(string(text))
		s.mu.Unlock()
		if res, err := s.client.Get("http://" + v.address + "/readyz"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	s.t.Fatalf("the service does not start:\n%s", v.log)
}

// stop ends the service in order.
func (s *site) stop() {
	s.t.Helper()
	s.mu.Lock()
	v := s.service
	s.mu.Unlock()
	_ = v.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	select {
	case <-v.ended:
		if v.err != nil {
			s.t.Errorf("the service ended with %v", v.err)
		}
	case <-time.After(70 * time.Second): // drain_timeout, and 30 s for last words
		_ = v.cmd.Process.Signal(syscall.SIGQUIT) // it then shows what its goroutines wait for
		select {
		case <-v.ended:
		case <-time.After(5 * time.Second):
			_ = v.cmd.Process.Kill()
		}
		s.t.Errorf("the service does not end:\n%s", last(v.log.String(), 200_000))
	}
}

// kill ends it by force.
func (s *site) kill() {
	s.mu.Lock()
	v := s.service
	s.mu.Unlock()
	_ = v.cmd.Process.Kill()
	<-v.ended
}

// An answer is what a caller got.
type answer struct {
	id     int    // of the command
	status int    // 0: none, the connection broke
	code   string // of the problem
	retry  string
	result struct {
		ExitCode int    `json:"exit_code"`
		Signal   string `json:"signal"`
		TimedOut bool   `json:"timed_out"`
		Stdout   string `json:"stdout"`
	}
	took time.Duration
}

// ran says whether the answer means that the command has ended by itself.
func (a answer) ran() bool { return a.status == http.StatusOK }

// notStarted says whether it means that the command surely was not started.
func (a answer) notStarted() bool {
	return slices.Contains([]string{
		"node_unavailable", "busy", "caller_overloaded", "overloaded", "rate_limited", "audit_unavailable", "issuer_unavailable",
		"node_login_refused", "credential_refused", "ca_unavailable", "token_expired",
	}, a.code)
}

// exec has a user run a command that leaves its number in the file "ran" first.
func (s *site) exec(user int, system, command string) answer {
	s.mu.Lock()
	s.next++
	a, url := answer{id: s.next}, "http://"+s.service.address+"/v1/systems/"+system+"/exec"
	s.mu.Unlock()
	body, err := json.Marshal(map[string]any{"command": fmt.Sprintf("echo %d >>ran; %s", a.id, command), "timeout": "60s"})
	s.must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+s.tokens[user%users])
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	res, err := s.client.Do(req)
	if err != nil {
		a.took = time.Since(began)
		return a
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	a.took, a.status, a.retry = time.Since(began), res.StatusCode, res.Header.Get("Retry-After")
	var problem struct{ Code string }
	switch {
	case err != nil:
		a.status = 0
	case a.ran():
		s.must(json.Unmarshal(text, &a.result))
	default:
		if err := json.Unmarshal(text, &problem); err != nil || problem.Code == "" || problem.Code == "internal" {
			s.t.Errorf("answer %d is no good problem document: %s", a.status, text)
		}
		a.code = problem.Code
	}
	return a
}

// begin runs a command in the background, and returns when it has begun on the node.
func (s *site) begin(user int, system, command string) <-chan answer {
	s.t.Helper()
	result := make(chan answer, 1)
	before := len(s.ran(user))
	go func() { result <- s.exec(user, system, command) }()
	s.eventually("the command begins", func() bool { return len(s.ran(user)) > before })
	return result
}

// ran are the numbers of the commands that began on the node, in order.
func (s *site) ran(user int) []int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.node.Home(fmt.Sprintf("user%d", user%users)), "ran"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	var numbers []int
	for line := range strings.Lines(string(text)) {
		n, err := strconv.Atoi(strings.TrimSpace(line))
		s.must(err)
		numbers = append(numbers, n)
	}
	return numbers
}

// eventually waits for something that real processes do in their own time.
func (s *site) eventually(what string, done func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	s.t.Errorf("not so after 20 s: %s", what)
}

// processes are what runs on the node for all users.
func (s *site) processes() []string {
	s.t.Helper()
	var list []string
	for i := range users {
		found, err := s.node.Processes(fmt.Sprintf("user%d", i))
		s.must(err)
		for _, p := range found {
			list = append(list, p.Command)
		}
	}
	return list
}

// judge checks what holds whatever has failed: no command ran twice, what was answered
// ran, and what was refused did not.
func (s *site) judge(answers []answer) {
	s.t.Helper()
	times := make(map[int]int)
	for user := range users {
		for _, n := range s.ran(user) {
			times[n]++
		}
	}
	for id, n := range times {
		if n > 1 {
			s.t.Errorf("command %d ran %d times", id, n)
		}
	}
	for _, a := range answers {
		switch n := times[a.id]; {
		case a.ran() && n != 1:
			s.t.Errorf("command %d was answered and ran %d times", a.id, n)
		case a.notStarted() && n != 0:
			s.t.Errorf("command %d was refused (%s) and ran", a.id, a.code)
		}
	}
}

// clean checks that nothing is left on the node, once connections have gone idle.
func (s *site) clean() {
	s.t.Helper()
	s.eventually("no process is left on the node", func() bool { return len(s.processes()) == 0 })
	if left := s.processes(); len(left) > 0 {
		s.t.Errorf("left on the node: %q", left)
	}
	s.sallyport("audit", "verify", "--config", s.config())
}
