package executor_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/executor"
	"sallyport/internal/loginnode"
	"sallyport/store/audit"
)

// The whole of TestSSHD runs with warm sessions too (SALLYPORT_TEST_SESSIONS, see the
// Makefile). Here is what that does not compare or cannot see.

// newSessions starts a node with two systems: "hpc" shares sessions, "own" does not.
func newSessions(t *testing.T, node loginnode.Config) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		node.Users = nil
	}
	return newCluster(t, node, func(cfg *executor.Config) {
		cfg.Systems[0].Sessions = executor.SessionsWarm
		own := cfg.Systems[0]
		own.Name, own.Sessions = "own", executor.SessionsIsolated
		cfg.Systems = append(cfg.Systems, own)
	})
}

// alike leaves out what may differ: the port of the connection, and signals 32 and 33,
// which the C library has for itself, and are ignored in what it spawns (posix_spawn).
func alike(output []byte) string {
	text := regexp.MustCompile(`127\.0\.0\.1 [0-9]+`).ReplaceAllString(string(output), "127.0.0.1 port")
	return regexp.MustCompile(`SigIgn:\t0000000[01][08]0000000`).ReplaceAllString(text, "SigIgn: none")
}

func (c *cluster) warm() executor.SessionStats { return c.executor.Stats().Sessions }

func TestSessionsOfBothKindsAreTheSame(t *testing.T) {
	t.Parallel()
	c := newSessions(t, loginnode.Config{Users: []loginnode.User{
		{Name: "alice", Shell: "/bin/bash"}, {Name: "bob", Shell: "/bin/dash"},
	}})
	input := strings.Repeat("input\n", 40000)
	for name, cmd := range map[string]executor.Command{
		"line":           {Line: `echo "$0 $# $-"; echo err >&2; exit 9`},
		"program":        {Argv: []string{"printf", "%s|", "a b", "$HOME", "*", "'"}},
		"input":          {Argv: []string{"cat"}, Stdin: strings.NewReader(input)},
		"input to line":  {Line: "head -n 1; wc -l", Stdin: strings.NewReader(input)},
		"ids":            {Line: "id; umask; ulimit -a; pwd; stat -c %a ."},
		"environment":    {Line: "env | grep -v -e ^_= -e ^SSH_ -e ^SHLVL= -e ^OLDPWD= | sort", Env: map[string]string{"A": "b c\nd", "PATH": "/bin:/usr/bin"}},
		"its program":    {Argv: []string{"env"}, Env: map[string]string{"PATH": "/bin"}},
		"descriptors":    {Line: `for f in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/self/fd/$f && readlink /proc/self/fd/$f | cut -d: -f1; done`},
		"group":          {Line: `test "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ && echo leader`},
		"signals":        {Line: `grep -e SigBlk -e SigIgn /proc/self/status`},
		"of the program": {Argv: []string{"grep", "-e", "SigBlk", "-e", "SigIgn", "/proc/self/status"}},
		"workdir":        {Line: "pwd", Workdir: "/usr/bin/../lib"},
		"program there":  {Argv: []string{"./env", "pwd"}, Workdir: "/usr/bin"},
		"no workdir":     {Line: "pwd", Workdir: "/no/such"},
		"signal":         {Line: "kill -SEGV $$"},
		"signal of a":    {Argv: []string{"sh", "-c", "kill -USR2 $$"}},
		"syntax":         {Line: "if"},
		"several lines":  {Line: "echo one\necho two"},
		"NUL and 8 bit":  {Line: `printf '\0\377\200'`},
		"quotes":         {Argv: []string{"echo", "it's", `"`, "`", "$(id)", "\n", "\\"}},
	} {
		for _, user := range c.Users() {
			caller := c.from.person("test", "sub-"+user, user)
			var got [2]executor.Result
			for i, system := range []string{"own", "hpc"} {
				if r, ok := cmd.Stdin.(*strings.Reader); ok {
					r.Reset(input)
				}
				r, err := c.executor.Run(t.Context(), caller, system, cmd)
				if err != nil {
					t.Fatalf("%s in %s: %v", name, system, err)
				}
				got[i] = r
			}
			own, warm := got[0], got[1]
			if own.ExitCode != warm.ExitCode || own.Signal != warm.Signal ||
				alike(own.Stdout) != alike(warm.Stdout) || alike(own.Stderr) != alike(warm.Stderr) {
				t.Errorf("%s as %s: in a session of its own: %d %q %.400q %.200q\nin a warm one: %d %q %.400q %.200q", name, user,
					own.ExitCode, own.Signal, own.Stdout, own.Stderr, warm.ExitCode, warm.Signal, warm.Stdout, warm.Stderr)
			}
		}
	}
	if s := c.warm(); s.Shared == 0 || s.Shared != s.Isolated || int(s.Opened) != len(c.Users()) {
		t.Errorf("sessions %+v", s)
	}
}

