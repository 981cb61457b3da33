package executor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/store/audit"
)

func TestNodeThatRefusesToStartACommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, _ *executor.Config, nodes map[string]*sshtest.Config) { nodes[node1].Exec = nil })
		for range 3 {
			if _, err := s.run("true"); !errors.Is(err, executor.ErrUnavailable) || errors.Is(err, executor.ErrOutcomeUnknown) {
				t.Errorf("got %v", err)
			}
		}
		if end := s.audit.of(audit.ExecEnd); len(end) != 3 || end[0].Outcome != audit.Failure {
			t.Errorf("audit %+v", end)
		}
		if stats := s.executor.Stats().Pools["hpc"]; stats.Leases != 0 || s.dials(node1) != 1 {
			t.Errorf("%d dials, pool %+v", s.dials(node1), stats)
		}
	})
}

func TestChannelThatOpensTooLateIsClosedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Systems[0].MaxSessions, cfg.Systems[0].MaxConnections = 1, 1
		})
		if _, err := s.run("true"); err != nil {
			t.Fatal(err)
		}
		s.nodes[node1].Freeze()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "true"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.nodes[node1].Thaw()
		synctest.Wait()
		if stats := s.executor.Stats().Pools["hpc"]; stats.Leases != 0 || stats.Open != 1 {
			t.Errorf("pool %+v", stats)
		}
		if _, err := s.run("true"); err != nil || s.dials(node1) != 1 {
			t.Errorf("%d dials, %v", s.dials(node1), err)
		}
		if n := len(s.audit.of(audit.ExecStart)); n != 3 || s.withdrawn() != 1 {
			t.Errorf("%d starts, %d withdrawn", n, s.withdrawn())
		}
	})
}

// withdrawn counts starts on record that came to nothing, for want of a session.
func (s *site) withdrawn() (n int) {
	for _, e := range s.audit.of(audit.ExecEnd) {
		if e.Reason == "no session" && e.Outcome == audit.Failure {
			n++
		}
	}
	return n
}

// TestNodeThatFreezesAtTheStart stops the node after the channel was opened, so
// that nobody can know whether the command started.
func TestNodeThatFreezesAtTheStart(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"timeout": executor.ErrOutcomeUnknown, "caller leaves": context.DeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) { cfg.Pool.ProbeInterval = time.Hour })
				s.audit.refuse = func(e audit.Event) error {
					if e.Action == audit.ExecStart {
						time.Sleep(time.Second) // the session is opened meanwhile
						s.nodes[node1].Freeze()
					}
					return nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				cmd := executor.Command{Line: "true", Started: func(executor.Start) { t.Error("started") }}
				if name == "timeout" {
					cmd.Timeout = 10 * time.Second
				}
				if _, err := s.executor.Run(ctx, s.caller, "hpc", cmd); !errors.Is(err, want) {
					t.Errorf("got %v", err)
				}
				if end := s.audit.of(audit.ExecEnd); len(end) != 1 || end[0].Outcome != audit.Unknown {
					t.Errorf("audit %+v", end)
				}
			})
		})
	}
}

func TestCallerLeavesWhileTheLastOutputIsPassedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, flooded)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "flood", Stdout: writerFunc(func(p []byte) (int, error) {
			time.Sleep(time.Second)
			return len(p), ctx.Err()
		})})
		if !errors.Is(err, context.DeadlineExceeded) || r.ExitCode != 5 {
			t.Errorf("exit code %d, %v", r.ExitCode, err)
		}
	})
}

func TestJumpHostThatAllowsNoForwarding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(s *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
			behindJump(s, cfg, nodes)
			nodes[jump].Forward = nil
		})
		_, err := s.run("true")
		if !errors.Is(err, executor.ErrUnavailable) || !strings.Contains(err.Error(), "permit-port-forwarding") {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if n := s.nodes[jump].Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// provider gives what it is told to.
type provider func() (executor.Credential, error)

func (p provider) Credential(context.Context, identity.Identity, executor.Node) (executor.Credential, error) {
	return p()
}

func TestUnusableCredentialOfAProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		good, err := s.ca.Credential(t.Context(), s.caller, executor.Node{})
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.ca.Credential(t.Context(), s.caller, executor.Node{})
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]executor.Credential{
			"nothing":             {},
			"no account":          {Signer: good.Signer, Certificate: good.Certificate},
			"over":                {User: "alice", Signer: good.Signer, Certificate: good.Certificate, NotAfter: time.Now()},
			"other certificate":   {User: "alice", Signer: good.Signer, Certificate: other.Certificate},
			"certificate ignored": {User: "alice", Signer: good.Signer},
			"key alone":           {User: "alice", Signer: newSigner(t), Certificate: good.Certificate},
		} {
			s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
				cfg.Credentials = provider(func() (executor.Credential, error) { return c, nil })
			})
			if _, err := s.run("true"); !errors.Is(err, executor.ErrNoCredential) || len(s.nodes[node1].Logins()) != 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
