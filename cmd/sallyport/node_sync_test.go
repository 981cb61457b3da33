package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/krl"
	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

// A syncer is one of the programs that keep a node's files up to date. All pass the same tests.
type syncer struct {
	name    string
	command func(t *testing.T, n *loginNode) []string
}

func syncers() []syncer {
	script := func(shell ...string) func(*testing.T, *loginNode) []string {
		return func(t *testing.T, n *loginNode) []string {
			t.Helper()
			path := filepath.Join(n.home, "sallyport-node-sync")
			mustWrite(t, path, sshdconfig.NodeSyncScript, 0o755)
			return append(shell, path)
		}
	}
	return []syncer{
		{"program", func(*testing.T, *loginNode) []string { return []string{"sallyport", "node", "sync"} }},
		{"sh", script("/bin/sh")},
		{"bash", script("bash", "--posix")},
		{"busybox", script("busybox", "sh")}, // whose own tools come before others
	}
}

// forEachSyncer runs a test with each program on a node of its own, which follows a mirror of its own.
func forEachSyncer(t *testing.T, test func(t *testing.T, n *loginNode)) {
	t.Helper()
	for _, s := range syncers() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, newLoginNode(t, s))
		})
	}
}

// A loginNode is the folder of a node, with the mirror that it follows.
type loginNode struct {
	home, dir string
	signer    ssh.Signer
	ca        ssh.Signer
	mirror    *mirror
	argv      []string
	env       []string
}

func newLoginNode(t *testing.T, s syncer) *loginNode {
	t.Helper()
	home := t.TempDir()
	n := &loginNode{home: home, dir: filepath.Join(home, "node"), signer: newKey(t), ca: newKey(t), mirror: startMirror(t)}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(n.dir, nodesync.SignersFile), []byte(nodesync.SignersLine(n.signer.PublicKey())), 0o644)
	n.env = append(os.Environ(), "GORACE=atexit_sleep_ms=0",
		"SALLYPORT_URL="+n.mirror.url, "SALLYPORT_NODE_DIR="+n.dir, "SALLYPORT_NODE_SSHD=none")
	n.argv = s.command(t, n)
	return n
}

// sync runs the program and returns its exit code and what it said.
func (n *loginNode) sync(t *testing.T, env ...string) (int, string) {
	t.Helper()
	return n.run(t, n.argv, env...)
}

func (n *loginNode) run(t *testing.T, argv []string, env ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(slices.Clip(n.env), env...)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return 0, string(out)
}

func (n *loginNode) mustSync(t *testing.T) string {
	t.Helper()
	code, out := n.sync(t)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	return out
}

