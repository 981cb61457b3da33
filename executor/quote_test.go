package executor

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shells that must give back what was quoted; dash is /bin/sh of Debian.
func shells(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, name := range []string{"/bin/sh", "/bin/dash", "/bin/bash"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Fatal("this machine has no shell")
	}
	return found
}

func runShell(t testing.TB, shell, line string, stdin string) string {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), shell, "-c", line)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s -c %q: %v: %s", shell, line, err, stderr.Bytes())
	}
	return string(out)
}

// FuzzQuote checks that a real shell gives back any argument, any variable, and
// what follows the variables in the input, unchanged.
func FuzzQuote(f *testing.F) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzQuote/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	available := shells(f)
	f.Fuzz(func(t *testing.T, s string) {
		quoted, err := Quote(s)
		if strings.Contains(s, "\x00") {
			if err == nil {
				t.Fatalf("%q was quoted as %q", s, quoted)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := testSystem().prepare(Command{
			Argv: []string{"/bin/sh", "-c", `printf '%s\0' "$1" "$FUZZ"; cat`, "sh", s}, Env: map[string]string{"FUZZ": s},
		}, 1)
		if err != nil {
			if len(s) < 1000 {
				t.Fatal(err)
			}
			return
		}
		var input bytes.Buffer
		if _, err := input.ReadFrom(p.stdin); err != nil {
			t.Fatal(err)
		}
		for _, shell := range available {
			if got, want := runShell(t, shell, p.line, input.String()+"rest"), fmt.Sprintf("%s\x00%s\x00rest", s, s); got != want {
				t.Errorf("%s gives %q, want %q", shell, got, want)
			}
		}
	})
}

// TestHalfAnEnvironmentStopsTheCommand cuts the input at every byte.
func TestHalfAnEnvironmentStopsTheCommand(t *testing.T) {
	t.Parallel()
	p, err := testSystem().prepare(Command{Line: "echo ran", Env: map[string]string{"A": "it's", "B": "x; y"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var input bytes.Buffer
	if _, err := input.ReadFrom(p.stdin); err != nil {
		t.Fatal(err)
	}
	for _, shell := range shells(t) {
		if got := runShell(t, shell, p.line, input.String()); got != "ran\n" {
			t.Fatalf("%s: whole input gives %q", shell, got)
		}
		for n := range input.Len() {
			cmd := exec.CommandContext(t.Context(), shell, "-c", p.line)
			cmd.Stdin = strings.NewReader(input.String()[:n])
			if out, err := cmd.Output(); err == nil || len(out) != 0 {
				t.Errorf("%s: input %q gives %q", shell, input.String()[:n], out)
			}
		}
	}
}
