package pool_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor/pool"
)

// run does what a user of the pool does: it opens a session, tries again
// elsewhere when the node refuses it, and holds it for a while. It returns how
// often it was refused.
func run(t *testing.T, p *pool.Pool[string, *fakeConn], n *fakeNode, d time.Duration) (refused int) {
	for {
		l, err := p.Reserve(t.Context(), "a", n.dial)
		if err != nil {
			t.Errorf("Reserve: %v", err)
			return refused
		}
		time.Sleep(time.Millisecond)
		granted := l.Conn().openSession()
		time.Sleep(time.Millisecond) // until the answer is here
		if !granted {
			refused++
			time.Sleep(time.Millisecond) // refusals are noticed late
			l.Full()
			continue
		}
		l.Granted()
		time.Sleep(d)
		l.Conn().closeSession()
		l.Release()
		return refused
	}
}

func TestALowerLimitOfTheNodeIsLearned(t *testing.T) {
	for _, tc := range []struct {
		name  string
		holds time.Duration
	}{{"with long sessions", time.Second}, {"with sessions that end before the refusals are noticed", 500 * time.Microsecond}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode()
				n.sessions = 4
				p := newPool(t, config{})
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						if refused := run(t, p, n, tc.holds); refused > 1 {
							t.Errorf("refused %d times", refused)
						}
					})
				}
				wg.Wait()
				first := p.Stats().Refusals
				for range 200 {
					wg.Go(func() {
						if refused := run(t, p, n, time.Second); refused > 0 {
							t.Errorf("refused %d times although the limit is known", refused)
						}
					})
				}
				wg.Wait()
				if s := p.Stats(); first == 0 || first > 6 || s.Refusals != first || s.Open != 4 {
					t.Errorf("%d refusals at first, stats %+v", first, s)
				}
			})
		})
	}
}

func TestALearnedLimitHoldsForTheWholeGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{Group: func(k string) string { return k[:1] }})
		leases := reserveN(t, p, "x1", n, 4)
		leases[3].Full()
		for key, want := range map[string]int{"x1": 2, "x2": 2, "y1": 1} {
			before := p.Stats()
			held := reserveN(t, p, key, n, 4)
			conns := map[*fakeConn]bool{}
			for _, l := range held {
				conns[l.Conn()] = true
				defer l.Release()
			}
			if len(conns) != want {
				t.Errorf("key %s: four leases on %d connections, want %d (%+v)", key, len(conns), want, before)
			}
		}
	})
}

func TestALearnedLimitIsForgottenAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{LearnedFor: 3 * time.Minute})
		leases := reserveN(t, p, "a", n, 3)
		leases[2].Full()
		learnedAt := time.Now()
		for _, want := range []int{3, 3, 1} {
			p.CloseWhere(func(string) bool { return true })
			before := n.dials()
			for _, l := range reserveN(t, p, "a", n, 6) {
				l.Release()
			}
			if got := n.dials() - before; got != want {
				t.Errorf("after %s six leases need %d connections, want %d", time.Since(learnedAt), got, want)
			}
			time.Sleep(91 * time.Second)
		}
		time.Sleep(time.Hour)
		if keys, groups := p.Keys(); keys != 0 || groups > 1 {
			t.Errorf("%d keys, %d groups are remembered", keys, groups)
		}
	})
}

func TestARefusalNeverRaisesALearnedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{})
		six, three := reserveN(t, p, "a", n, 6), reserveN(t, p, "b", n, 3)
		three[2].Full() // two are left
		six[5].Full()   // five are left
		for i, l := range reserveN(t, p, "c", n, 4) {
			if want := 2 + i/2; l.Conn().id != want {
				t.Errorf("lease %d is on connection %d, want %d", i, l.Conn().id, want)
			}
		}
	})
}

func TestAConnectionKeepsTheLimitThatItHasShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 3, LearnedFor: time.Minute})
		old := reserveN(t, p, "a", n, 3)
		old[2].Full()
		time.Sleep(2 * time.Minute)
		// sshd does not read its configuration again for a connection that stands.
		for i, l := range reserveN(t, p, "a", n, 3) {
			if l.Conn() == old[0].Conn() {
				t.Errorf("lease %d is on the connection that refused it", i)
			}
		}
		if n.dials() != 2 {
			t.Errorf("%d connections, want 2: a new one takes three leases", n.dials())
		}
	})
}

func TestAForgottenLimitServesThoseFirstWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxSessions: 2, MaxConnsPerKey: 1, LearnedFor: 10 * time.Second})
		reserve(t, p, "b", n)
		reserve(t, p, "b", n).Full()
		reserve(t, p, "a", n)
		w := later(t.Context(), p, "a", n.dial)
		time.Sleep(11 * time.Second)
		newcomer := later(t.Context(), p, "a", n.dial)
		synctest.Wait()
		select {
		case o := <-w:
			if o.err != nil {
				t.Error(o.err)
			}
		default:
			t.Error("the one who waits is not served")
		}
		if o := <-newcomer; o.err == nil {
			t.Error("the newcomer was served too, beyond the limit")
		}
	})
}

func TestAConnectionThatRefusesItsOnlySessionIsDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{})
		l := reserve(t, p, "a", n)
		l.Full()
		synctest.Wait()
		if !l.Conn().closed() {
			t.Error("the connection is still open")
		}
		again := reserve(t, p, "a", n)
		if again.Conn() == l.Conn() {
			t.Error("the same connection came back")
		}
		if other := reserve(t, p, "a", n); other.Conn() == again.Conn() {
			t.Error("the group's limit is not one")
		}
	})
}

// sshd frees a session when it has handled the close of its channel, which may
// come in one packet with the request for the next: it then refuses a session
// although the client counts one less. The pool must leave it some slack instead
// of running into this again and again.
func TestARefusalAtTheProvenLimitLowersItByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, config{MaxConnsPerKey: 1, WaitTimeout: time.Second})
		leases := reserveN(t, p, "a", n, 10)
		for _, l := range leases {
			l.Granted()
		}
		leases[0].Release()
		l := reserve(t, p, "a", n)
		l.Full()
		if w := <-later(t.Context(), p, "a", n.dial); w.err == nil {
			t.Error("a tenth lease was granted after the node had refused it")
		}
		leases[1].Release()
		reserve(t, p, "a", n)
	})
}
