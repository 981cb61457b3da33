package pool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor/pool"
)

func TestDialOutlivesAnImpatientCallerAndServesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.latency = 5 * time.Second
		p := newPool(t, config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Reserve(ctx, "a", n.dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error = %v", err)
		}
		start := time.Now()
		reserve(t, p, "a", n).Release()
		if took := time.Since(start); took != 4*time.Second || n.dials() != 1 {
			t.Errorf("the next caller waited %s, %d dials", took, n.dials())
		}
	})
}

func TestDialSeesTheCallersValuesButNotItsEnd(t *testing.T) {
	type name struct{}
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{DialTimeout: 9 * time.Second})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), name{}, "alice"), time.Millisecond)
		defer cancel()
		seen := make(chan string, 1)
		_, err := p.Reserve(ctx, "a", func(ctx context.Context) (pool.Dialed[*fakeConn], error) {
			made, err := n.dial(ctx)
			deadline, ok := ctx.Deadline()
			seen <- fmt.Sprint(ctx.Value(name{}), " ", time.Until(deadline), ok, ctx.Err(), err)
			return made, err
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reserve: %v", err)
		}
		if got, want := <-seen, "alice 8.95s true <nil> <nil>"; got != want {
			t.Errorf("the dial saw %q, want %q", got, want)
		}
	})
}

func TestDialIsBoundedByDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.latency = time.Hour
		p := newPool(t, config{DialTimeout: 3 * time.Second})
		start := time.Now()
		_, err := p.Reserve(t.Context(), "a", n.dial)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

func TestDialErrorGoesToThoseWhoCountedOnItAndNotToLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.refuse = 1
		p := newPool(t, config{MaxConnsPerKey: 1})
		var waiters []<-chan outcome
		for range 15 {
			waiters = append(waiters, later(t.Context(), p, "a", n.dial))
			synctest.Wait()
		}
		for i, w := range waiters {
			o := <-w
			if failed := errors.Is(o.err, errDial); failed != (i < 10) {
				t.Errorf("waiter %d: %v", i, o.err)
			}
		}
		if s := p.Stats(); s.Dials != 2 || s.DialFailures != 1 || s.Leases != 5 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestDialErrorSparesThoseWhomAnotherDialCanServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, failing := newNode(), newNode()
		slow.latency = time.Second
		failing.err = errDial
		p := newPool(t, config{MaxSessions: 2})
		// Two dials for four waiters; the second one fails.
		waiters := []<-chan outcome{later(t.Context(), p, "a", slow.dial)}
		synctest.Wait()
		for range 3 {
			waiters = append(waiters, later(t.Context(), p, "a", failing.dial))
			synctest.Wait()
		}
		// The pool may use any waiter's function; the first waits longest.
		if slow.dials() != 2 {
			t.Fatalf("dials = %d", slow.dials())
		}
		slow.set(func(n *fakeNode) { n.refuse = 1 })
		var failed int
		for _, w := range waiters {
			if o := <-w; o.err != nil {
				failed++
			}
		}
		if s := p.Stats(); failed != 2 || s.Leases != 2 || s.DialFailures != 1 {
			t.Errorf("%d failed, stats = %+v", failed, s)
		}
	})
}

