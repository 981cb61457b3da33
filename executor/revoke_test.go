package executor_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

// TestAThousandOpenConnectionsAreClosedWithinASecond measures the time from the
// call to the last connection closed, with a command running on each.
func TestAThousandOpenConnectionsAreClosedWithinASecond(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
		cfg.Pool.MaxConns, cfg.Pool.WaitTimeout = people, 5*time.Minute
		cfg.Systems[0].MaxHandshakes, cfg.Systems[0].ConnectTimeout = 16, time.Minute
	})
	var (
		running, ended sync.WaitGroup
		mu             sync.Mutex
		wrong          []error
	)
	for i := range people {
		caller := identitytest.Identity(t, fmt.Sprintf("user%d", i), time.Hour)
		running.Add(1)
		ended.Go(func() {
			_, err := s.executor.Run(t.Context(), caller, "hpc", executor.Command{
				Line: "stubborn 1h", Started: func(executor.Start) { running.Done() },
			})
			if !errors.Is(err, executor.ErrRevoked) {
				mu.Lock()
				wrong = append(wrong, err)
				mu.Unlock()
			}
		})
	}
	running.Wait()
	if n := s.nodes[node1].Conns(); n != people {
		t.Fatalf("%d connections are open, want %d", n, people)
	}
	began := time.Now()
	n := s.executor.CloseWhere(func(executor.Session) bool { return true })
	took := time.Since(began)
	t.Logf("%d connections closed, %d commands ended, %v after the call", n, people, took)
	if n != people || took > time.Second {
		t.Errorf("closed %d connections in %v, want %d in a second", n, took, people)
	}
	ended.Wait()
	if len(wrong) > 0 {
		t.Errorf("%d commands ended otherwise than revoked, such as by %v", len(wrong), wrong[0])
	}
	if open := s.executor.Stats().Pools["hpc"].Open; open != 0 {
		t.Errorf("%d connections are open still", open)
	}
}

// TestOnlyWhatMatchesIsClosed: the sessions of one person, with those of another
// on the same node going on; and what comes next is dialled afresh.
func TestOnlyWhatMatchesIsClosed(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	bob := identitytest.Identity(t, "bob", time.Hour)
	type answer struct {
		result executor.Result
		err    error
	}
	start := func(caller identity.Identity, line string) chan answer {
		started, done := make(chan struct{}), make(chan answer, 1)
		go func() {
			r, err := s.executor.Run(t.Context(), caller, "hpc", executor.Command{Line: line, Started: func(executor.Start) { close(started) }})
			done <- answer{r, err}
		}()
		<-started
		return done
	}
	first, second, other := start(s.caller, "stubborn 1h"), start(s.caller, "sleep 1h"), start(bob, "sleep 1s")
	var seen executor.Session
	n := s.executor.CloseWhere(func(session executor.Session) bool {
		if session.Login != "alice" {
			return false
		}
		seen = session
		return true
	})
	if n != 1 {
		t.Errorf("%d connections closed, want 1", n)
	}
	for _, a := range []answer{<-first, <-second} {
		if !errors.Is(a.err, executor.ErrRevoked) || a.result.Node != node1 {
			t.Errorf("alice's command ended with %v on %q", a.err, a.result.Node)
		}
	}
	if got := <-other; got.err != nil || got.result.ExitCode != 0 {
		t.Errorf("bob's command ended with %v, %d", got.err, got.result.ExitCode)
	}
	if len(seen.Certificates) != 1 || seen.Certificates[0].ValidPrincipals[0] != "alice" || seen.Issuer != "https://test.idp.test" || seen.Subject != "sub-alice" {
		t.Errorf("session is %+v", seen)
	}
	for _, e := range s.audit.of(audit.ExecEnd) {
		if e.Login == "alice" && e.Reason != "revoked" {
			t.Errorf("audit has the reason %q", e.Reason)
		}
	}
	dials := s.dials(node1)
	if _, err := s.run("true"); err != nil || s.dials(node1) != dials+1 {
		t.Errorf("the next command: %v, %d dials", err, s.dials(node1)-dials)
	}
	if n := s.executor.CloseWhere(func(c executor.Session) bool { return len(c.Certificates) == 1 && c.Certificates[0].Serial == 999 }); n != 0 {
		t.Errorf("%d connections of nobody closed", n)
	}
}

// TestConnectionThatIsBeingMadeIsClosedToo: its certificate is known only at the
// end of the dial.
func TestConnectionThatIsBeingMadeIsClosedToo(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	s := newSite(t, func(s *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
		cfg.Credentials = slowly{s.ca, asked, answer}
	})
	done := make(chan error, 1)
	go func() {
		_, err := s.run("true")
		done <- err
	}()
	<-asked
	if n := s.executor.CloseWhere(func(c executor.Session) bool { return len(c.Certificates) > 0 && c.Certificates[0].Serial == 1 }); n != 0 {
		t.Errorf("%d connections closed", n)
	}
	close(answer)
	if err := <-done; !errors.Is(err, executor.ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
	if _, err := s.run("true"); err != nil {
		t.Errorf("with the next certificate: %v", err)
	}
}

// slowly gives a credential when it may.
type slowly struct {
	*authority
	asked  chan struct{}
	answer chan struct{}
}

func (p slowly) Credential(ctx context.Context, caller identity.Identity, node executor.Node) (executor.Credential, error) {
	select {
	case <-p.answer:
	default:
		close(p.asked)
		<-p.answer
	}
	return p.authority.Credential(ctx, caller, node)
}
