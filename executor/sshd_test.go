package executor_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/internal/loginnode"
)

// A cluster is an executor with one real sshd.
type cluster struct {
	*loginnode.Node
	ca       *authority // who signs, unless somebody elsewhere does
	from     credentials
	audit    *recorder
	executor *executor.Executor
	caller   identity.Identity
	user     string
}

// startNode starts a real sshd that trusts the CA keys.
func startNode(t testing.TB, trusted []byte, cfg loginnode.Config) *loginnode.Node {
	t.Helper()
	if os.Geteuid() == 0 && len(cfg.Users) == 0 {
		cfg.Users = []loginnode.User{{Name: "alice", Shell: "/bin/bash"}}
	}
	cfg.TrustedUserCAKeys = trusted
	node, err := loginnode.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sshd:\n%s", node.Log())
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

func newCluster(t testing.TB, node loginnode.Config, change func(*executor.Config)) *cluster {
	t.Helper()
	c := &cluster{ca: newAuthority(t), audit: &recorder{}}
	c.from = newCredentials(t, c.ca)
	c.Node = startNode(t, c.from.trusted, node)
	c.user = c.Users()[0]
	c.caller = c.from.person("test", "sub-"+c.user, c.user)
	cfg := executor.Config{
		Systems: []executor.System{{
			Name: "hpc", Nodes: []string{c.Addr()}, KnownHosts: []string{c.KnownHosts()}, Grace: time.Second,
		}},
		Credentials: c.from, Audit: c.audit,
	}
	cfg.Systems[0].Sessions = executor.Sessions(os.Getenv("SALLYPORT_TEST_SESSIONS"))
	if change != nil {
		change(&cfg)
	}
	var err error
	if c.executor, err = executor.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.executor.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) run(t testing.TB, cmd executor.Command) executor.Result {
	t.Helper()
	r, err := c.executor.Run(t.Context(), c.caller, "hpc", cmd)
	if err != nil {
		t.Fatalf("%q: %v", cmd.Line, err)
	}
	return r
}

// gone waits until no process of the user is left on the node.
func (c *cluster) gone(t *testing.T) {
	t.Helper()
	var left []loginnode.Process
	for range 40 {
		var err error
		if left, err = c.Processes(c.user); err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond) // a real process is leaving
	}
	t.Errorf("processes are left: %+v", left)
}

func TestSSHDReportsEveryExitCode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	var wg sync.WaitGroup
	codes := make(chan int)
	for range 16 {
		wg.Go(func() {
			for code := range codes {
				r, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{Line: fmt.Sprintf("exit %d", code)})
				if err != nil || r.ExitCode != code || r.Signal != "" {
					t.Errorf("exit %d came back as %d, signal %q: %v", code, r.ExitCode, r.Signal, err)
				}
			}
		})
	}
	for code := range 256 {
		codes <- code
	}
	close(codes)
	wg.Wait()
}

func TestSSHDReportsSignals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	for _, name := range []string{"TERM", "KILL", "HUP", "ABRT"} {
		r := c.run(t, executor.Command{Line: "kill -" + name + " $$; sleep 5"})
		if r.Signal != name || r.ExitCode != -1 || r.TimedOut {
			t.Errorf("SIG%s came back as %q with exit code %d", name, r.Signal, r.ExitCode)
		}
	}
}

func TestSSHDStreamsAreCompleteAndNotMixed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	// 64 times 16 KiB on each stream in turn: 1 MiB of "o" lines and 1 MiB of "e" lines.
	line := `o=$(printf 'o%.0s' $(seq 16383)); e=$(printf 'e%.0s' $(seq 16383)); for i in $(seq 64); do echo "$o"; echo "$e" >&2; done`
	r := c.run(t, executor.Command{Line: line})
	wantOut := bytes.Repeat([]byte(strings.Repeat("o", 16383)+"\n"), 64)
	wantErr := bytes.Repeat([]byte(strings.Repeat("e", 16383)+"\n"), 64)
	if sha256.Sum256(r.Stdout) != sha256.Sum256(wantOut) || sha256.Sum256(r.Stderr) != sha256.Sum256(wantErr) {
		t.Errorf("got %d and %d bytes, want %d of each, or the content differs", len(r.Stdout), len(r.Stderr), len(wantOut))
	}
}

