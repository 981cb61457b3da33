package executor_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/store/audit"
)

func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func TestCommandIsRecordedBeforeItStarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.audit.refuse = func(e audit.Event) error {
			if _, most := s.nodes[node1].Execs(); e.Action == audit.ExecStart && most != 0 {
				t.Error("the command ran before its record")
			}
			return nil
		}
		r, err := s.run("exit 4")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.audit.events) != 2 {
			t.Fatalf("%d events", len(s.audit.events))
		}
		start, end := s.audit.events[0], s.audit.events[1]
		sum := sha256.Sum256([]byte("exit 4"))
		for key, want := range map[string]string{
			"exec_id": r.ID, "user": "alice", "certificate_serial": "1",
			"command_sha256": hex.EncodeToString(sum[:]), "command_bytes": "6", "timeout_ms": "300000",
		} {
			if start.Detail[key] != want || end.Detail[key] != want {
				t.Errorf("%s is %q and %q, want %q", key, start.Detail[key], end.Detail[key], want)
			}
		}
		for key, want := range map[string]string{"token_sha256": s.caller.TokenDigest(), "jti": s.caller.TokenID(), "client": "portal"} {
			if start.Detail[key] != want || want == "" || end.Detail[key] != "" {
				t.Errorf("%s is %q and %q, want %q in the start alone", key, start.Detail[key], end.Detail[key], want)
			}
		}
		if start.Action != audit.ExecStart || start.Outcome != audit.Unknown || start.Subject != "sub-alice" || start.Issuer != "test" || start.Login != "alice" || start.System != "hpc" || start.Node != node1 {
			t.Errorf("start %+v", start)
		}
		if end.Action != audit.ExecEnd || end.Outcome != audit.Failure || end.Detail["exit_code"] != "4" || end.Detail["duration_ms"] != "0" {
			t.Errorf("end %+v", end)
		}
		for _, e := range s.audit.events {
			if _, ok := e.Detail["command"]; ok {
				t.Errorf("the command itself is in %+v", e)
			}
		}
	})
}

func TestCommandThatCannotBeRecordedDoesNotRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.audit.refuse = func(audit.Event) error { return audit.ErrUnavailable }
		if _, err := s.run("true"); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if _, most := s.nodes[node1].Execs(); most != 0 {
			t.Error("the command ran")
		}
		s.audit.refuse = nil
		if _, err := s.run("true"); err != nil || s.dials(node1) != 1 {
			t.Errorf("afterwards: %d dials, %v", s.dials(node1), err)
		}
	})
}

func TestEndThatCannotBeRecordedIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) { cfg.Logger = newLogger(&log) })
		s.audit.refuse = func(e audit.Event) error {
			if e.Action == audit.ExecEnd {
				return audit.ErrUnavailable
			}
			return nil
		}
		r, err := s.run("exit 2")
		if err != nil || r.ExitCode != 2 {
			t.Errorf("result %+v, %v", r, err)
		}
		if !strings.Contains(log.String(), r.ID) || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("log is %q", log.String())
		}
	})
}

func TestCommandTextIsRecordedOnlyOnRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) { cfg.AuditCommands = true })
		if _, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{
			Line: "true --password x", Env: map[string]string{"TOKEN": "secret"}, Stdin: strings.NewReader("secret"),
		}); err != nil {
			t.Fatal(err)
		}
		if got := s.audit.events[0].Detail["command"]; got != "true --password x" {
			t.Errorf("recorded command is %q", got)
		}
		for _, e := range s.audit.events {
			for key, value := range e.Detail {
				if strings.Contains(value, "secret") {
					t.Errorf("%s is %q", key, value)
				}
			}
		}
	})
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestRecordsIdentifyWhatRan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) {
			nodes[node1].Exec = func(_ context.Context, s *sshtest.Session) sshtest.Exit {
				_, _ = io.Copy(io.Discard, s.Stdin)
				return sshtest.Exit{}
			}
		})
		script := strings.Repeat("rm -rf /scratch/x\n", 10_000)
		if _, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{
			Argv: []string{"bash"}, Workdir: "/home/alice", Env: map[string]string{"B": "2", "A": "secret one"}, Stdin: strings.NewReader(script),
		}); err != nil {
			t.Fatal(err)
		}
		start, end := s.audit.events[0].Detail, s.audit.events[1].Detail
		for key, want := range map[string]string{
			"workdir": "/home/alice", "env_names": "A B", "env_sha256": sha("A=secret one\x00B=2\x00"), "stdin_bytes": "", "stdin_sha256": "",
		} {
			if start[key] != want {
				t.Errorf("the start's %s is %q, want %q", key, start[key], want)
			}
		}
		for key, want := range map[string]string{
			"stdin_bytes": "180000", "stdin_sha256": sha(script), "workdir": "", "env_names": "", "env_sha256": "",
		} {
			if end[key] != want {
				t.Errorf("the end's %s is %q, want %q", key, end[key], want)
			}
		}
	})
}

func TestRecordsOfAPlainCommandHaveNothingMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		if _, err := s.run("true"); err != nil {
			t.Fatal(err)
		}
		for _, e := range s.audit.events {
			for _, key := range []string{"workdir", "env_names", "env_sha256", "stdin_bytes", "stdin_sha256"} {
				if value, ok := e.Detail[key]; ok {
					t.Errorf("%s has %s %q", e.Action, key, value)
				}
			}
		}
	})
}

func TestRecordedNamesOfVariablesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		env := make(map[string]string)
		for i := range executor.MaxEnvNames {
			env[strings.Repeat("N", 100)+strconv.Itoa(1000+i)] = ""
		}
		if _, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "true", Env: env}); err != nil {
			t.Fatal(err)
		}
		if names := s.audit.events[0].Detail["env_names"]; len(names) != 2048+3 || !strings.HasSuffix(names, "...") {
			t.Errorf("%d bytes of names are recorded", len(names))
		}
	})
}

func TestInputOfAnEndlessReaderIsRecordedAsFarAsItWasRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		held, writer := io.Pipe()
		defer writer.Close()
		go func() { _, _ = io.WriteString(writer, "half") }()
		if _, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "sleep 1s", Stdin: held}); err != nil {
			t.Fatal(err)
		}
		end := s.audit.events[1].Detail
		if end["stdin_bytes"] != "4" || end["stdin_sha256"] != sha("half") {
			t.Errorf("end %v", end)
		}
	})
}
