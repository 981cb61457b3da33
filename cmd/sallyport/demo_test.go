package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDemoRunsOnTheEmbeddedServerToo(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	d := demo{
		s:   streams{out: &out, err: &out, getenv: noEnv},
		dir: filepath.Join(t.TempDir(), "demo"), listen: "127.0.0.1:0", startNode: startEmbeddedNode,
	}
	if err := d.run(t.Context(), true); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"an SSH server in this process, users: ", "\n  hello from ", `"exit_code": 0`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}
