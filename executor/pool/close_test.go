package pool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor/pool"
)

func TestADiscardedConnectionIsClosedAfterItsLastLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{})
		a, b := reserve(t, p, "a", n), reserve(t, p, "a", n)
		a.Discard()
		c := reserve(t, p, "a", n)
		if c.Conn() == a.Conn() {
			t.Error("a discarded connection takes new leases")
		}
		if a.Conn().closed() {
			t.Error("closed under another lease")
		}
		b.Release()
		synctest.Wait()
		if !a.Conn().closed() || c.Conn().closed() {
			t.Error("the discarded connection has to go, the other one to stay")
		}
	})
}

func TestABrokenConnectionIsRemovedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{})
		idle := reserve(t, p, "idle", n)
		idle.Release()
		used := reserve(t, p, "used", n)
		idle.Conn().end()
		used.Conn().end()
		synctest.Wait()
		if s := p.Stats(); s.Open != 0 || s.Idle != 0 || s.Lost != 2 || s.Leases != 1 {
			t.Errorf("stats = %+v", s)
		}
		if next := reserve(t, p, "used", n); next.Conn() == used.Conn() {
			t.Error("lease on a broken connection")
		}
		used.Release()
	})
}

func TestWaitersOfABrokenConnectionGetAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 1})
		l := reserve(t, p, "a", n)
		w := later(t.Context(), p, "a", n.dial)
		time.Sleep(time.Second)
		l.Conn().end()
		if o := <-w; o.err != nil || n.dials() != 2 {
			t.Errorf("error %v, %d dials", o.err, n.dials())
		}
	})
}

func TestABlockingCloseHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.closing = time.Hour
		p := newPool(t, config{})
		l := reserve(t, p, "a", n)
		start := time.Now()
		l.Discard()
		l = reserve(t, p, "a", n)
		l.Release()
		reserve(t, p, "b", n).Release()
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("took %s, two dials take 100ms", took)
		}
	})
}

func TestAFailedCloseIsLoggedAndTheConnectionForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := newNode()
		n.closeErr = errors.New("reset by peer")
		p := newPool(t, config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		reserve(t, p, "a", n).Discard()
		synctest.Wait()
		if keys, _ := p.Keys(); keys != 0 || !strings.Contains(log.String(), "reset by peer") {
			t.Errorf("%d keys are remembered; log: %s", keys, log.String())
		}
	})
}

func TestAFrozenPeerIsFoundByTheProbe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		leases int
	}{{"idle", 0}, {"in use", 3}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				p := newPool(t, config{Probe: probe, IdleTimeout: time.Hour})
				first := reserve(t, p, "a", n)
				reserveN(t, p, "a", n, tc.leases)
				first.Release()
				c := first.Conn()
				time.Sleep(40 * time.Second) // probed at 15 and 30 s
				c.freeze()
				time.Sleep(10*time.Second - 1)
				synctest.Wait()
				if c.closed() {
					t.Error("closed before the answer was due")
				}
				time.Sleep(100*time.Millisecond + 1) // probed at 45 s, no answer until 50 s and a moment
				synctest.Wait()
				if s := p.Stats(); !c.closed() || s.ProbesFailed != 1 || s.Open != 0 || s.Lost != 0 {
					t.Errorf("closed: %t, stats = %+v", c.closed(), s)
				}
			})
		})
	}
}

func TestAConnectionWhoseProbeFailsIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		var probes int
		p := newPool(t, config{ProbeInterval: time.Second, Probe: func(context.Context, *fakeConn) error {
			if probes++; probes == 3 {
				return errors.New("strange answer")
			}
			return nil
		}})
		l := reserve(t, p, "a", n)
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		if l.Conn().closed() {
			t.Error("closed although the probes were answered")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if s := p.Stats(); !l.Conn().closed() || probes != 3 || s.ProbesFailed != 1 {
			t.Errorf("closed: %t, %d probes, stats = %+v", l.Conn().closed(), probes, s)
		}
	})
}

func TestARunningProbeDoesNotDelayClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{Probe: probe})
		l := reserve(t, p, "a", n)
		l.Conn().freeze()
		time.Sleep(16 * time.Second)
		start := time.Now()
		l.Discard()
		synctest.Wait()
		if s := p.Stats(); !l.Conn().closed() || time.Since(start) != 0 || s.ProbesFailed != 0 {
			t.Errorf("closed: %t, stats = %+v", l.Conn().closed(), s)
		}
	})
}

