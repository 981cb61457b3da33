package pool_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnIdleConnectionIsClosedAfterIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{IdleTimeout: time.Minute})
		l := reserve(t, p, "a", n)
		time.Sleep(10 * time.Minute) // in use is not idle
		if l.Conn().closed() {
			t.Fatal("closed while in use")
		}
		l.Release()
		time.Sleep(59 * time.Second)
		reserve(t, p, "a", n).Release() // idle time starts anew
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if l.Conn().closed() || n.dials() != 1 {
			t.Fatal("closed before its time")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !l.Conn().closed() {
			t.Fatal("not closed in time")
		}
		if s := p.Stats(); s.IdleClosed != 1 || s.Open != 0 {
			t.Errorf("stats = %+v", s)
		}
		if keys, groups := p.Keys(); keys != 0 || groups != 0 {
			t.Errorf("%d keys, %d groups are remembered", keys, groups)
		}
	})
}

func TestNoLeaseIsGrantedPastMaxLifetimeAndRunningOnesFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxLifetime: 10 * time.Minute, LifetimeJitter: 1})
		l := reserve(t, p, "a", n)
		time.Sleep(10 * time.Minute)
		next := reserve(t, p, "a", n)
		if next.Conn() == l.Conn() {
			t.Error("a lease was granted past the lifetime")
		}
		time.Sleep(time.Hour)
		if l.Conn().closed() {
			t.Error("closed under a running lease")
		}
		l.Release()
		synctest.Wait()
		if !l.Conn().closed() {
			t.Error("still open after its last lease")
		}
	})
}

// The pool's own timer and the caller's reservation come in the same instant.
func TestNoLeaseIsGrantedInTheInstantOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.latency = 0
		p := newPool(t, config{MaxLifetime: time.Minute, LifetimeJitter: 1, IdleTimeout: time.Hour, MaxDialsPerGroup: 1000})
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				key := fmt.Sprint("user-", i)
				l, err := p.Reserve(t.Context(), key, n.dial)
				if err != nil {
					t.Errorf("Reserve: %v", err)
					return
				}
				l.Release()
				time.Sleep(time.Minute)
				next, err := p.Reserve(t.Context(), key, n.dial)
				if err != nil {
					t.Errorf("Reserve: %v", err)
					return
				}
				if next.Conn() == l.Conn() {
					t.Error("a lease was granted past the lifetime")
				}
				next.Release()
			})
		}
		wg.Wait()
		if s := p.Stats(); s.Expired != 300 || s.Dials != 600 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestLifetimesAreSpreadByJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		p := newPool(t, config{
			MaxSessions: 1, MaxConnsPerKey: 100, MaxDialsPerGroup: 100,
			LifetimeJitter: 30 * time.Second, SessionGrace: time.Hour,
		})
		var waits []<-chan outcome
		for range 100 {
			waits = append(waits, later(t.Context(), p, "a", n.dial))
		}
		for _, w := range waits {
			defer (<-w).lease.Release()
		}
		expired := func() int { synctest.Wait(); return int(p.Stats().Expired) }
		time.Sleep(5*time.Minute - 30*time.Second - 1)
		if got := expired(); got != 0 {
			t.Errorf("%d connections expired more than the jitter too early", got)
		}
		time.Sleep(15 * time.Second)
		if got := expired(); got < 20 || got > 80 {
			t.Errorf("%d of 100 expired in the first half of the jitter", got)
		}
		time.Sleep(15*time.Second + 1)
		if got := expired(); got != 100 {
			t.Errorf("%d of 100 expired with their credential", got)
		}
	})
}

func TestAConnectionIsClosedUnderItsLeasesWhenTheGraceIsOver(t *testing.T) {
	for _, grace := range []time.Duration{0, 2 * time.Minute} {
		t.Run(grace.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				n.lifetime = 5 * time.Minute
				p := newPool(t, config{SessionGrace: grace})
				l := reserve(t, p, "a", n)
				time.Sleep(5*time.Minute + grace - 1)
				synctest.Wait()
				if l.Conn().closed() {
					t.Error("closed before the grace was over")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if !l.Conn().closed() {
					t.Error("outlived its credential and the grace")
				}
				l.Release()
				if s := p.Stats(); s.CutOff != 1 || s.Expired != 1 || s.Leases != 0 || s.Open != 0 {
					t.Errorf("stats = %+v", s)
				}
			})
		})
	}
}

func TestAShortLifetimeNeverShowsAsLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		n.latency = 2 * time.Second
		p := newPool(t, config{MaxConnsPerKey: 1, SessionGrace: time.Minute})
		reserve(t, p, "a", n).Release()
		for range 24 * 60 * 60 / 5 { // a day, a lease every five seconds
			start := time.Now()
			l := reserve(t, p, "a", n)
			if took := time.Since(start); took != 0 {
				t.Fatalf("a reservation took %s", took)
			}
			if !time.Now().Before(l.Conn().notAfter) {
				t.Fatal("lease on a connection whose credential has expired")
			}
			time.Sleep(5 * time.Second)
			if l.Conn().closed() {
				t.Fatal("the lease was cut off")
			}
			l.Release()
		}
		if s := p.Stats(); s.Expired != 0 || s.Waits != 1 || s.Open > 2 || s.Dials < 288 || s.Dials > 400 || s.Renewed != s.Dials-1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestANewConnectionStandsBeforeTheOldOneDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		n.latency = 3 * time.Second
		p := newPool(t, config{LifetimeJitter: 1, RenewBefore: 20 * time.Second, SessionGrace: time.Minute})
		old := reserve(t, p, "a", n)
		time.Sleep(5*time.Minute - 21*time.Second)
		reserve(t, p, "a", n).Release()
		time.Sleep(time.Second)
		if n.dials() != 1 {
			t.Fatal("renewed too early, or without a reservation that asks for it")
		}
		second := reserve(t, p, "a", n)
		synctest.Wait()
		reserve(t, p, "a", n).Release() // one successor is enough
		synctest.Wait()
		if second.Conn() != old.Conn() || n.dials() != 2 {
			t.Fatalf("while its successor is dialled the old connection serves; %d dials", n.dials())
		}
		time.Sleep(4 * time.Second)
		third := reserve(t, p, "a", n)
		if third.Conn() == old.Conn() {
			t.Error("the old connection takes leases although its successor stands")
		}
		if old.Conn().closed() {
			t.Error("the old connection was closed under its leases")
		}
		old.Release()
		second.Release()
		synctest.Wait()
		if !old.Conn().closed() || third.Conn().closed() {
			t.Error("the old connection has to go, the new one to stay")
		}
	})
}

