package executor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

// person is a caller of the site with a login of his own.
func person(t testing.TB, login string) identity.Identity {
	t.Helper()
	return identitytest.Identity(t, login, 12*time.Hour)
}

func TestOneCallersManyCommandsDelayAnothersSingleOneByFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Systems[0].MaxStarts, cfg.Pool.MaxWaiters = 4, 4096
		})
		mallory, alice := person(t, "mallory"), person(t, "alice")
		var all sync.WaitGroup
		for range 400 {
			all.Go(func() {
				if _, err := s.executor.Run(t.Context(), mallory, "hpc", executor.Command{Line: "sleep 50ms"}); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond) // some of them have run
		before := len(s.audit.of(audit.ExecStart))
		if _, err := s.executor.Run(t.Context(), alice, "hpc", executor.Command{Line: "true"}); err != nil {
			t.Fatal(err)
		}
		// She waits for a login of her own, too, while he goes on with four at once.
		starts := s.audit.of(audit.ExecStart)
		if n := len(starts) - before; n > 20 {
			t.Errorf("%d commands of another began before hers", n)
		}
		all.Wait()
		if n := len(s.audit.of(audit.ExecStart)); n != 401 {
			t.Errorf("%d commands were started, want 401", n)
		}
		if left := s.executor.Stats().Nodes["hpc"][node1]; left.Out != 0 || left.Waiting != 0 {
			t.Errorf("at the end: %+v", left)
		}
	})
}

func TestLongCommandsDoNotHoldUpTheStartsOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) { cfg.Systems[0].MaxStarts = 2 })
		ctx, stop := context.WithCancel(t.Context())
		var long sync.WaitGroup
		for range 10 {
			long.Go(func() { _, _ = s.executor.Run(ctx, s.caller, "hpc", executor.Command{Line: "sleep 1h"}) })
		}
		time.Sleep(2 * time.Second)
		if n := len(s.audit.of(audit.ExecStart)); n != 10 {
			t.Errorf("%d of 10 long commands were started", n)
		}
		began := time.Now()
		if _, err := s.executor.Run(t.Context(), person(t, "alice"), "hpc", executor.Command{Line: "true"}); err != nil || time.Since(began) > time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		stop()
		long.Wait()
	})
}

func TestWhoAsksForTooMuchIsToldWhenToComeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Systems[0].MaxStarts, cfg.Pool.MaxWaiters = 1, 8
		})
		if _, err := s.run("true"); err != nil { // now there is a connection
			t.Fatal(err)
		}
		results := make(chan error, 20)
		for range 20 {
			go func() { _, err := s.run("sleep 100ms"); results <- err }()
		}
		refused := 0
		for range 20 {
			err := <-results
			if err == nil {
				continue
			}
			busy, ok := errors.AsType[*executor.RetryError](err)
			if !ok || !errors.Is(err, executor.ErrCallerBusy) || busy.RetryAfter < time.Second {
				t.Errorf("got %v", err)
			}
			refused++
		}
		// One runs, and a caller may have a quarter of the 8 places waiting.
		if refused == 0 || refused > 17 {
			t.Errorf("%d of 20 were refused", refused)
		}
	})
}
