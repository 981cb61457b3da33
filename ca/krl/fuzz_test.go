package krl

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

var update = flag.Bool("update", false, "rewrite the seeds of the fuzz target")

const seedDir = "testdata/fuzz/FuzzReaderAgreesWithSSHKeygen"

// TestSeedsHoldEveryRule keeps the checked-in seeds complete: one for each rule.
func TestSeedsHoldEveryRule(t *testing.T) {
	t.Parallel()
	var seeds [][]byte
	for _, c := range ruleCases(t) {
		seeds = append(seeds, c.list)
	}
	if *update {
		for _, list := range seeds {
			name := fmt.Sprintf("rule-%x", sha256.Sum256(list))[:17]
			if err := os.MkdirAll(seedDir, 0o755); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", list)
			if err := os.WriteFile(filepath.Join(seedDir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	have := make(map[string]bool)
	files, err := filepath.Glob(filepath.Join(seedDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		have[string(text)] = true
	}
	for _, list := range seeds {
		if !have[fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", list)] {
			t.Errorf("no seed for %x; run 'go test -update'", list)
		}
	}
}

// FuzzReaderAgreesWithSSHKeygen: whatever the bytes, the reader does not panic; it
// takes what ssh-keygen takes; and what it took means the same when written again.
func FuzzReaderAgreesWithSSHKeygen(f *testing.F) {
	if seeds, err := filepath.Glob(filepath.Join(seedDir, "*")); err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds in %s: %v", seedDir, err)
	}
	dir := f.TempDir()
	var keys []ssh.PublicKey
	for i, serial := range []uint64{1, 5, 1001, 2005, 3007, 1<<64 - 1, 0} {
		keys = append(keys, certificate(f, byte(i), 1, serial, "v1:bad"), certificate(f, byte(i), 2, serial, "a"), keyOf(f, byte(i)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if errors.Is(err, errSignature) || errors.Is(err, errCAKey) && !bytes.Contains(data, []byte("\x00\x00\x00\x03key")) {
			return // here the versions of OpenSSH, or its and our ideas of a key, differ
		}
		if ok, out := valid(t, data); ok != (err == nil) {
			t.Fatalf("ssh-keygen takes it: %t (%s); here: %v", ok, out, err)
		}
		if err != nil {
			return
		}
		if diff := cmp.Diff(judge(t, dir, data, keys), answers(l, keys)); diff != "" {
			t.Fatalf("means something else to ssh-keygen: %s", diff)
		}
		if l.Generated.Unix() < 0 {
			return // a date that Go does not know, which is not written
		}
		again := mustParse(t, mustMarshal(t, l))
		if diff := cmp.Diff(normal(l), normal(again)); diff != "" {
			t.Fatalf("written again it says something else: %s", diff)
		}
	})
}