func TestAFailedRenewalLeavesTheOldConnectionInService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		p := newPool(t, config{LifetimeJitter: 1, RenewBefore: 20 * time.Second, MaxConnsPerKey: 1})
		old := reserve(t, p, "a", n)
		time.Sleep(4*time.Minute + 45*time.Second)
		n.set(func(n *fakeNode) { n.refuse = 2 })
		for range 30 { // three seconds
			l := reserve(t, p, "a", n)
			if l.Conn() != old.Conn() && n.dials() < 4 {
				t.Fatal("served by another connection")
			}
			l.Release()
			time.Sleep(100 * time.Millisecond)
		}
		if s := p.Stats(); s.DialFailures != 2 || s.Dials != 4 || s.Waits != 1 {
			t.Errorf("two failures, a second apart, and a success: stats = %+v", s)
		}
	})
}

func TestAnUnusedConnectionIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		p := newPool(t, config{IdleTimeout: time.Hour})
		reserve(t, p, "a", n).Release()
		time.Sleep(6 * time.Minute)
		if s := p.Stats(); n.dials() != 1 || s.Open != 0 || s.Expired != 1 {
			t.Errorf("%d dials, stats %+v", n.dials(), s)
		}
	})
}

func TestALostConnectionWhoseRenewalIsUnderWayIsReplacedByIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		p := newPool(t, config{LifetimeJitter: 1, MaxSessions: 1, MaxConnsPerKey: 1, IdleTimeout: time.Hour})
		old := reserve(t, p, "a", n)
		old.Release()
		time.Sleep(4*time.Minute + 55*time.Second)
		n.set(func(n *fakeNode) { n.latency = 4 * time.Second })
		reserve(t, p, "a", n).Release()
		synctest.Wait()
		old.Conn().end()
		synctest.Wait()
		first, second := later(t.Context(), p, "a", n.dial), later(t.Context(), p, "a", n.dial)
		synctest.Wait()
		if err := p.Check(); err != nil {
			t.Error(err)
		}
		for range 2 { // one after the other, in any order
			select {
			case o := <-first:
				o.lease.Release()
			case o := <-second:
				o.lease.Release()
			}
		}
		if n.dials() != 2 {
			t.Errorf("dials = %d, want 2", n.dials())
		}
	})
}

func TestARenewalTakesNoneOfTheKeysConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		p := newPool(t, config{LifetimeJitter: 1, MaxSessions: 1, MaxConnsPerKey: 2, IdleTimeout: time.Hour})
		reserve(t, p, "a", n).Release()
		time.Sleep(4*time.Minute + 45*time.Second)
		reserve(t, p, "a", n) // starts the renewal
		for range 2 {         // one counts on the successor, the other needs a second connection
			later(t.Context(), p, "a", n.dial)
		}
		synctest.Wait()
		if n.dials() != 3 {
			t.Errorf("dials = %d, want 3", n.dials())
		}
		time.Sleep(time.Second)
		if s := p.Stats(); s.Leases != 3 || s.Waiting != 0 || s.Renewed != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestALostConnectionNeedsNoRenewalAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, slow := newNode(), newNode()
		n.lifetime = 5 * time.Minute
		slow.latency = 10 * time.Second
		p := newPool(t, config{LifetimeJitter: 1, MaxDialsPerGroup: 1, IdleTimeout: time.Hour})
		l := reserve(t, p, "a", n)
		time.Sleep(4*time.Minute + 45*time.Second)
		w := later(t.Context(), p, "b", slow.dial)
		synctest.Wait()
		reserve(t, p, "a", n).Release() // wants a renewal, which has to wait for b's dial
		l.Conn().end()
		if o := <-w; o.err != nil {
			t.Error(o.err)
		}
		time.Sleep(time.Minute)
		if err := p.Check(); err != nil || n.dials() != 1 {
			t.Errorf("%d dials, %v", n.dials(), err)
		}
		l.Release()
		if s := p.Stats(); s.Renewed != 0 || s.Lost != 1 || s.Open != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

// TestTheOnlyPlaceIsNotTakenFromWhomItRenews: the renewal of the only connection that
// there may be finds room when that falls idle, and no one to renew for then.
func TestTheOnlyPlaceIsNotTakenFromWhomItRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 5 * time.Minute
		p := newPool(t, config{LifetimeJitter: 1, MaxConns: 1, IdleTimeout: time.Hour})
		reserve(t, p, "a", n).Release()
		time.Sleep(4*time.Minute + 45*time.Second)
		reserve(t, p, "a", n).Release() // asks for a renewal, for which there is no place
		time.Sleep(time.Second)
		if err := p.Check(); err != nil {
			t.Error(err)
		}
		reserve(t, p, "a", n).Release()
		if err := p.Check(); err != nil || n.dials() != 2 {
			t.Errorf("%d dials, %v", n.dials(), err)
		}
	})
}
