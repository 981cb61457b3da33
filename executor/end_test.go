package executor_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/store/audit"
)

func TestTimeoutTerminatesTheCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		line   string
		signal string
		code   int
		after  time.Duration
	}{
		"ends by TERM":      {"sleep 1h", "TERM", -1, 10 * time.Second},
		"handles TERM":      {"polite 1h", "", 3, 10 * time.Second},
		"ends only by KILL": {"stubborn 1h", "KILL", -1, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, nil)
				began := time.Now()
				r, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: test.line, Timeout: 10 * time.Second})
				if err != nil || !r.TimedOut || r.Signal != test.signal || r.ExitCode != test.code {
					t.Errorf("result %+v, %v", r, err)
				}
				if took := time.Since(began); took != test.after || r.Duration != test.after {
					t.Errorf("took %v, result says %v, want %v", took, r.Duration, test.after)
				}
				if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Reason != "timeout" || end[0].Outcome != audit.Failure {
					t.Errorf("audit %+v", end)
				}
				if stats := s.executor.Stats().Pools["hpc"]; stats.Leases != 0 || stats.Open != 1 {
					t.Errorf("the connection is lost with the command: %+v", stats)
				}
			})
		})
	}
}

func TestCommandWithoutTimeoutGetsTheDefault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		if r, err := s.run("sleep 1h"); err != nil || !r.TimedOut || r.Duration != 5*time.Minute {
			t.Errorf("result %+v, %v", r, err)
		}
		r, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "sleep 59m", Timeout: time.Hour})
		if err != nil || r.TimedOut || r.ExitCode != 0 {
			t.Errorf("result %+v, %v", r, err)
		}
	})
}

func TestLeavingCallerTerminatesTheCommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		r, err := s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "stubborn 1h"})
		if !errors.Is(err, context.DeadlineExceeded) || r.Signal != "KILL" || r.Node == "" {
			t.Errorf("result %+v, %v", r, err)
		}
		if took := time.Since(began); took != time.Minute+5*time.Second {
			t.Errorf("took %v", took)
		}
		if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Reason != "client gone" || end[0].Detail["signal"] != "KILL" {
			t.Errorf("audit %+v", end)
		}
	})
}

func TestEndThatIsNotReportedIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		r, err := s.run("vanish")
		if !errors.Is(err, executor.ErrOutcomeUnknown) || r.Node != node1 {
			t.Errorf("result %+v, %v", r, err)
		}
		if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Outcome != audit.Unknown {
			t.Errorf("audit %+v", end)
		}
	})
}

func TestReportsThatNoHonestNodeSendsAreNoEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		exit  sshtest.Exit
		known bool
	}{
		"status 255":              {sshtest.Exit{Code: 255}, true},
		"status 256":              {sshtest.Exit{Code: 256}, false},
		"status 2^31":             {sshtest.Exit{Code: 1 << 31}, false},
		"status 2^32 - 1":         {sshtest.Exit{Code: 1<<32 - 1}, false},
		"signal of the RFC":       {sshtest.Exit{Signal: "USR1"}, true},
		"signal as sshd names it": {sshtest.Exit{Signal: "SIG@openssh.com"}, true},
		"signal of 32 bytes":      {sshtest.Exit{Signal: strings.Repeat("A", 32)}, true},
		"signal of 33 bytes":      {sshtest.Exit{Signal: strings.Repeat("A", 33)}, false},
		"signal with lines":       {sshtest.Exit{Signal: "EVIL\r\nX: y"}, false},
		"signal with a last line": {sshtest.Exit{Signal: "TERM\n"}, false},
		"signal not in UTF-8":     {sshtest.Exit{Signal: "EVIL\xff"}, false},
		"signal with quotes":      {sshtest.Exit{Signal: `T"x`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) {
					nodes[node1].Exec = func(context.Context, *sshtest.Session) sshtest.Exit { return test.exit }
				})
				r, err := s.run("true")
				want, outcome := executor.Result{ExitCode: -1}, audit.Unknown
				if test.known {
					want.Signal, outcome = test.exit.Signal, audit.Failure
					if want.Signal == "" {
						want.ExitCode = int(test.exit.Code)
					}
				}
				if errors.Is(err, executor.ErrOutcomeUnknown) == test.known || r.ExitCode != want.ExitCode || r.Signal != want.Signal {
					t.Errorf("result %+v, %v", r, err)
				}
				if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Outcome != outcome {
					t.Errorf("audit %+v", end)
				}
			})
		})
	}
}

func TestEndOfACommandThatWasNeverAcceptedIsUnknown(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"exit status instead of a reply": "exit 0", "output and exit status": "echo x", "nothing at all": "vanish", "signal after the timeout": "sleep 1h",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) { nodes[node1].NoExecReply = true })
				r, err := s.run(line)
				if !errors.Is(err, executor.ErrOutcomeUnknown) || r.ExitCode != -1 || r.Signal != "" || r.Node != node1 {
					t.Errorf("result %+v, %v", r, err)
				}
				if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Outcome != audit.Unknown {
					t.Errorf("audit %+v", end)
				}
			})
		})
	}
}