func TestSSHDInputAndBinaryOutput(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	if r := c.run(t, executor.Command{Line: "cat"}); len(r.Stdout) != 0 || r.ExitCode != 0 {
		t.Errorf("cat without input gave %q, %d", r.Stdout, r.ExitCode)
	}
	every := make([]byte, 256<<10)
	for i := range every {
		every[i] = byte(i ^ i>>8)
	}
	if r := c.run(t, executor.Command{Argv: []string{"cat"}, Stdin: bytes.NewReader(every)}); !bytes.Equal(r.Stdout, every) {
		t.Errorf("%d bytes came back as %d others", len(every), len(r.Stdout))
	}
	// A command that does not read its input must not be disturbed by it.
	if r := c.run(t, executor.Command{Line: "exec <&-; echo ok", Stdin: bytes.NewReader(every)}); string(r.Stdout) != "ok\n" {
		t.Errorf("stdout is %q", r.Stdout)
	}
}

func TestSSHDEnvironmentAndWorkdir(t *testing.T) {
	t.Parallel()
	users := []loginnode.User{{Name: "alice", Shell: "/bin/bash"}, {Name: "bob", Shell: "/bin/dash"}}
	if os.Geteuid() != 0 {
		users = nil
	}
	c := newCluster(t, loginnode.Config{Users: users}, nil)
	env := map[string]string{"SECRET": "it's $HOME `id` \\ \"q\" !!\nsecond line\n", "_x1": "\xff\x01\x7f", "EMPTY": ""}
	for _, user := range c.Users() {
		caller := c.from.person("test", "sub-"+user, user)
		r, err := c.executor.Run(t.Context(), caller, "hpc", executor.Command{
			Argv: []string{"sh", "-c", `printf '%s|%s|%s|' "$SECRET" "$_x1" "${EMPTY-unset}"; pwd; cat; tr '\0' ' ' </proc/$PPID/cmdline; ps -ef >&2`},
			Env:  env, Workdir: "/usr/../usr", Stdin: strings.NewReader("input\n"),
		})
		want := env["SECRET"] + "|" + env["_x1"] + "||/usr\ninput\n"
		if err != nil || !strings.HasPrefix(string(r.Stdout), want) {
			t.Errorf("%s: got %q, %v; want %q", user, r.Stdout, err, want)
		}
		if strings.Contains(string(r.Stderr), "second line") || !strings.Contains(string(r.Stderr), "printf") {
			t.Errorf("%s: process list is\n%s", user, r.Stderr)
		}
	}
	r := c.run(t, executor.Command{Line: "echo a; echo b", Workdir: "nowhere"})
	if r.ExitCode != 126 || len(r.Stdout) != 0 {
		t.Errorf("in a missing workdir: exit code %d, stdout %q", r.ExitCode, r.Stdout)
	}
	r = c.run(t, executor.Command{Line: "mkdir -p -- '-' && cd -- ./- && pwd"})
	if r2 := c.run(t, executor.Command{Line: "pwd", Workdir: "-"}); !bytes.Equal(r.Stdout, r2.Stdout) {
		t.Errorf("workdir - is %q, want %q", r2.Stdout, r.Stdout)
	}
}

func TestSSHDArgvReachesTheProgramUnchanged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	argv := []string{"printf", `%s\0`, "", " ", "a b", "it's", `"$HOME"`, "`id`", "\\", "-n", "*", "~", "!!", "new\nline", "\x01\x7f\xff", ";", "ü"}
	r := c.run(t, executor.Command{Argv: argv})
	if got := strings.Split(strings.TrimSuffix(string(r.Stdout), "\x00"), "\x00"); !slices.Equal(got, argv[2:]) {
		t.Errorf("got %q, want %q", got, argv[2:])
	}
	if r = c.run(t, executor.Command{Argv: []string{"no-such-program"}}); r.ExitCode != 127 {
		t.Errorf("a missing program gave exit code %d", r.ExitCode)
	}
}

func TestSSHDTimeoutLeavesNoProcess(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ line, signal string }{
		"plain":            {"sleep 600", "TERM"},
		"pipeline":         {"sleep 600 | cat | sleep 601", "TERM"},
		"child and parent": {"sleep 600 & sleep 601; wait", "TERM"},
		"ignores TERM":     {`trap "" TERM; sleep 600; sleep 601`, "KILL"},
		"reads forever":    {"cat /dev/zero", "TERM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, loginnode.Config{}, nil)
			r := c.run(t, executor.Command{Line: test.line, Timeout: 300 * time.Millisecond})
			if !r.TimedOut || r.Signal != test.signal || r.ExitCode != -1 {
				t.Errorf("result %+v", r.Start)
				t.Errorf("timed out %v, signal %q, exit code %d", r.TimedOut, r.Signal, r.ExitCode)
			}
			c.gone(t)
		})
	}
}

