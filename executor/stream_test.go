package executor_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/store/audit"
)

// flood writes 1 MiB to each stream and then exits with 5.
func flood(_ context.Context, s *sshtest.Session) sshtest.Exit {
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	for range 64 {
		_, _ = s.Stdout.Write(block)
		_, _ = s.Stderr.Write(block)
	}
	return sshtest.Exit{Code: 5}
}

func flooded(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) {
	nodes[node1].Exec = func(ctx context.Context, s *sshtest.Session) sshtest.Exit {
		if s.Command == "flood" {
			return flood(ctx, s)
		}
		return shell(ctx, s)
	}
}

func TestOutputBeyondTheLimitIsDroppedAndTheCommandGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, flooded)
		r, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "flood", MaxOutput: 1000})
		if err != nil || r.ExitCode != 5 || !r.Truncated || len(r.Stdout) != 1000 || len(r.Stderr) != 1000 {
			t.Errorf("exit code %d, truncated %v, %d and %d bytes, %v", r.ExitCode, r.Truncated, len(r.Stdout), len(r.Stderr), err)
		}
		end := s.audit.of(audit.ExecEnd)[0].Detail
		if end["stdout_bytes"] != "1048576" || end["stderr_bytes"] != "1048576" || end["truncated"] != "true" || end["exit_code"] != "5" {
			t.Errorf("audit %v", end)
		}
		r, err = s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "flood", MaxOutput: 1 << 20})
		if err != nil || r.Truncated || len(r.Stdout) != 1<<20 {
			t.Errorf("at the limit: truncated %v, %d bytes, %v", r.Truncated, len(r.Stdout), err)
		}
	})
}

func TestSlowWriterHoldsUpOnlyItsOwnCommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(s *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
			flooded(s, cfg, nodes)
			nodes[node1].Exec = func(ctx context.Context, session *sshtest.Session) sshtest.Exit {
				if session.Command != "torrent" {
					return shell(ctx, session)
				}
				for range 8 { // far more than the window of a channel
					flood(ctx, session)
				}
				return sshtest.Exit{}
			}
			cfg.Systems[0].MaxConnections = 1
		})
		var got int64
		slow := writerFunc(func(p []byte) (int, error) {
			time.Sleep(10 * time.Millisecond)
			got += int64(len(p))
			return len(p), nil
		})
		done := make(chan error, 1)
		go func() {
			_, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "torrent", Stdout: slow, Stderr: io.Discard})
			done <- err
		}()
		time.Sleep(time.Millisecond)
		began := time.Now()
		for range 20 {
			if _, err := s.run("echo quick"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("others were held up for %v", took)
		}
		if s.nodes[node1].Conns() != 1 {
			t.Error("the commands did not share a connection")
		}
		if err := <-done; err != nil || got != 8<<20 {
			t.Errorf("slow one got %d bytes, %v", got, err)
		}
	})
}

func TestRunReturnsOnlyWhenTheWriterIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		writing := false
		_, err := s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "echo x", Stderr: io.Discard, Stdout: writerFunc(func(p []byte) (int, error) {
			writing = true
			cancel()
			time.Sleep(time.Hour)
			writing = false
			return len(p), nil
		})})
		if writing {
			t.Errorf("Run returned during a Write: %v", err)
		}
	})
}

func TestStartedComesBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		var order []string
		var start executor.Start
		r, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{
			Line:    "echo x",
			Started: func(at executor.Start) { start = at; order = append(order, "started") },
			Stdout:  writerFunc(func(p []byte) (int, error) { order = append(order, string(p)); return len(p), nil }),
		})
		if err != nil || len(order) != 2 || order[0] != "started" || order[1] != "x" {
			t.Errorf("order %q, %v", order, err)
		}
		if start != r.Start || start.ID == "" {
			t.Errorf("start %+v, result %+v", start, r.Start)
		}
		if r.Stdout != nil || string(r.Stderr) != "X" {
			t.Errorf("result has %q and %q", r.Stdout, r.Stderr)
		}
	})
}

func TestExitStatusBeforeTheEndOfOutputLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) {
			nodes[node1].Exec = func(_ context.Context, s *sshtest.Session) sshtest.Exit {
				s.ExitStatusNow(9)
				time.Sleep(time.Minute) // a child of the command has the stream
				_, _ = io.WriteString(s.Stdout, "late")
				return sshtest.Exit{}
			}
		})
		if r, err := s.run("x"); err != nil || r.ExitCode != 9 || string(r.Stdout) != "late" {
			t.Errorf("result %+v, %v", r, err)
		}
	})
}

// refusingWriter takes nothing.
type refusingWriter struct{}

func (refusingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// However close the end of the command is, output that was not passed on is no success.
func TestOutputThatNobodyTakesIsNeverASuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) {
			nodes[node1].Exec = func(_ context.Context, s *sshtest.Session) sshtest.Exit {
				_, _ = s.Stdout.Write([]byte("x"))
				return sshtest.Exit{}
			}
		})
		for i := range 300 {
			_, err := s.executor.Run(t.Context(), s.caller, "hpc", executor.Command{Line: "x", Stdout: refusingWriter{}})
			if !errors.Is(err, io.ErrShortWrite) {
				t.Fatalf("run %d: %v", i+1, err)
			}
		}
	})
}