// content is every file of the node's folder, and its mode, but for the signers.
func (n *loginNode) content(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if e.Name() == nodesync.SignersFile {
			continue
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(n.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = fmt.Sprintf("%v\n%s", info.Mode(), text)
	}
	return files
}

// A state is what a CA publishes.
type state struct {
	version int64
	trust   []byte
	list    []byte
	keys    []nodesync.Key
	canary  string
	expires time.Time
}

// state is one in which the node's CA is active, more keys are trusted, and some serials are revoked.
func (n *loginNode) state(t *testing.T, version int64, revoked []uint64, more ...ssh.Signer) state {
	t.Helper()
	s := state{version: version, expires: time.Now().Add(time.Hour)}
	for i, key := range append([]ssh.Signer{n.ca}, more...) {
		s.trust = append(s.trust, bytes.TrimSpace(ssh.MarshalAuthorizedKey(key.PublicKey()))...)
		s.trust = append(s.trust, " sallyport-user-ca\n"...)
		s.keys = append(s.keys, nodesync.Key{Fingerprint: ssh.FingerprintSHA256(key.PublicKey()), State: []string{"active", "pending"}[min(i, 1)]})
	}
	s.list = revocationList(t, n.ca.PublicKey(), version, revoked...)
	return s
}

func revocationList(t *testing.T, authority ssh.PublicKey, version int64, serials ...uint64) []byte {
	t.Helper()
	list := krl.List{Version: uint64(version), Generated: time.Unix(1_700_000_000, 0)}
	if len(serials) > 0 {
		var ranges []krl.Range
		for _, s := range serials {
			ranges = append(ranges, krl.Range{First: s, Last: s})
		}
		revoked, err := krl.NewSerials(ranges...)
		if err != nil {
			t.Fatal(err)
		}
		list.Certificates = append(list.Certificates, krl.Certificates{CA: authority, Serials: revoked})
	}
	out, err := list.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// publish puts a state on the mirror, signed.
func (n *loginNode) publish(t *testing.T, s state) {
	t.Helper()
	text := s.manifest(t)
	n.mirror.set(map[string][]byte{
		nodesync.ManifestPath: text, nodesync.SignaturePath: signature(t, n.signer, nodesync.Namespace, text),
		nodesync.TrustPath: s.trust, nodesync.RevocationPath: s.list,
	})
}

func (s state) manifest(t *testing.T) []byte {
	t.Helper()
	expires := s.expires.UTC().Truncate(time.Second)
	text, err := nodesync.Manifest{
		CA: "test", Version: s.version, IssuedAt: expires.Add(-24 * time.Hour), ExpiresAt: expires,
		Trust: nodesync.Sum(s.trust), Revocation: nodesync.Sum(s.list), Keys: s.keys, Canary: s.canary,
	}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func signature(t *testing.T, signer ssh.Signer, namespace string, text []byte) []byte {
	t.Helper()
	sig, err := nodesync.Sign(signer, namespace, text)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// A mirror serves files by path.
type mirror struct {
	url string

	mu    sync.Mutex // guards the fields below
	files map[string][]byte
	base  string            // before each path
	after map[string]func() // run once, after the path was served
}

func startMirror(t *testing.T) *mirror {
	t.Helper()
	m := &mirror{after: map[string]func(){}}
	server := httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(server.Close)
	m.url = server.URL
	return m
}

func (m *mirror) set(files map[string][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = files
}

// change replaces one file by what f makes of it; nil removes it.
func (m *mirror) change(path string, f func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := maps.Clone(m.files)
	files[path] = f(bytes.Clone(files[path]))
	m.files = files
}

// once runs f after the path was served the next time.
func (m *mirror) once(path string, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after[path] = f
}

// under has all paths begin with base, wherever it is asked as a proxy too.
func (m *mirror) under(base string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base = base
}

func (m *mirror) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	path := strings.TrimPrefix(r.URL.Path, m.base)
	content, after := m.files[path], m.after[path]
	delete(m.after, path)
	m.mu.Unlock()
	switch {
	case content == nil:
		http.NotFound(w, r)
	case string(content) == "redirect":
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	default:
		_, _ = w.Write(content)
	}
	if after != nil {
		after()
	}
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func mustWrite(t *testing.T, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func TestANodeFollowsWhatIsPublished(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		first := n.state(t, 7, nil)
		n.publish(t, first)
		out := n.mustSync(t)
		if !strings.Contains(out, "version 7: replaced manifest.json manifest.json.sig revoked.krl trusted_user_ca_keys") {
			t.Errorf("said %q", out)
		}
		before := n.content(t)
		n.has(t, first)
		if len(before) != 4 {
			t.Errorf("the folder holds %d files, want 4: %q", len(before), before)
		}

		if out := n.mustSync(t); out != "" {
			t.Errorf("with nothing new it said %q", out)
		}

		second := n.state(t, 8, []uint64{4711}, newKey(t))
		n.publish(t, second)
		n.mustSync(t)
		n.has(t, second)
		for name, text := range before {
			if got := n.content(t)[name+".prev"]; got != text {
				t.Errorf("%s.prev is %q, want what was there before: %q", name, got, text)
			}
		}
	})
}

// has checks that the files in place are those of a state.
func (n *loginNode) has(t *testing.T, s state) {
	t.Helper()
	for name, want := range map[string][]byte{nodesync.TrustFile: s.trust, nodesync.RevocationFile: s.list, nodesync.ManifestFile: s.manifest(t)} {
		if got := n.content(t)[name]; got != "-rw-r--r--\n"+string(want) {
			t.Errorf("%s is %q, want mode 0644 and %q", name, got, want)
		}
	}
}

func TestDamagedFilesOnTheNodeAreRepaired(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		s := n.state(t, 7, []uint64{1})
		n.publish(t, s)
		n.mustSync(t)
		trust := filepath.Join(n.dir, nodesync.TrustFile)
		mustWrite(t, trust, append(s.trust, ssh.MarshalAuthorizedKey(newKey(t).PublicKey())...), 0o644)
		if err := os.Truncate(filepath.Join(n.dir, nodesync.RevocationFile), 0); err != nil {
			t.Fatal(err)
		}
		n.mustSync(t)
		n.has(t, s)
		if err := os.Chmod(trust, 0o666); err != nil {
			t.Fatal(err)
		}
		n.mustSync(t)
		n.has(t, s)
		if err := errors.Join(os.Rename(trust, trust+".elsewhere"), os.Symlink(trust+".elsewhere", trust)); err != nil {
			t.Fatal(err)
		}
		n.mustSync(t)
		n.has(t, s)
		if err := os.Remove(trust); err != nil {
			t.Fatal(err)
		}
		n.mustSync(t)
		n.has(t, s)
	})
}

func TestWhatIsPublishedBetweenTwoRequestsIsFetchedAgain(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		for i, path := range []string{nodesync.ManifestPath, nodesync.SignaturePath, nodesync.RevocationPath} {
			version := int64(10 * (i + 1))
			n.publish(t, n.state(t, version, nil))
			next := n.state(t, version+1, []uint64{5}, newKey(t))
			n.mirror.once(path, func() { n.publish(t, next) })
			n.mustSync(t)
			n.has(t, next)
		}
	})
}

func TestAfterACompromiseWithoutAStandbyNoKeyIsTrusted(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		n.publish(t, n.state(t, 7, nil))
		n.mustSync(t)
		list := krl.List{Version: 8, Generated: time.Unix(1_700_000_000, 0), Keys: []ssh.PublicKey{n.ca.PublicKey()}}
		revoked, err := list.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		s := state{version: 8, expires: time.Now().Add(time.Hour), list: revoked, trust: []byte{}}
		n.publish(t, s)
		n.mustSync(t)
		n.has(t, s)
		pending := n.state(t, 9, nil)
		pending.list, pending.keys[0].State = revoked, "pending"
		n.publish(t, pending)
		n.mustSync(t)
		n.has(t, pending)
	})
}
