package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor/pool"
)

func TestTwoHundredParallelReservationsNeedFourConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.sessions = 10
		p := newPool(t, config{})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				l, err := p.Reserve(t.Context(), "a", n.dial)
				if err != nil {
					t.Errorf("Reserve: %v", err)
					return
				}
				if !l.Conn().openSession() {
					t.Error("more sessions than the node allows")
				}
				time.Sleep(100 * time.Millisecond)
				l.Conn().closeSession()
				l.Release()
			})
		}
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took != 550*time.Millisecond {
			t.Errorf("took %s; one dial and five rounds of 40 make 550ms", took)
		}
		s := p.Stats()
		if n.dials() != 4 || s.Dials != 4 || s.Open != 4 || s.Idle != 4 || s.Leases != 0 || s.Waiting != 0 {
			t.Errorf("dials %d, stats %+v", n.dials(), s)
		}
		if s.Waits != 200 || s.WaitTime == 0 {
			t.Errorf("waits %d, wait time %s", s.Waits, s.WaitTime)
		}
	})
}

func TestNoMoreIsDialledThanTheWaitersNeed(t *testing.T) {
	for _, tc := range []struct{ callers, dials int }{{1, 1}, {10, 1}, {11, 2}, {20, 2}, {21, 3}, {40, 4}, {41, 4}} {
		t.Run(fmt.Sprintf("%d callers", tc.callers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				p := newPool(t, config{})
				ctx, cancel := context.WithCancel(t.Context())
				for range tc.callers {
					later(ctx, p, "a", n.dial)
					synctest.Wait()
				}
				time.Sleep(time.Second)
				cancel()
				synctest.Wait()
				if got := n.dials(); got != tc.dials {
					t.Errorf("dials = %d, want %d", got, tc.dials)
				}
			})
		})
	}
}

func TestCallersOfOneKeyShareAndOthersDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{})
		a1, a2, b := reserve(t, p, "a", n), reserve(t, p, "a", n), reserve(t, p, "b", n)
		if a1.Conn() != a2.Conn() {
			t.Error("two leases of one key are on two connections")
		}
		if a1.Conn() == b.Conn() {
			t.Error("two keys share a connection")
		}
		if s := p.Stats(); s.Leases != 3 || s.Open != 2 || s.Idle != 0 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestLeasesGoToTheLeastLoadedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 4})
		left := map[int]int{}
		for _, l := range reserveN(t, p, "a", n, 8) {
			id := l.Conn().id
			if left[id]++; left[id] > 3-2*id { // leave three on one, one on the other
				l.Release()
			}
		}
		for range 2 {
			if l := reserve(t, p, "a", n); l.Conn().id != 1 {
				t.Error("the busier connection was preferred")
			}
		}
	})
}

func TestWaitersAreServedInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 1})
		first := reserve(t, p, "a", n)
		var order []int
		for i := range 20 {
			go func() {
				l, err := p.Reserve(t.Context(), "a", n.dial)
				if err != nil {
					t.Errorf("Reserve: %v", err)
					return
				}
				order = append(order, i) // one at a time: MaxSessions is 1
				l.Release()
			}()
			synctest.Wait()
		}
		first.Release()
		synctest.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("order = %v", order)
			}
		}
		if len(order) != 20 {
			t.Fatalf("%d of 20 were served", len(order))
		}
	})
}

func TestWaitEndsAfterWaitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 1, WaitTimeout: 7 * time.Second})
		l := reserve(t, p, "a", n)
		start := time.Now()
		_, err := p.Reserve(t.Context(), "a", n.dial)
		if !errors.Is(err, pool.ErrFull) || time.Since(start) != 7*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		l.Release()
		reserve(t, p, "a", n).Release()
		if s := p.Stats(); s.Full != 1 || s.Waiting != 0 || s.WaitTime != 7*time.Second+50*time.Millisecond {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestWaitEndsWithTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 1})
		reserve(t, p, "a", n)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Reserve(ctx, "a", n.dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v", err)
		}
		if _, err := p.Reserve(ctx, "a", n.dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("context that had ended: error = %v", err)
		}
		if s := p.Stats(); s.Cancelled != 1 || s.Waits != 2 || s.Waiting != 0 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestOneWaiterTooManyIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxWaiters: 2})
		a, b := later(t.Context(), p, "a", n.dial), later(t.Context(), p, "b", n.dial)
		synctest.Wait()
		start := time.Now()
		if _, err := p.Reserve(t.Context(), "c", n.dial); !errors.Is(err, pool.ErrFull) || time.Since(start) != 0 {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		if keys, _ := p.Keys(); keys != 2 {
			t.Errorf("%d keys are remembered, want 2", keys)
		}
		for _, o := range []outcome{<-a, <-b} {
			if o.err != nil {
				t.Errorf("waiter within the limit: %v", o.err)
			}
		}
		reserve(t, p, "c", n).Release() // nobody waits any more
	})
}

