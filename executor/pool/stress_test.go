package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor/pool"
)

// Many goroutines at once, without a pause in which the books could be compared
// until all is over: what the model test does step by step, for the race
// detector.
func TestConcurrentUseLosesNothing(t *testing.T) {
	const users, rounds = 100, 40
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.lifetime = 30 * time.Second
		n.closing = 10 * time.Millisecond
		n.sessions = 3
		p := newPool(t, config{
			MaxSessions: 8, MaxConnsPerKey: 3, MaxConns: 12, MaxDialsPerGroup: 4, Probe: probe, SessionGrace: time.Second,
			Group: func(string) string { return "node" },
		})
		var served, cancelled, failed atomic.Int64
		use := func(key string) {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Second))
			defer cancel()
			l, err := p.Reserve(ctx, key, n.dial)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				cancelled.Add(1)
				return
			case errors.Is(err, errDial), errors.Is(err, pool.ErrRevoked), errors.Is(err, pool.ErrFull):
				failed.Add(1)
				return
			case err != nil:
				t.Errorf("Reserve: %v", err)
				return
			}
			served.Add(1)
			c := l.Conn()
			if !c.openSession() {
				l.Full()
				return
			}
			l.Granted()
			time.Sleep(rand.N(time.Second))
			c.closeSession()
			switch rand.N(100) {
			case 0:
				l.Discard()
			case 1:
				c.end()
				l.Release()
			case 2:
				c.freeze()
				l.Release()
			default:
				l.Release()
			}
		}
		var wg sync.WaitGroup
		for u := range users {
			wg.Go(func() {
				for range rounds {
					use(fmt.Sprint("user-", u%20))
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				time.Sleep(time.Second)
				n.set(func(n *fakeNode) { n.refuse = 1 })
				p.CloseWhere(func(k string) bool { return k == "user-3" })
			}
		})
		wg.Wait()
		if got := served.Load() + cancelled.Load() + failed.Load(); got != users*rounds || served.Load() < users*rounds/2 {
			t.Errorf("%d served, %d cancelled, %d failed", served.Load(), cancelled.Load(), failed.Load())
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if err := p.Check(); err != nil {
			t.Error(err)
		}
		s := p.Stats()
		if keys, _ := p.Keys(); keys != 0 || s.Leases+s.Open+s.Waiting+s.Dialing != 0 {
			t.Errorf("%d keys are left, stats = %+v", keys, s)
		}
		if n.mostOpen > 12 || n.mostDial > 4 || s.Refusals == 0 || s.Evicted == 0 {
			t.Errorf("%d open, %d dials at once, stats = %+v", n.mostOpen, n.mostDial, s)
		}
	})
}

// The same without a bubble: real time, real parallelism.
func TestConcurrentUseInRealTime(t *testing.T) {
	t.Parallel()
	n := newNode()
	n.latency = time.Millisecond
	p := newPool(t, config{MaxSessions: 3, MaxConnsPerKey: 2, MaxConns: 5})
	var wg sync.WaitGroup
	for u := range 32 {
		wg.Go(func() {
			for i := range 200 {
				l, err := p.Reserve(t.Context(), fmt.Sprint("user-", u%4), n.dial)
				if err != nil {
					t.Errorf("Reserve: %v", err)
					return
				}
				if i%50 == 49 {
					l.Discard()
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.Leases != 0 || s.Waiting != 0 || n.mostOpen > 5 {
		t.Errorf("%d open at once, stats = %+v", n.mostOpen, s)
	}
}
