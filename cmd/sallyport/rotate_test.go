package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/ca"
	"sallyport/identity"
	"sallyport/internal/loginnode"
)

// A cluster is a service with three real nodes, which pull its bundle.
type cluster struct {
	*installation
	nodes   []*loginnode.Node
	pulling []atomic.Bool // one for each node
	user    string        // of the callers
}

// newCluster starts a service whose certificates live for ttl, and whose nodes
// pull within one second.
func newCluster(t *testing.T, ttl time.Duration, issuers ...identity.IssuerConfig) *cluster {
	t.Helper()
	in, trusted := initialize(t)
	c := &cluster{installation: in, pulling: make([]atomic.Bool, 3)}
	probe := ""
	for i := range c.pulling {
		cfg := loginnode.Config{TrustedUserCAKeys: trusted}
		if os.Geteuid() == 0 {
			cfg.Users = []loginnode.User{{Name: "alice"}, {Name: "probe"}}
		}
		node, err := loginnode.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { check(t, node.Close()) })
		users := node.Users()
		c.nodes, c.user, probe = append(c.nodes, node), users[0], users[len(users)-1]
		c.pulling[i].Store(true)
	}
	c.serveCluster(t, ttl, probe, issuers)
	ctx, stop := context.WithCancel(t.Context())
	var pullers sync.WaitGroup
	for i := range c.nodes {
		pullers.Go(func() { c.pull(ctx, t, i) })
	}
	t.Cleanup(func() { stop(); pullers.Wait() })
	return c
}

func (c *cluster) configPath() string { return filepath.Join(c.dir, "data", "sallyport.toml") }