func TestALeaseGrantedToSomeoneWhoJustLeftIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 1, WaitTimeout: time.Hour})
		held := reserve(t, p, "a", n)
		for range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			leaving := later(ctx, p, "a", n.dial)
			synctest.Wait()
			next := later(t.Context(), p, "a", n.dial)
			synctest.Wait()
			cancel() // the waiter is awake, but not yet gone,
			held.Release()
			if o := <-leaving; o.err == nil {
				o.lease.Release() // it was served before it left
			}
			o := <-next
			if o.err != nil {
				t.Fatalf("next in line: %v", o.err)
			}
			held = o.lease
			synctest.Wait()
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
		}
		held.Release()
		if s := p.Stats(); s.Leases != 0 || s.Idle != 1 || s.Waiting != 0 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestALeaseGrantedAtTheEndOfTheWaitIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 1, WaitTimeout: time.Second})
		held := reserve(t, p, "a", n)
		var served, full uint64
		for range 200 {
			w := later(t.Context(), p, "a", n.dial)
			time.Sleep(time.Second) // both timers fire now
			held.Release()
			o := <-w
			if o.err == nil {
				served++
				held = o.lease
			} else {
				full++
				held = reserve(t, p, "a", n)
			}
			synctest.Wait()
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if s := p.Stats(); s.Leases != 1 || s.Full != full || served+full != 200 {
			t.Errorf("%d served, %d not, stats = %+v", served, full, s)
		}
		held.Release()
	})
}

func TestALeaseEndsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 2})
		l, other := reserve(t, p, "a", n), reserve(t, p, "a", n)
		l.Release()
		l.Release()
		l.Discard()
		l.Full()
		l.Granted()
		if s := p.Stats(); s.Leases != 1 || s.Refusals != 0 {
			t.Errorf("stats = %+v", s)
		}
		if err := p.Check(); err != nil {
			t.Error(err)
		}
		if again := reserve(t, p, "a", n); again.Conn() != other.Conn() {
			t.Error("ending a lease twice had an effect on the connection")
		}
	})
}

func TestConfigReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := pool.New(config{
		MaxSessions: -1, MaxConnsPerKey: -2, MaxConns: -3, MaxWaiters: -4, MaxDialsPerGroup: -5,
		IdleTimeout: -6, MaxLifetime: -7, LifetimeJitter: -8, RenewBefore: -9, SessionGrace: -10, DialTimeout: -11,
		WaitTimeout: -12, LearnedFor: -13, ProbeInterval: -14, ProbeTimeout: -15,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{
		"MaxSessions", "MaxConnsPerKey", "MaxConns", "MaxWaiters", "MaxDialsPerGroup",
		"IdleTimeout", "MaxLifetime", "LifetimeJitter", "RenewBefore", "SessionGrace", "DialTimeout", "WaitTimeout",
		"LearnedFor", "ProbeInterval", "ProbeTimeout",
	} {
		if !strings.Contains(err.Error(), field+" is negative: -") {
			t.Errorf("no word about %s in:\n%v", field, err)
		}
	}
}

func TestALeaseKnowsWhetherItsConnectionServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxLifetime: time.Hour, LifetimeJitter: 1, RenewBefore: 1})
		l, other := reserve(t, p, "a", n), reserve(t, p, "a", n)
		if !l.Serving() {
			t.Error("a fresh connection does not serve")
		}
		other.Discard()
		if l.Serving() {
			t.Error("a discarded connection serves")
		}
		l.Release()
		l = reserve(t, p, "a", n)
		defer l.Release()
		time.Sleep(time.Hour - time.Second)
		if !l.Serving() {
			t.Error("does not serve before the end of its lifetime")
		}
		time.Sleep(time.Second)
		if l.Serving() {
			t.Error("serves after the end of its lifetime")
		}
	})
}
