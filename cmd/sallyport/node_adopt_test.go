package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/sshd-config/nodesync"
)

// keeps checks that a run fails, says why, and changes nothing on the node.
func (n *loginNode) keeps(t *testing.T, says string, env ...string) {
	t.Helper()
	before := n.content(t)
	code, out := n.sync(t, env...)
	if code != 1 || !strings.Contains(out, says) {
		t.Errorf("exit code %d, said %q; want 1 and %q", code, out, says)
	}
	if diff := cmp.Diff(before, n.content(t)); diff != "" {
		t.Errorf("files changed:\n%s", diff)
	}
}

func (s state) until(expires time.Time) state {
	s.expires = expires
	return s
}

const longPast = -199 * 24 * time.Hour

// What a node has is its state: no file at all, the trust file without a manifest, an older version, the same one.
func TestAnExpiredManifestIsNeverAdoptedWhateverTheState(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		for _, past := range []time.Duration{-time.Second, -time.Minute, longPast} {
			n.publish(t, n.state(t, 7, nil, newKey(t)).until(time.Now().Add(past)))
			n.keeps(t, "so nothing is installed; look whether the service or a mirror is frozen")
			n.keeps(t, "the manifest has expired on", "SALLYPORT_NODE_AT_LEAST=7")
			n.keeps(t, "SALLYPORT_NODE_AT_LEAST")
		}
		if got := n.content(t); len(got) > 0 {
			t.Errorf("a new node has files: %v", got)
		}

		mustWrite(t, filepath.Join(n.dir, nodesync.TrustFile), []byte("# by hand\n"), 0o644)
		n.keeps(t, "so nothing is installed")

		first := n.state(t, 6, nil)
		n.publish(t, first)
		n.mustSync(t)
		n.publish(t, n.state(t, 7, nil, newKey(t)).until(time.Now().Add(longPast)))
		n.keeps(t, "it is not adopted; this node keeps version 6")
		n.has(t, first)
	})
}

func TestWhatIsInPlaceStaysPastItsEndWithAComplaint(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		s := n.state(t, 7, []uint64{1})
		n.publish(t, s)
		n.mustSync(t)
		old := s.until(time.Now().Add(-time.Minute))
		n.publish(t, old)
		mustWrite(t, filepath.Join(n.dir, nodesync.ManifestFile), old.manifest(t), 0o644) // time has passed
		mustWrite(t, filepath.Join(n.dir, nodesync.SignatureFile), signature(t, n.signer, nodesync.Namespace, old.manifest(t)), 0o644)
		n.keeps(t, "the manifest has expired on")
		n.has(t, old)
		check(t, os.Remove(filepath.Join(n.dir, nodesync.TrustFile))) // nor does it bring back what was lost
		n.keeps(t, "this node keeps version 7")

		next := n.state(t, 8, nil)
		n.publish(t, next)
		n.mustSync(t)
		n.has(t, next)
	})
}

func TestAManifestOfTheFutureIsRefusedBeyondSkew(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		const life = 24 * time.Hour // of what manifest() makes
		for _, ahead := range []time.Duration{15 * time.Minute, longPast.Abs(), 50 * 365 * 24 * time.Hour} {
			n.publish(t, n.state(t, 7, nil).until(time.Now().Add(life+ahead)))
			n.keeps(t, "the manifest was issued in the future")
		}
		near := n.state(t, 7, nil).until(time.Now().Add(life + 5*time.Minute))
		n.publish(t, near)
		n.mustSync(t)
		n.has(t, near)
		n.publish(t, n.state(t, 8, nil).until(time.Now().Add(life+time.Hour)))
		n.keeps(t, "it is not adopted; this node keeps version 7")
	})
}

func TestAFirstVersionCanBePinned(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		pin := func(v any) string { return fmt.Sprintf("SALLYPORT_NODE_AT_LEAST=%v", v) }
		old := n.state(t, 7, nil, newKey(t)) // a copy of yesterday that has not ended yet
		n.publish(t, old)
		n.keeps(t, "version 7 is offered, at least 8 must be", pin(8))
		for _, bad := range []string{"eight", "-1", "08", " 8", "8 9", "8;9", "9999999999999999", "99999999999999999999"} {
			if code, out := n.sync(t, pin(bad)); code == 0 || !strings.Contains(out, "version") {
				t.Errorf("%q: exit code %d, %s", bad, code, out)
			}
		}
		if got := n.content(t); len(got) > 0 {
			t.Fatalf("a new node has files: %v", got)
		}
		s := n.state(t, 8, nil)
		n.publish(t, s)
		if code, out := n.sync(t, pin(8)); code != 0 {
			t.Fatalf("exit code %d, %s", code, out)
		}
		n.has(t, s)
		n.keeps(t, "at least 9 must be", pin(9)) // a compromise is over: what the node has is too old, and stays until there is better
		n.publish(t, old)
		n.keeps(t, "version 7 is offered, version 8 is here", pin(1))
	})
}