func (c *cluster) serveCluster(t *testing.T, ttl time.Duration, probe string, issuers []identity.IssuerConfig) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "[server]\nlisten = \"127.0.0.1:0\"\n[ca.rotation]\nprobe_login = %q\nprobe_interval = \"1s\"\npull_interval = \"1s\"\nmax_skew = \"1s\"\n", probe)
	for _, i := range issuers {
		fmt.Fprintf(&text, "[[issuers]]\nalias = %q\nurl = %q\naudiences = [%q]\nallow_http = true\n", i.Alias, i.URL, i.Audiences[0])
	}
	var addresses, known []string
	for _, n := range c.nodes {
		addresses, known = append(addresses, fmt.Sprintf("%q", n.Addr())), append(known, fmt.Sprintf("%q", n.KnownHosts()))
	}
	fmt.Fprintf(&text, "[[systems]]\nname = \"daint\"\nnodes = [%s]\nknown_hosts = [%s]\n", strings.Join(addresses, ", "), strings.Join(known, ", "))
	check(t, replaceFile(c.configPath(), []byte(text.String())))
	f, err := loadConfig(c.configPath(), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	f.CA.Profiles.Executor.DefaultTTL, f.CA.Profiles.Executor.MaxTTL = ttl, ttl // shorter than people may configure
	keys, err := loadCAKey(streams{getenv: noEnv}, f)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	d, err := newDaemon(f, keys, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	address, done := filepath.Join(c.dir, "address"), make(chan error, 1)
	go func() { done <- serve(ctx, d, f, log, address, unconfined) }()
	t.Cleanup(func() {
		stop()
		check(t, <-done)
		check(t, d.close())
	})
	line, err := awaitFile(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	c.url = "http://" + line
}

// pull is the smallest updater: it copies the bundle to a node whenever it changes.
func (c *cluster) pull(ctx context.Context, t *testing.T, node int) {
	last := make(map[string][]byte)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for path, set := range map[string]func([]byte) error{
			"/v1/ca/revoked-keys":         c.nodes[node].SetRevokedKeys,
			"/v1/ca/trusted-user-ca-keys": c.nodes[node].SetTrustedUserCAKeys,
		} {
			text, err := c.fetch(ctx, path)
			if err == nil && c.pulling[node].Load() && !bytes.Equal(text, last[path]) {
				check(t, set(text))
				last[path] = text
			}
		}
	}
}

// fetch gets a file; it fails when the service is stopping.
func (c *cluster) fetch(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer closeBody(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// ca runs a command of "sallyport ca" and returns what it prints.
func (c *cluster) ca(ctx context.Context, args ...string) (string, error) {
	var out, complaints strings.Builder
	code := run(ctx, append(append([]string{"ca"}, args...), "--config", c.configPath()),
		streams{in: strings.NewReader(""), out: &out, err: &complaints, getenv: noEnv})
	if code != 0 {
		return out.String(), fmt.Errorf("exit code %d: %s", code, complaints.String())
	}
	return out.String(), nil
}

func (c *cluster) status(t *testing.T) (status ca.RingStatus) {
	t.Helper()
	out, err := c.ca(t.Context(), "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &status)
	}
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func activeKey(s ca.RingStatus) string {
	for _, k := range s.Keys {
		if k.State == ca.KeyActive {
			return k.Fingerprint
		}
	}
	return ""
}

// load has clients run commands until stop is called, which returns how many ran.
func (c *cluster) load(t *testing.T, clients int, tokens []string) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ran atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				want := fmt.Sprintf("%d.%d\n", i, n)
				// The command itself is never cut off: each must succeed.
				got, err := c.exec(context.WithoutCancel(ctx), tokens[i%len(tokens)], "echo "+strings.TrimSpace(want))
				if err != nil || got.Stdout != want {
					t.Errorf("client %d, command %d: %+v, %v", i, n, got, err)
					return
				}
				ran.Add(1)
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	return func() int64 {
		cancel()
		all.Wait()
		return ran.Load()
	}
}

func TestThreeRotationsUnderLoadLoseNoCommand(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	c := newCluster(t, 3*time.Second, issuer.IssuerConfig("centre"))
	var tokens []string
	for i := range 12 {
		token, err := issuer.Mint(map[string]any{"sub": fmt.Sprintf("person-%d", i), "preferred_username": c.user})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	stop := c.load(t, 50, tokens)
	used := map[string]bool{activeKey(c.status(t)): true}
	for range 3 {
		out, err := c.ca(t.Context(), "rotate", "--reason", "planned")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, node := range c.nodes {
			if strings.Count(out, "probe     daint "+node.Addr()) < 2 {
				t.Errorf("no progress of node %s:\n%s", node.Addr(), out)
			}
		}
		now := activeKey(c.status(t))
		if used[now] {
			t.Errorf("key %s is used again", now)
		}
		used[now] = true
	}
	if ran := stop(); ran < 500 {
		t.Errorf("only %d commands ran", ran)
	}
	c.mustBeRotated(t, 3)
}

// mustBeRotated looks at what is left after a number of rotations.
func (c *cluster) mustBeRotated(t *testing.T, times int) {
	t.Helper()
	s := c.status(t)
	retired := 0
	for _, k := range s.Keys {
		if k.State == ca.KeyRetired {
			retired++
		}
	}
	if retired != times || len(s.Keys) != times+1 || s.Next.Step != "" {
		t.Errorf("after %d rotations: %+v, next %+v", times, s.Keys, s.Next)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "data", "ca_key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the first private key is still there: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(c.dir, "data", "keys"))
	if err != nil || len(left) != 1 {
		t.Errorf("private keys: %v, %v; want that of the active key", left, err)
	}
	for _, n := range s.Nodes {
		if n.Canary == nil || n.Canary.Outcome != ca.Refused {
			t.Errorf("node %s accepts a revoked certificate: %+v", n.Address, n.Canary)
		}
		if n.BundleSeen != s.Version || n.SkewSeconds == nil || *n.SkewSeconds > 1 || *n.SkewSeconds < -1 {
			t.Errorf("node %+v at bundle %d", n, s.Version)
		}
	}
}

func TestARotationThatIsKilledGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2*time.Second, startIssuer(t).IssuerConfig("centre"))
	binary := filepath.Join(t.TempDir(), "sallyport") // testscript.Main runs the program under this name
	if err := os.Symlink(os.Args[0], binary); err != nil {
		t.Fatal(err)
	}
	before := activeKey(c.status(t))
	for attempt := 1; ; attempt++ {
		now := c.status(t)
		if now.Next.Step == "" && activeKey(now) != before {
			break
		}
		args := []string{"ca", "rotate", "--config", c.configPath()}
		if now.Next.Step != "" { // the first attempts may not live long enough to begin
			args = append(args, "--resume")
		}
		// Each attempt lives a little longer, so that the kills fall everywhere.
		life, cancel := context.WithTimeout(t.Context(), time.Duration(attempt)*150*time.Millisecond)
		out, err := exec.CommandContext(life, binary, args...).CombinedOutput()
		cancel()
		// One that ends well as its life ends was killed too late: Wait reports that as the context's error.
		tooLate := errors.Is(err, context.DeadlineExceeded)
		if err != nil && !tooLate && !strings.Contains(err.Error(), "killed") || attempt == 60 {
			t.Fatalf("attempt %d: %v\n%s", attempt, err, out)
		}
	}
	c.mustBeRotated(t, 1)
}

func TestACompromisedKeyIsCutOffAndTheStandbySigns(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	c := newCluster(t, time.Minute, issuer.IssuerConfig("centre"))
	token, err := issuer.Mint(map[string]any{"preferred_username": c.user})
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.exec(t.Context(), token, "true")
	if err != nil {
		t.Fatal(err)
	}
	bad := activeKey(c.status(t))
	for _, args := range [][]string{{"stage", "--standby"}, {"publish"}} {
		if out, err := c.ca(t.Context(), args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	eventually(t, "every node trusts the standby", func() bool {
		_, err := c.ca(t.Context(), "probe")
		return err == nil
	})
	if _, err := c.ca(t.Context(), "compromise", bad); err == nil || !strings.Contains(err.Error(), "give --reason") {
		t.Errorf("compromise without a reason: %v", err)
	}
	out, err := c.ca(t.Context(), "compromise", bad, "--reason", "laptop stolen")
	if err != nil || !strings.Contains(out, "1 connection of the key closed") || !strings.Contains(out, "What only people can do now") {
		t.Fatalf("%v\n%s", err, out)
	}
	after, err := c.exec(t.Context(), token, "true")
	if err != nil || after.Serial == before.Serial {
		t.Errorf("after the compromise: %+v, %v", after, err)
	}
	eventually(t, "every node follows", func() bool {
		_, err := c.ca(t.Context(), "probe")
		return err == nil
	})
	for _, node := range c.nodes {
		trusted, err := os.ReadFile(node.TrustedUserCAKeys())
		if err != nil || bytes.Count(trusted, []byte("\n")) != 1 {
			t.Errorf("%s trusts %q, %v", node.Addr(), trusted, err)
		}
	}
	if _, err := c.ca(t.Context(), "activate", bad); err == nil {
		t.Error("a compromised key was activated")
	}
}