func TestDialErrorIsNobodysWhenTheOtherDialsWillDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 2})
		a, b := later(t.Context(), p, "a", n.dial), later(t.Context(), p, "a", n.dial)
		synctest.Wait()
		n.set(func(n *fakeNode) { n.latency = time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		c := later(ctx, p, "a", n.dial)
		synctest.Wait()
		cancel()
		n.set(func(n *fakeNode) { n.refuse = 1 }) // the second dial, which is quicker
		for i, w := range []<-chan outcome{a, b} {
			if o := <-w; o.err != nil {
				t.Errorf("waiter %d: %v", i, o.err)
			}
		}
		if o := <-c; !errors.Is(o.err, context.Canceled) {
			t.Errorf("the one that left: %v", o.err)
		}
		if s := p.Stats(); s.Dials != 2 || s.DialFailures != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestDialErrorIsNobodysWhileAConnectionStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := newNode()
		p := newPool(t, config{MaxSessions: 1, MaxConnsPerKey: 2, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l := reserve(t, p, "a", n)
		n.set(func(n *fakeNode) { n.refuse = 1 })
		w := later(t.Context(), p, "a", n.dial)
		time.Sleep(time.Second)
		if n.dials() != 2 {
			t.Errorf("dials = %d: another one within a second of a failure", n.dials())
		}
		o := <-w // a second later a new dial was made, by nobody's action
		if o.err != nil || o.lease.Conn() == l.Conn() || n.dials() != 3 {
			t.Errorf("error %v, %d dials", o.err, n.dials())
		}
		if got := log.String(); strings.Count(got, "background dial failed") != 1 || !strings.Contains(got, errDial.Error()) {
			t.Errorf("log: %s", got)
		}
		n.set(func(n *fakeNode) { n.refuse = 1 })
		w = later(t.Context(), p, "a", n.dial)
		synctest.Wait()
		l.Release()
		if o := <-w; o.err != nil || o.lease.Conn() != l.Conn() {
			t.Errorf("freed lease: %v", o.err)
		}
	})
}

func TestADialFailsForEveryoneWhenItsConnectionIsOfNoUse(t *testing.T) {
	for _, tc := range []struct {
		name string
		dial func(n *fakeNode) pool.Dial[*fakeConn]
		want string
	}{
		{"expired", func(n *fakeNode) pool.Dial[*fakeConn] { n.lifetime = -time.Second; return n.dial }, "expired"},
		{"expires at once", func(n *fakeNode) pool.Dial[*fakeConn] { n.lifetime = 1; n.latency = 0; return slowly(n.dial) }, "expired"},
		{"no function", func(*fakeNode) pool.Dial[*fakeConn] { return nil }, "dial function is nil"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				p := newPool(t, config{})
				_, err := p.Reserve(t.Context(), "a", tc.dial(n))
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error = %v, want one about %q", err, tc.want)
				}
				for _, c := range n.conns {
					if !c.closed() {
						t.Error("the connection is left open")
					}
				}
				if keys, groups := p.Keys(); keys != 0 || groups != 0 {
					t.Errorf("%d keys, %d groups are remembered", keys, groups)
				}
			})
		})
	}
}

// slowly returns the connection a second after it was made.
func slowly(dial pool.Dial[*fakeConn]) pool.Dial[*fakeConn] {
	return func(ctx context.Context) (pool.Dialed[*fakeConn], error) {
		defer time.Sleep(time.Second)
		return dial(ctx)
	}
}

func TestADialWithoutAConnectionIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := pool.New(pool.Config[string, pool.Conn]{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Reserve(t.Context(), "a", func(context.Context) (pool.Dialed[pool.Conn], error) {
			return pool.Dialed[pool.Conn]{}, nil
		})
		if err == nil || !strings.Contains(err.Error(), "no connection") {
			t.Errorf("error = %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestDialsOfAGroupAreBoundedAndKeysTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, quiet := newNode(), newNode()
		busy.latency = time.Second
		p := newPool(t, config{Group: func(k string) string { return k[:1] }})
		// The first key alone would need four dials, the second comes later.
		for range 40 {
			later(t.Context(), p, "b-first", busy.dial)
		}
		synctest.Wait()
		var others []<-chan outcome
		for i := range 28 {
			others = append(others, later(t.Context(), p, fmt.Sprint("b-", i), busy.dial))
			synctest.Wait()
		}
		start := time.Now()
		reserve(t, p, "q", quiet).Release()
		if took := time.Since(start); took != 50*time.Millisecond {
			t.Errorf("another group was held up for %s", took)
		}
		for i, w := range others {
			if o := <-w; o.err != nil || o.at.Sub(start).Round(time.Second) != time.Duration(1+(i+4)/8)*time.Second {
				t.Errorf("key %d: %v after %s", i, o.err, o.at.Sub(start))
			}
		}
		if busy.mostDial != 8 || busy.started != 32 {
			t.Errorf("%d dials, %d at once; want 32, 8", busy.started, busy.mostDial)
		}
	})
}

func TestAQueuedDialIsNotMadeForCallersWhoHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.latency = 10 * time.Second
		p := newPool(t, config{MaxDialsPerGroup: 1})
		first := later(t.Context(), p, "a", n.dial)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Reserve(ctx, "b", n.dial); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v", err)
		}
		if o := <-first; o.err != nil {
			t.Error(o.err)
		}
		time.Sleep(time.Minute)
		if n.dials() != 1 {
			t.Errorf("dials = %d, want 1", n.dials())
		}
	})
}

func TestTheLongestIdleConnectionMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		n.closing = 200 * time.Millisecond
		p := newPool(t, config{MaxConns: 3})
		a, b, c := reserve(t, p, "a", n), reserve(t, p, "b", n), reserve(t, p, "c", n)
		b.Release()
		time.Sleep(time.Second)
		a.Release()
		start := time.Now()
		d := reserve(t, p, "d", n)
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("took %s: the dial has to wait for the close", took)
		}
		if !b.Conn().closed() || a.Conn().closed() || c.Conn().closed() {
			t.Error("another one than the longest idle connection was closed")
		}
		if s := p.Stats(); n.mostOpen != 3 || s.Evicted != 1 || s.Open != 3 {
			t.Errorf("%d open at once, stats %+v", n.mostOpen, s)
		}
		d.Release()
	})
}

func TestADialThatEndsBeforeItsPlaceIsFreeLeavesItToTheClosingConnection(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(p *pool.Pool[string, *fakeConn])
		want error
	}{
		{"revoked", func(p *pool.Pool[string, *fakeConn]) { p.CloseWhere(func(k string) bool { return k == "b" }) }, pool.ErrRevoked},
		{"timed out", func(*pool.Pool[string, *fakeConn]) {}, context.DeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				n.closing = 10 * time.Second
				p := newPool(t, config{MaxConns: 1, DialTimeout: 5 * time.Second})
				reserve(t, p, "a", n).Release()
				w := later(t.Context(), p, "b", n.dial)
				synctest.Wait()
				tc.end(p)
				if o := <-w; !errors.Is(o.err, tc.want) {
					t.Errorf("waiter: %v, want %v", o.err, tc.want)
				}
				synctest.Wait()
				if err := p.Check(); err != nil {
					t.Error(err)
				}
				reserve(t, p, "c", n)
				if n.mostOpen != 1 {
					t.Errorf("%d connections at once, want 1", n.mostOpen)
				}
			})
		})
	}
}

func TestAtMaxConnsWithNothingIdleACallerWaits(t *testing.T) {
	for _, tc := range []struct {
		name string
		free func(l *lease)
	}{
		{"for one to fall idle", func(l *lease) { l.Release() }},
		{"for one to be discarded", func(l *lease) { l.Discard() }},
		{"for one to break", func(l *lease) { l.Conn().end() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				p := newPool(t, config{MaxConns: 2})
				a, b := reserve(t, p, "a", n), reserve(t, p, "b", n)
				w := later(t.Context(), p, "c", n.dial)
				time.Sleep(5 * time.Second)
				if n.dials() != 2 {
					t.Fatalf("dials = %d", n.dials())
				}
				tc.free(a)
				if o := <-w; o.err != nil || n.mostOpen != 2 {
					t.Errorf("error %v, %d open at once", o.err, n.mostOpen)
				}
				b.Release()
			})
		})
	}
}
