package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sallyport/sshd-config/nodesync"
)

// dieAtStep is a sallyport that is killed before its step number $DIE_AT: the program says each step before it takes it.
func dieAtStep() {
	at, err := strconv.Atoi(os.Getenv("DIE_AT"))
	if err != nil {
		panic(err)
	}
	os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, &killer{left: at}, os.Getenv, os.Environ()}))
}

// A killer ends its own process, as kill -9 does, when a number of steps was said.
type killer struct{ left int }

func (k *killer) Write(p []byte) (int, error) {
	if k.left -= bytes.Count(p, []byte("step: ")); k.left <= 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return os.Stderr.Write(p)
}

// shim stands for a program that the script runs and that changes the disk. When it is the one whose number is in $DIE_AT, it
// kills the script; if it would have copied, only half of the file was.
const shim = `#!/bin/sh
echo >>"$SHIM_LOG"
if [ "$(($(wc -l <"$SHIM_LOG")))" -eq "$DIE_AT" ]; then
	[ %[1]s != cp ] || head -c 20 "$1" >"$2"
	kill -9 "$(cat "$SHIM_PID")"
	exit 1
fi
exec %[2]s "$@"
`

// dying are the commands that run a node's program until it kills itself at a step.
func (n *loginNode) dying(t *testing.T) (argv []string, env func(step int) []string) {
	t.Helper()
	if n.argv[0] == "sallyport" {
		return []string{"sallyport-dies", "node", "sync", "-v"}, func(step int) []string { return []string{fmt.Sprintf("DIE_AT=%d", step)} }
	}
	bin := filepath.Join(n.home, "shims")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mkdir", "rm", "cp", "chmod", "mv", "sync"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, filepath.Join(bin, name), fmt.Appendf(nil, shim, name, real), 0o755)
	}
	log, pid := filepath.Join(n.home, "shims.log"), filepath.Join(n.home, "pid")
	argv = append([]string{"sh", "-c", `: >"$SHIM_LOG"; echo $$ >"$SHIM_PID"; exec "$@"`, "sh"}, n.argv...)
	return argv, func(step int) []string {
		return []string{
			fmt.Sprintf("DIE_AT=%d", step), "SHIM_LOG=" + log, "SHIM_PID=" + pid,
			"PATH=" + bin + ":" + os.Getenv("PATH"),
		}
	}
}

func TestAProgramKilledAtAnyStepLeavesAWorkingTrustFileAndTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		if n.argv[0] == "bash" || n.argv[0] == "busybox" {
			return // the same script as sh; and the tools of busybox are no programs that could be replaced
		}
		argv, env := n.dying(t)
		states := []state{n.state(t, 1, []uint64{1})}
		n.publish(t, states[0])
		n.mustSync(t)
		killed := 0
		for step := 1; ; step++ {
			next := n.state(t, int64(step)+1, []uint64{1, uint64(step) + 1}, newKey(t))
			n.publish(t, next)
			states = append(states, next)
			code, out := n.run(t, argv, env(step)...)
			n.works(t, step, states)
			if code == 0 {
				n.has(t, next)
				break
			}
			if code != -1 && code != 128+int(syscall.SIGKILL) {
				t.Fatalf("step %d: exit code %d: %s", step, code, out)
			}
			killed++
			if step%4 == 0 { // the other times, the next state comes upon what the killed run left
				n.mustSync(t)
				n.has(t, next)
				states = states[len(states)-1:]
			}
			if step > 200 {
				t.Fatal("there is no end to the steps")
			}
		}
		t.Logf("killed at %d steps", killed)
		if killed < 30 { // 4 files, each with the one before it, each written, made durable, renamed, and made durable again
			t.Errorf("only %d steps were seen", killed)
		}
		for name := range n.content(t) {
			if strings.HasPrefix(name, ".") {
				t.Errorf("%s was left behind", name)
			}
		}
	})
}

// works checks that what sshd would read is of one of the states, and that it would take the active key.
func (n *loginNode) works(t *testing.T, step int, states []state) {
	t.Helper()
	trust, list := filepath.Join(n.dir, nodesync.TrustFile), filepath.Join(n.dir, nodesync.RevocationFile)
	got, err := os.ReadFile(trust)
	if err != nil || !slices.ContainsFunc(states, func(s state) bool { return bytes.Equal(got, s.trust) }) {
		t.Errorf("step %d: the trust file is %q, %v", step, got, err)
	}
	got, err = os.ReadFile(list)
	if err != nil || !slices.ContainsFunc(states, func(s state) bool { return bytes.Equal(got, s.list) }) {
		t.Errorf("step %d: the revocation list is %q, %v", step, got, err)
	}
	// -Q reads the first line, which is the active key.
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-Q", "-f", list, trust).CombinedOutput(); err != nil {
		t.Errorf("step %d: ssh-keygen -Q: %v, %s", step, err, out)
	}
}

func TestTwoRunsAtATimeDoNotMeet(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		n.publish(t, n.state(t, 7, nil))
		d, err := os.Open(n.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if code, out := n.sync(t); code != 1 || !strings.Contains(out, "another run is at work in") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if got := n.content(t); len(got) > 0 {
			t.Errorf("files were written: %v", got)
		}
		if err := syscall.Flock(int(d.Fd()), syscall.LOCK_UN); err != nil {
			t.Fatal(err)
		}
		n.mustSync(t)
	})
}

func TestSSHDsConfigurationIsTestedAfterAChange(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		// sshd wants a folder that need not exist here; its own complaint about the file is what counts.
		config := filepath.Join(n.home, "sshd_config")
		mustWrite(t, config, []byte("NoSuchKeyword yes\n"), 0o600)
		env := []string{"SALLYPORT_NODE_SSHD=/usr/sbin/sshd", "SALLYPORT_NODE_SSHD_CONFIG=" + config}
		s := n.state(t, 7, nil)
		n.publish(t, s)
		code, out := n.sync(t, env...)
		if code != 1 || !strings.Contains(out, "the files are in place, but sshd's configuration is not valid") || !strings.Contains(out, "NoSuchKeyword") {
			t.Errorf("exit code %d: %s", code, out)
		}
		n.has(t, s)
		good := filepath.Join(n.home, "sshd")
		mustWrite(t, good, []byte("#!/bin/sh\n[ \"$*\" = \"-t -f "+config+"\" ]\n"), 0o755)
		n.publish(t, n.state(t, 8, nil))
		if code, out := n.sync(t, "SALLYPORT_NODE_SSHD="+good, env[1]); code != 0 {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
}