// TestWarmSessionIsUsedAgainUnlessInDoubt: see the package warm for the doubts that
// need no node.
func TestWarmSessionIsUsedAgainUnlessInDoubt(t *testing.T) {
	t.Parallel()
	c := newSessions(t, loginnode.Config{Users: []loginnode.User{{Name: "alice", Shell: "/bin/bash"}}})
	for range 20 {
		c.run(t, executor.Command{Line: "true"})
	}
	if s := c.warm(); s.Opened != 1 || s.Shared != 20 || s.Discarded != 0 {
		t.Fatalf("sessions %+v", s)
	}
	if r := c.run(t, executor.Command{Line: "sleep 60", Timeout: 100 * time.Millisecond}); !r.TimedOut || r.Signal != "TERM" {
		t.Errorf("timed out: %+v", r)
	}
	c.run(t, executor.Command{Line: "true"})
	if s := c.warm(); s.Discarded != 1 || s.Opened != 2 {
		t.Errorf("after a timeout: %+v", s)
	}
	// A background process that has the output open belongs to its command, which
	// ends when its time does.
	r := c.run(t, executor.Command{Line: "echo early; (setsid sleep 1; echo late) &", Timeout: 200 * time.Millisecond})
	if !r.TimedOut || string(r.Stdout) != "early\n" {
		t.Errorf("with a background writer: %+v", r)
	}
	if r := c.run(t, executor.Command{Line: "echo next; sleep 1.2"}); string(r.Stdout) != "next\n" {
		t.Errorf("the next command printed %q", r.Stdout)
	}
	// The worker is gone in the middle of a command.
	if _, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{Line: "kill -9 $PPID; sleep 0.2"}); !errors.Is(err, executor.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if r := c.run(t, executor.Command{Line: "echo again"}); string(r.Stdout) != "again\n" {
		t.Errorf("the next command printed %q", r.Stdout)
	}
	starts, ends := c.audit.of(audit.ExecStart), c.audit.of(audit.ExecEnd)
	if len(starts) != 26 || len(ends) != 26 || ends[0].Detail["session"] != "warm" {
		t.Errorf("%d starts, %d ends, the first %+v", len(starts), len(ends), ends[0])
	}
}

func TestWarmSessionsAreBoundedAndEnd(t *testing.T) {
	t.Parallel()
	c := newSessions(t, loginnode.Config{Users: []loginnode.User{{Name: "alice", Shell: "/bin/bash"}}})
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() { c.run(t, executor.Command{Line: "sleep 0.3"}) })
	}
	wg.Wait()
	s := c.warm()
	if s.Warm > 4 || s.Warm == 0 || s.Shared+s.Isolated != 12 {
		t.Errorf("sessions %+v", s)
	}
	for range 150 { // the real time of real processes
		if time.Sleep(100 * time.Millisecond); c.warm().Warm == 0 {
			break
		}
	}
	if s, leases := c.warm(), c.executor.Stats().Pools["hpc"].Leases; s.Warm != 0 || leases != 0 {
		t.Errorf("%d leases, sessions %+v", leases, s)
	}
	for range 20 {
		processes, err := c.Processes(c.user)
		if err != nil {
			t.Fatal(err)
		}
		python := false
		for _, p := range processes {
			python = python || strings.Contains(p.Command, "python")
		}
		if !python {
			return
		}
		time.Sleep(100 * time.Millisecond) // the process is leaving
	}
	t.Error("a worker is left")
}

// TestWithoutWarmSessions: where none can be had commands have sessions of their own,
// and it is not tried again at each.
func TestWithoutWarmSessions(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a home directory of its own needs root; CI has it")
	}
	for name, rc := range map[string]string{
		"no python3":        "mkdir -p bin; ln -sf /bin/cat /bin/sh bin; PATH=$HOME/bin",
		"a greeting":        "echo Welcome",
		"a reader":          "read -r x",
		"an old python3":    `mkdir -p bin; printf '#!/bin/sh\nexit 1\n' >bin/python3; chmod +x bin/python3; PATH=$HOME/bin:$PATH`,
		"a python3 that is": `mkdir -p bin; printf '#!/bin/sh\necho Python; cat >/dev/null\n' >bin/python3; chmod +x bin/python3; PATH=$HOME/bin:$PATH`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newSessions(t, loginnode.Config{Users: []loginnode.User{{Name: "alice", Shell: "/bin/bash"}}})
			file := filepath.Join(c.Home("alice"), ".bashrc")
			if err := os.WriteFile(file, []byte(rc+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(c.Home("alice"), 0o777); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				r, err := c.executor.Run(t.Context(), c.caller, "hpc", executor.Command{Line: "echo out; exit 5"})
				if err != nil || r.ExitCode != 5 || !strings.HasSuffix(string(r.Stdout), "out\n") {
					t.Fatalf("got %+v, %v", r, err)
				}
			}
			if s := c.warm(); s.Failed != 1 || s.Warm != 0 || s.Isolated != 3 || s.Shared != 0 {
				t.Errorf("sessions %+v", s)
			}
		})
	}
}