// An address that is not this machine's own is never reached here: what counts is what is asked of it.
func TestOverPlainHTTPANewNodeWantsAVersion(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		s := n.state(t, 7, nil)
		n.publish(t, s)
		env := []string{"SALLYPORT_URL=http://mirror.example.org:8080/ssh", "http_proxy=" + n.mirror.url, "no_proxy="}
		n.mirror.under("/ssh")
		for _, url := range []string{env[0], "SALLYPORT_URL=http://127.0.0.1.example.org/ssh", "SALLYPORT_URL=http://localhost.example.org/ssh"} {
			n.keeps(t, "nobody says which version to expect", url, env[1], env[2])
		}
		if code, out := n.sync(t, append(env, "SALLYPORT_NODE_AT_LEAST=7")...); code != 0 {
			t.Fatalf("exit code %d, %s", code, out)
		}
		n.has(t, s)
		next := n.state(t, 8, nil)
		n.publish(t, next)
		if code, out := n.sync(t, env...); code != 0 { // it has a manifest to compare with
			t.Fatalf("exit code %d, %s", code, out)
		}
		n.has(t, next)
	})
}

func TestTheManifestBeforeCountsWhenTheOneInPlaceIsLost(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		for version := range int64(3) {
			n.publish(t, n.state(t, version+6, nil))
			n.mustSync(t)
		}
		state := filepath.Join(n.dir, nodesync.ManifestFile)
		check(t, os.Remove(state))
		n.publish(t, n.state(t, 6, nil))
		n.keeps(t, "version 6 is offered, version 7 is here")
		s := n.state(t, 8, nil)
		n.publish(t, s)
		n.mustSync(t)
		n.has(t, s)
	})
}

func TestAStateThatCannotBeReadRefusesAll(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		s := n.state(t, 7, nil)
		n.publish(t, s)
		n.mustSync(t)
		n.publish(t, n.state(t, 8, nil))
		good, path := s.manifest(t), filepath.Join(n.dir, nodesync.ManifestFile)
		for name, text := range map[string][]byte{
			"empty": {}, "half": good[:len(good)/2], "zeros": make([]byte, 300), "random": []byte("\xff\xfe\x00version\n"),
			"a version twice": twice(good, `"version": 7`), "a version of letters": bytes.Replace(good, []byte(": 7,"), []byte(": x,"), 1),
		} {
			mustWrite(t, path, text, 0o644)
			t.Run(name, func(t *testing.T) { n.keeps(t, "is damaged") })
		}
		check(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o755)))
		if code, out := n.sync(t); code != 1 {
			t.Errorf("a folder in its place: exit code %d, %s", code, out)
		}
	})
}

// twice has a line stand twice.
func twice(text []byte, part string) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		out = append(out, line...)
		if bytes.Contains(line, []byte(part)) {
			out = append(out, line...)
		}
	}
	return out
}

// Each of them is signed: what is refused is the form.
func TestManifestsOfAnotherFormAreRefusedOnANewNode(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		s := n.state(t, 7, nil, newKey(t))
		good := s.manifest(t)
		swap := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
		for name, text := range map[string][]byte{
			"truncated":               good[:len(good)-20],
			"without its last line":   good[:len(good)-2],
			"without a line feed":     bytes.TrimSuffix(good, []byte("\n")),
			"with more after it":      append(bytes.Clone(good), "{}\n"...),
			"a version twice":         twice(good, `"version"`),
			"another version later":   swap("  \"keys\": [", "  \"version\": 99,\n  \"keys\": ["),
			"an end twice":            twice(good, `"expires_at"`),
			"another end later":       swap("  ]", "  ],\n  \"expires_at\": \"2999-01-01T00:00:00Z\","),
			"a file twice":            twice(good, `"revoked.krl"`),
			"no end":                  bytes.Replace(good, []byte("expires_at"), []byte("expires_on"), 1),
			"an end without time":     swap(s.expires.UTC().Format(time.RFC3339), s.expires.UTC().Format(time.DateOnly)),
			"an end in another zone":  swap(s.expires.UTC().Format(time.RFC3339), s.expires.UTC().Format("2006-01-02T15:04:05")+"+00:00"),
			"a version with zeros":    swap(": 7,", ": 0007,"),
			"a version of 16 digits":  swap(": 7,", ": 1000000000000007,"),
			"a negative version":      swap(": 7,", ": -7,"),
			"an exponent":             swap(": 7,", ": 7e3,"),
			"format 2":                swap("\"format\": 1", "\"format\": 2"),
			"an unknown field":        swap("  \"files\"", "  \"more\": 1,\n  \"files\""),
			"carriage returns":        bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
			"a NUL":                   append(bytes.Clone(good), 0),
			"a line feed by its sign": swap("\"ca\": \"test\",\n", "\"ca\": \"test\",~"),
			"a key without a comma":   swap("},\n    {\"finger", "}\n    {\"finger"),
		} {
			n.publish(t, s)
			n.mirror.change(nodesync.ManifestPath, func([]byte) []byte { return text })
			n.mirror.change(nodesync.SignaturePath, func([]byte) []byte { return signature(t, n.signer, nodesync.Namespace, text) })
			t.Run(name, func(t *testing.T) { n.keeps(t, "manifest") })
		}
		if got := n.content(t); len(got) > 0 {
			t.Errorf("a new node has files: %v", got)
		}
		n.publish(t, s)
		n.mustSync(t)
		n.has(t, s)
	})
}
