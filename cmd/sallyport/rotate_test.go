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
	go func() { done <- serve(ctx, d, f, log, address) }()
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