func TestBrokenConnectionIsUnknownAndTheCommandIsNotRunAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		result := make(chan error, 1)
		go func() {
			_, err := s.run("sleep 1h")
			result <- err
		}()
		synctest.Wait()
		s.nodes[node1].Cut()
		if err := <-result; !errors.Is(err, executor.ErrOutcomeUnknown) {
			t.Errorf("got %v", err)
		}
		if starts := s.audit.of(audit.ExecStart); len(starts) != 1 {
			t.Errorf("started %d times", len(starts))
		}
		if _, err := s.run("true"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestFrozenNodeHoldsNobodyForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		if _, err := s.run("true"); err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 2)
		began := time.Now()
		go func() { // runs already when the node freezes
			_, err := s.run("sleep 1h")
			results <- err
		}()
		synctest.Wait()
		s.nodes[node1].Freeze()
		go func() { // cannot even get a channel
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "true"})
			results <- err
		}()
		if err := <-results; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// The probe finds the frozen peer: 15 s interval, 10 s for the answer.
		if err := <-results; !errors.Is(err, executor.ErrOutcomeUnknown) || time.Since(began) > 25*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		s.nodes[node1].Thaw()
		if _, err := s.run("true"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestTimeoutOnAFrozenNodeIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Pool.ProbeInterval = time.Hour
		})
		began := time.Now()
		time.AfterFunc(time.Second, s.nodes[node1].Freeze)
		var written strings.Builder
		r, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "sleep 1h", Timeout: 10 * time.Second, Stdout: &written})
		// Grace, then the waits after KILL and after closing the channel.
		if !errors.Is(err, executor.ErrOutcomeUnknown) || !r.TimedOut || time.Since(began) != 21*time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(began), r, err)
		}
		synctest.Wait()
		if stats := s.executor.Stats().Pools["hpc"]; stats.Leases != 0 || stats.Open != 0 {
			t.Errorf("the frozen connection is kept: %+v", stats)
		}
	})
}

func TestCommandOutlivesItsCertificateButItsConnectionServesNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.ca.ttl = 5 * time.Minute
		result := make(chan executor.Result, 1)
		go func() {
			r, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "sleep 20m", Timeout: time.Hour})
			if err != nil {
				t.Error(err)
			}
			result <- r
		}()
		time.Sleep(10 * time.Minute)
		r, err := s.run("true")
		if err != nil || r.CertificateSerial != 2 {
			t.Errorf("second command used certificate %d: %v", r.CertificateSerial, err)
		}
		if r := <-result; r.ExitCode != 0 || r.TimedOut || r.CertificateSerial != 1 {
			t.Errorf("first command: %+v", r)
		}
		synctest.Wait()
		if n := s.nodes[node1].Conns(); n > 1 {
			t.Errorf("%d connections stand", n)
		}
	})
}

func TestDialOutlivesAnImpatientCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		s.nodes[node1].Freeze()
		time.AfterFunc(5*time.Second, s.nodes[node1].Thaw)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "true"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, err := s.run("true"); err != nil || s.dials(node1) != 1 {
			t.Errorf("%d dials, %v", s.dials(node1), err)
		}
	})
}

func TestFailingStreamsEndTheCommand(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		cmd    executor.Command
		reason string
	}{
		"stdout": {executor.Command{Line: "chatter", Stdout: writerFunc(func([]byte) (int, error) { return 0, broken })}, "output not taken"},
		"stderr": {executor.Command{Line: "chatter", Stderr: writerFunc(func([]byte) (int, error) { return 0, broken })}, "output not taken"},
		"stdin":  {executor.Command{Line: "chatter", Stdin: io.MultiReader(strings.NewReader("half of it"), failing{broken})}, "input failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) { nodes[node1].Exec = chatter(t) })
				r, err := s.executor.Run(t.Context(), s.caller, "hpc", test.cmd)
				if !errors.Is(err, broken) || r.Signal != "TERM" {
					t.Errorf("result %+v, %v", r, err)
				}
				if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Reason != test.reason {
					t.Errorf("audit %+v", end)
				}
			})
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// chatter writes to both streams until it is signalled, and complains when its
// input ends.
func chatter(t *testing.T) func(context.Context, *sshtest.Session) sshtest.Exit {
	return func(ctx context.Context, s *sshtest.Session) sshtest.Exit {
		var over atomic.Bool
		defer over.Store(true)
		go func() {
			input, err := io.ReadAll(s.Stdin)
			if err == nil && len(input) > 0 && !over.Load() {
				t.Errorf("the command saw the end of its input after %q", input)
			}
		}()
		for {
			_, _ = io.WriteString(s.Stdout, "out")
			_, _ = io.WriteString(s.Stderr, "err")
			if exit := sleep(ctx, s, "1s", "TERM"); exit.Signal != "" {
				return exit
			}
			if ctx.Err() != nil {
				return sshtest.Exit{Missing: true}
			}
		}
	}
}

func TestCloseWaitsForCommandsAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		results := make(chan error, 1)
		go func() {
			r, err := s.run("sleep 1m")
			if r.ExitCode != 0 || r.Signal != "" {
				t.Errorf("result %+v", r)
			}
			results <- err
		}()
		time.Sleep(time.Second)
		closed := make(chan error, 1)
		go func() { closed <- s.executor.Close(context.WithoutCancel(t.Context())) }()
		synctest.Wait()
		if _, err := s.run("true"); !errors.Is(err, executor.ErrClosed) {
			t.Errorf("during Close: %v", err)
		}
		if err := <-results; err != nil {
			t.Errorf("running command: %v", err)
		}
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		synctest.Wait()
		if n := s.nodes[node1].Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestCloseTerminatesCommandsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Systems[0].MaxSessions, cfg.Systems[0].MaxConnections = 1, 1
			cfg.Pool.WaitTimeout = time.Hour
		})
		results := make(chan error, 2)
		for range 2 { // one runs, one waits
			go func() {
				_, err := s.run("stubborn 5m")
				results <- err
			}()
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		began := time.Now()
		if err := s.executor.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("Close took %v", took)
		}
		for range 2 {
			if err := <-results; !errors.Is(err, executor.ErrClosed) {
				t.Errorf("command: %v", err)
			}
		}
		if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Reason != "shutdown" || end[0].Detail["signal"] != "KILL" {
			t.Errorf("audit %+v", end)
		}
	})
}