func TestCloseWhereEndsTheConnectionsOfMatchingKeysOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, slow := newNode(), newNode()
		slow.latency = time.Minute
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 2, DialTimeout: time.Hour, WaitTimeout: time.Hour})
		used, draining, other := reserve(t, p, "alice", n), reserve(t, p, "alice", n), reserve(t, p, "bob", n)
		queued := []<-chan outcome{later(t.Context(), p, "alice", n.dial), later(t.Context(), p, "amy", slow.dial)}
		synctest.Wait()
		start := time.Now()
		if got := p.CloseWhere(func(k string) bool { return k[0] == 'a' }); got != 3 {
			t.Errorf("CloseWhere = %d, want 2 connections and 1 dial", got)
		}
		if !used.Conn().closed() || !draining.Conn().closed() || other.Conn().closed() {
			t.Error("both of alice's connections have to be closed when CloseWhere returns, bob's not")
		}
		for _, w := range queued {
			if o := <-w; !errors.Is(o.err, pool.ErrRevoked) || o.at != start {
				t.Errorf("waiter: %v after %s", o.err, o.at.Sub(start))
			}
		}
		used.Release()
		draining.Discard()
		if l := reserve(t, p, "alice", n); l.Conn() == used.Conn() {
			t.Error("a closed connection came back")
		}
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectionThatArrivesAfterCloseWhereIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		stubborn := func(ctx context.Context) (pool.Dialed[*fakeConn], error) {
			return n.dial(context.WithoutCancel(ctx)) // has passed the point of no return
		}
		p := newPool(t, config{})
		w := later(t.Context(), p, "a", stubborn)
		synctest.Wait()
		p.CloseWhere(func(string) bool { return true })
		n2 := newNode()
		n2.latency = time.Second
		next := later(t.Context(), p, "a", n2.dial)
		if o := <-w; !errors.Is(o.err, pool.ErrRevoked) {
			t.Errorf("waiter: %v", o.err)
		}
		o := <-next
		if o.err != nil || o.lease.Conn().node != n2 {
			t.Errorf("a caller after CloseWhere got %v, and must not get the old connection", o.err)
		}
		if len(n.conns) != 1 || !n.conns[0].closed() {
			t.Error("the late connection is open")
		}
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAbandonedDialCountsUntilItHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.latency = 10 * time.Second
		stubborn := func(ctx context.Context) (pool.Dialed[*fakeConn], error) {
			return n.dial(context.WithoutCancel(ctx))
		}
		p := newPool(t, config{MaxDialsPerGroup: 1})
		w := later(t.Context(), p, "a", stubborn)
		synctest.Wait()
		start := time.Now()
		p.CloseWhere(func(string) bool { return true })
		reserve(t, p, "a", n).Release()
		if o := <-w; !errors.Is(o.err, pool.ErrRevoked) {
			t.Errorf("waiter: %v", o.err)
		}
		if took := time.Since(start); took != 20*time.Second || n.mostDial != 1 {
			t.Errorf("took %s, %d dials at once", took, n.mostDial)
		}
	})
}

func TestCloseWhereEndsDialsThatHeedTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.latency = 10 * time.Second
		p := newPool(t, config{MaxDialsPerGroup: 1})
		later(t.Context(), p, "a", n.dial)
		synctest.Wait()
		p.CloseWhere(func(string) bool { return true })
		synctest.Wait()
		if s := p.Stats(); s.Dialing != 0 || s.DialFailures != 0 {
			t.Errorf("stats = %+v", s)
		}
		if keys, groups := p.Keys(); keys != 0 || groups != 0 {
			t.Errorf("%d keys, %d groups are remembered", keys, groups)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, slow := newNode(), newNode()
		slow.latency = time.Hour
		p, err := pool.New(config{Probe: probe, DialTimeout: time.Hour, WaitTimeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		l := reserve(t, p, "a", n)
		w := later(t.Context(), p, "b", slow.dial)
		synctest.Wait()
		start := time.Now()
		if err := p.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close took %s: %v", time.Since(start), err)
		}
		if o := <-w; !errors.Is(o.err, pool.ErrClosed) {
			t.Errorf("waiter: %v", o.err)
		}
		if _, err := p.Reserve(t.Context(), "a", n.dial); !errors.Is(err, pool.ErrClosed) {
			t.Errorf("Reserve: %v", err)
		}
		if !l.Conn().closed() {
			t.Error("the connection is open")
		}
		l.Release()
		if s := p.Stats(); s.Open != 0 || s.Leases != 0 || s.Waiting != 0 || s.Dialing != 0 {
			t.Errorf("stats = %+v", s)
		}
		if got := p.CloseWhere(func(string) bool { return true }); got != 0 {
			t.Errorf("CloseWhere = %d", got)
		}
		if err := p.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestCloseDoesNotWaitForACoolingKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p, err := pool.New(config{MaxSessions: 1})
		if err != nil {
			t.Fatal(err)
		}
		reserve(t, p, "a", n)
		n.set(func(n *fakeNode) { n.refuse = 1 })
		w := later(t.Context(), p, "a", n.dial)
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		if err := p.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close took %s: %v", time.Since(start), err)
		}
		if o := <-w; !errors.Is(o.err, pool.ErrClosed) {
			t.Errorf("waiter: %v", o.err)
		}
	})
}
