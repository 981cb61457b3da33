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

func TestAFolderWithoutRoomMakesTheServiceNotReady(t *testing.T) {
	t.Parallel()
	if err := checkRoom(t.TempDir()); err != nil {
		t.Errorf("a folder with room: %v", err)
	}
	// /proc is a file system with no room at all.
	if err := checkRoom("/proc"); err == nil || !strings.Contains(err.Error(), "has 0 bytes left") {
		t.Errorf("a folder without room: %v", err)
	}
}