func TestSSHDLeavingCallerLeavesNoProcess(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := c.executor.Run(ctx, c.caller, "hpc", executor.Command{
		Line: "echo started; sleep 600", Stdout: writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }),
	})
	if !errors.Is(err, context.Canceled) || r.Signal != "TERM" || r.TimedOut {
		t.Errorf("got %v, signal %q", err, r.Signal)
	}
	c.gone(t)
	// A reader of the output that fails is the same.
	broken := errors.New("client is gone")
	_, err = c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{
		Line: "yes", Stdout: writerFunc(func([]byte) (int, error) { return 0, broken }),
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	c.gone(t)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestSSHDParallelCommandsOfOneUser is the case in which others fail: more
// commands at once than sshd allows sessions.
func TestSSHDParallelCommandsOfOneUser(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]struct{ node, configured int }{
		"as configured": {10, 10},
		"lower":         {3, 10},
		"one":           {1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, loginnode.Config{MaxSessions: limits.node}, func(cfg *executor.Config) {
				cfg.Systems[0].MaxSessions = limits.configured
			})
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() {
					r, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{Line: fmt.Sprintf("echo %d", i)})
					if err != nil || string(r.Stdout) != fmt.Sprintf("%d\n", i) {
						t.Errorf("command %d: %q, %v", i, r.Stdout, err)
					}
				})
			}
			wg.Wait()
			all := c.executor.Stats()
			stats := all.Pools["hpc"]
			if stats.Open > 4 || stats.Leases > all.Sessions.Warm { // each warm session has one
				t.Errorf("pool %+v, sessions %+v", stats, all.Sessions)
			}
			if learned := stats.Refusals > 0; learned != (limits.node < limits.configured) {
				t.Errorf("%d sessions were refused", stats.Refusals)
			}
		})
	}
}

func TestSSHDNeverSharesAConnectionBetweenTwoPeople(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	people := map[string]identity.Identity{
		"v1:test:sub-one":  c.from.person("test", "sub-one", c.user),
		"v1:test:sub-two":  c.from.person("test", "sub-two", c.user),
		"v1:other:sub-one": c.from.person("other", "sub-one", c.user),
	}
	ports := make(map[string]string)
	for range 3 {
		for id, caller := range people {
			r, err := c.executor.Run(t.Context(), caller, "hpc", executor.Command{Line: "echo $SSH_CONNECTION"})
			if err != nil {
				t.Fatal(err)
			}
			connection := string(r.Stdout)
			if before, ok := ports[id]; ok && before != connection {
				t.Errorf("%s had %q, then %q", id, before, connection)
			}
			ports[id] = connection
		}
	}
	if distinct := slices.Compact(slices.Sorted(maps.Values(ports))); len(distinct) != len(people) {
		t.Errorf("connections are %q", ports)
	}
	for id := range people {
		// A real CA's key ID goes on with the login and the request.
		if log := c.Log(); !strings.Contains(log, "ID "+id+" (serial ") && !strings.Contains(log, "ID "+id+":"+c.user+":") {
			t.Errorf("sshd has not seen %s", id)
		}
	}
}

func TestSSHDRefusesTheCredential(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{MaxAuthTries: 1}, nil)
	if err := c.SetTrustedUserCAKeys(newAuthority(t).bundle()); err != nil {
		t.Fatal(err)
	}
	_, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{Line: "true"})
	if !errors.Is(err, executor.ErrLoginRefused) {
		t.Errorf("got %v", err)
	}
	if n := len(c.audit.events); n != 0 {
		t.Errorf("%d events for a command that was not started", n)
	}
	if isElsewhere() {
		return // what follows needs a CA that signs what it must not; see credential's own tests
	}
	// A certificate without principals is not even tried, and sshd refuses it too.
	if err := c.SetTrustedUserCAKeys(c.from.trusted); err != nil {
		t.Fatal(err)
	}
	c.ca.change = func(cert *ssh.Certificate) { cert.ValidPrincipals = nil }
	other := identitytest.IdentityFrom(t, "test", "other", c.user, time.Hour)
	if _, err = c.executor.Run(t.Context(), other, "hpc", executor.Command{Line: "true"}); !errors.Is(err, executor.ErrNoCredential) {
		t.Errorf("got %v", err)
	}
	if err := rawLogin(t, c); err == nil {
		t.Error("sshd accepted a certificate without principals")
	}
	c.ca.change = nil
	if err := rawLogin(t, c); err != nil {
		t.Errorf("sshd refused a good certificate: %v", err)
	}
}

// rawLogin logs in with a credential of the test's authority, whatever it is.
func rawLogin(t *testing.T, c *cluster) error {
	t.Helper()
	credential, err := c.ca.Credential(t.Context(), c.caller, executor.Node{})
	if err != nil {
		t.Fatal(err)
	}
	verify, err := knownhosts.New(c.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", c.Addr(), &ssh.ClientConfig{
		User: c.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(credential.Signer)}, HostKeyCallback: verify,
	})
	if err != nil {
		return err
	}
	return client.Close()
}

