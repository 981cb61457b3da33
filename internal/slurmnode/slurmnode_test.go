package slurmnode_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/loginnode"
	"sallyport/internal/slurmnode"
)

func TestUsersSubmitAndSeeJobsAndNothingIsLeftBehind(t *testing.T) {
	if err := slurmnode.Available(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	n, err := slurmnode.Start(t.Context(), loginnode.Config{Users: []loginnode.User{{Name: "alice"}, {Name: "bob"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	t.Logf("Slurm %s after %v", n.Version, time.Since(begin))
	out, err := n.Root(t.Context(), `
as() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups env HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"; }
cd /
as alice sh -c 'cd; printf "#!/bin/sh\nid -un >ran\n" | sbatch --wait --parsable'
as bob squeue --noheader
as bob sacct --allusers --noheader --parsable2 --allocations --format=JobID,User,State,Account`)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "1|alice|COMPLETED|staff") {
		t.Errorf("jobs:\n%s", out)
	}
	if ran, err := os.ReadFile(filepath.Join(n.Home("alice"), "ran")); string(ran) != "alice\n" {
		t.Errorf("the job ran as %q, %v", ran, err)
	}
	dir := n.Dir()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ")); err == nil && strings.Contains(string(line), dir) {
			t.Errorf("process %s of the node is still there", e.Name())
		}
	}
}