func TestSSHDHostKeys(t *testing.T) {
	t.Parallel()
	for name, node := range map[string]loginnode.Config{
		"ed25519":           {},
		"ed25519 and rsa":   {SecondHostKey: "rsa"},
		"ed25519 and ecdsa": {SecondHostKey: "ecdsa"},
		"host CA":           {HostCA: true},
		"host CA and rsa":   {HostCA: true, SecondHostKey: "rsa"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, node, nil)
			if r := c.run(t, executor.Command{Line: "exit 3"}); r.ExitCode != 3 {
				t.Errorf("exit code %d", r.ExitCode)
			}
			// Whichever one of the keys is known, the host can be verified.
			known, err := os.ReadFile(c.KnownHosts())
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(strings.TrimSpace(string(known)), "\n") {
				if err := os.WriteFile(c.KnownHosts(), []byte(line+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				other := c.from.person("test", fmt.Sprint(i), c.user)
				if _, err := c.executor.Run(t.Context(), other, "hpc", executor.Command{Line: "true"}); err != nil {
					t.Errorf("with only %q: %v", line, err)
				}
			}
		})
	}
}

func TestSSHDWithAnotherHostKeyIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	wrong := newSigner(t).PublicKey()
	line := fmt.Sprintf("[%s]:%s %s", "127.0.0.1", c.Addr()[strings.LastIndex(c.Addr(), ":")+1:], ssh.MarshalAuthorizedKey(wrong))
	if err := os.WriteFile(c.KnownHosts(), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{Line: "true"})
	if !errors.Is(err, executor.ErrHostKey) || !strings.Contains(err.Error(), ssh.FingerprintSHA256(wrong)) || !strings.Contains(err.Error(), c.Addr()) {
		t.Errorf("got %v", err)
	}
	if strings.Contains(c.Log(), "Accepted publickey") {
		t.Error("the executor logged in")
	}
}

func TestSSHDJumpHost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	gateway := startNode(t, c.from.trusted, loginnode.Config{Extra: "AllowTcpForwarding yes\n"})
	x, err := executor.New(executor.Config{
		Systems: []executor.System{{
			Name: "hpc", Nodes: []string{c.Addr()}, Jump: gateway.Addr(),
			KnownHosts: []string{c.KnownHosts(), gateway.KnownHosts()},
		}},
		Credentials: c.from, Audit: c.audit,
		Pool: executor.PoolLimits{IdleTimeout: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for i := range 3 {
		r, err := x.Run(t.Context(), c.caller, "hpc", executor.Command{Line: "cat", Stdin: strings.NewReader("through")})
		if err != nil || string(r.Stdout) != "through" {
			t.Fatalf("%q, %v", r.Stdout, err)
		}
		// The jump host's connection goes with the node's.
		if left := sockets(t, gateway.Addr(), 0); left != 0 {
			t.Errorf("round %d: %d connections to the jump host are left", i, left)
		}
	}
	if n := strings.Count(gateway.Log(), "Accepted publickey"); n != 3 {
		t.Errorf("%d logins on the jump host", n)
	}
}

// sockets counts the established TCP connections of this machine to an address,
// after waiting for them to become as few as wanted.
func sockets(t *testing.T, address string, want int) int {
	t.Helper()
	_, port, _ := strings.Cut(address, ":")
	var n int
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	remote := fmt.Sprintf("0100007F:%04X 01", number) // /proc/net/tcp: remote address, state ESTABLISHED
	for range 60 {
		table, err := os.Open("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(table)
		_ = table.Close()
		if err != nil {
			t.Fatal(err)
		}
		if n = strings.Count(string(text), remote); n <= want {
			return n
		}
		time.Sleep(50 * time.Millisecond) // the kernel's view of a real socket
	}
	return n
}

func TestSSHDRebootIsAnUnknownOutcomeAndNothingMore(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	started := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		_, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{
			Line: "sleep 600", Started: func(executor.Start) { close(started) },
		})
		result <- err
	}()
	<-started
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, executor.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if r := c.run(t, executor.Command{Line: "echo up"}); string(r.Stdout) != "up\n" {
		t.Errorf("afterwards: %+v", r)
	}
}

func TestSSHDFrozenIsFoundByTheProbe(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, func(cfg *executor.Config) {
		cfg.Pool.ProbeInterval, cfg.Pool.ProbeTimeout = 100*time.Millisecond, 500*time.Millisecond
	})
	started := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		_, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{
			Line: "sleep 600", Started: func(executor.Start) { close(started) },
		})
		result <- err
	}()
	<-started
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, executor.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if r := c.run(t, executor.Command{Line: "echo on a new connection"}); r.ExitCode != 0 {
		t.Errorf("afterwards: %+v", r)
	}
}
