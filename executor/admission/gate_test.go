package admission_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sallyport/executor/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newGate(t *testing.T, cfg admission.Config) *admission.Gate[string] {
	t.Helper()
	g, err := admission.New[string](cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestOneUsersManyRequestsDelayAnothersSingleOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{Limit: 2})
		var order []string
		var mu sync.Mutex
		var all sync.WaitGroup
		enter := func(user string) {
			all.Go(func() {
				ticket, err := g.Enter(t.Context(), user)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, user)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				ticket.Leave()
			})
		}
		for range 400 {
			enter("mallory")
		}
		synctest.Wait()
		enter("alice")
		synctest.Wait()
		enter("bob")
		all.Wait()
		// Two of Mallory's ran when Alice came, and at most one more has the turn before
		// each of the others.
		for user, latest := range map[string]int{"alice": 4, "bob": 5} {
			for i, who := range order {
				if who == user && i > latest {
					t.Errorf("%s was served as number %d, want %d at the latest", user, i+1, latest+1)
				}
			}
		}
		if s := g.Stats(); s.Out != 0 || s.Waiting != 0 || s.Users != 0 || s.Waits != 400 {
			t.Errorf("at the end: %+v", s)
		}
	})
}

func TestWhoWouldNotBeServedInTimeIsRefusedBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{Limit: 1, MaxWait: 2 * time.Second})
		var served, refusedLate atomic.Int64
		var all sync.WaitGroup
		one := func(user string) {
			began := time.Now()
			ticket, err := g.Enter(t.Context(), user)
			if busy, ok := errors.AsType[*admission.BusyError](err); ok {
				if busy.RetryAfter < time.Second || busy.RetryAfter > time.Minute || busy.Own {
					t.Errorf("refused with %+v", busy)
				}
				if time.Since(began) > 0 {
					refusedLate.Add(1)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if waited := time.Since(began); waited > 2*time.Second {
				t.Errorf("waited for %s", waited)
			}
			served.Add(1)
			time.Sleep(100 * time.Millisecond)
			ticket.Leave()
		}
		for range 19 { // who wait for one another: the pace is learned
			all.Go(func() { one("a") })
		}
		time.Sleep(1850 * time.Millisecond)
		for i := range 300 { // 30 s of work at once
			all.Go(func() { one(fmt.Sprint("user", i)) })
		}
		all.Wait()
		if served.Load() < 35 || served.Load() > 41 {
			t.Errorf("%d were served; the node does 10 a second, and 19 + 20 were in time", served.Load())
		}
		if late := refusedLate.Load(); late > 5 {
			t.Errorf("%d waited in vain", late)
		}
	})
}

// A node that has to log users in at first is slow for as long as that takes.
func TestAFirstSlowStartRefusesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{Limit: 4, MaxWait: 30 * time.Second})
		var all sync.WaitGroup
		one := func(takes time.Duration) {
			ticket, err := g.Enter(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(takes)
			ticket.Leave()
		}
		for i := range 8 {
			all.Go(func() { one(time.Duration(i%4+1) * time.Second) })
		}
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			all.Go(func() { one(5 * time.Millisecond) })
		}
		all.Wait()
	})
}

// Small requests of one user share a turn; those of others still come after one turn.
func TestSmallRequestsShareATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{Limit: 1})
		var mu sync.Mutex
		at := map[string][]time.Duration{}
		var all sync.WaitGroup
		first, err := g.Enter(t.Context(), "first")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		enter := func(user string, most int) {
			all.Go(func() {
				ticket, err := g.EnterSharing(t.Context(), user, most)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				at[user] = append(at[user], time.Since(began))
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				ticket.Leave()
				ticket.Leave()
			})
			synctest.Wait()
		}
		for range 20 {
			enter("mallory", 8)
		}
		enter("mallory", 1)
		enter("mallory", 4)
		enter("alice", 8)
		ctx, leave := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := g.EnterSharing(ctx, "alice", 8); !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		leave()
		first.Leave()
		all.Wait()
		var turns []int
		for range 6 {
			turns = append(turns, 0)
		}
		for _, d := range at["mallory"] {
			turns[d/(10*time.Millisecond)]++
		}
		if fmt.Sprint(turns, at["alice"]) != "[8 0 8 4 1 1] [10ms]" {
			t.Errorf("mallory's turns %v, alice's %v", turns, at["alice"])
		}
		if s := g.Stats(); s.Out != 0 || s.Waiting != 0 {
			t.Errorf("at the end: %+v", s)
		}
	})
}

func TestTheQueueIsBoundedInAllAndForEachUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{Limit: 1, MaxQueue: 6, MaxQueuePerUser: 4})
		ctx, leave := context.WithCancel(t.Context())
		if _, err := g.Enter(ctx, "first"); err != nil {
			t.Fatal(err)
		}
		wait := func(user string) {
			go func() { _, _ = g.Enter(ctx, user) }()
			synctest.Wait()
		}
		for range 4 {
			wait("a")
		}
		var busy *admission.BusyError
		if _, err := g.Enter(ctx, "a"); !errors.As(err, &busy) || !busy.Own {
			t.Errorf("the fifth of one user: %v", err)
		}
		wait("b")
		wait("c")
		if _, err := g.Enter(ctx, "d"); !errors.As(err, &busy) || busy.Own {
			t.Errorf("the seventh of all: %v", err)
		}
		if s := g.Stats(); s.Waiting != 6 || s.Users != 3 || s.Refused != 1 || s.RefusedOwn != 1 {
			t.Errorf("%+v", s)
		}
		leave()
		synctest.Wait()
		if s := g.Stats(); s.Waiting != 0 || s.Users != 0 || s.Cancelled != 6 || s.Out != 1 {
			t.Errorf("after all have left: %+v", s)
		}
	})
}

func TestATicketThatSettlesMakesRoomAndIsGivenBackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{Limit: 1})
		long, err := g.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		long.Accepted(time.Millisecond)
		began := time.Now()
		next, err := g.Enter(t.Context(), "b") // while the long one goes on
		if err != nil || time.Since(began) > time.Second {
			t.Fatalf("%v after %s", err, time.Since(began))
		}
		long.Leave()
		long.Leave()
		if s := g.Stats(); s.Out != 1 {
			t.Errorf("%d tickets are out, want 1", s.Out)
		}
		next.Leave()
		if s := g.Stats(); s.Out != 0 {
			t.Errorf("%d tickets are out, want none", s.Out)
		}
	})
}

// A simulated node has cores, and a start takes base on one of them; what is above
// shares them.
type node struct {
	base  time.Duration
	cores atomic.Int64
	busy  atomic.Int64
}

func (n *node) start() (took time.Duration) {
	busy := n.busy.Add(1)
	defer n.busy.Add(-1)
	took = time.Duration(float64(n.base) * max(1, float64(busy)/float64(n.cores.Load())))
	took = time.Duration(float64(took) * (0.7 + 0.6*rand.Float64())) // noise
	time.Sleep(took)
	return took
}

// load keeps so many clients busy for a time, and returns the limit at the end.
func load(t *testing.T, g *admission.Gate[string], n *node, clients int, d time.Duration) int {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				ticket, err := g.Enter(ctx, fmt.Sprint("user", i%20))
				if err != nil {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				ticket.Accepted(n.start())
				ticket.Leave()
			}
		})
	}
	all.Wait()
	return g.Stats().Limit
}

func TestTheLimitFindsTheKnee(t *testing.T) {
	for _, c := range []struct {
		cores         int64
		clients       int
		least, most   int
		afterwards    int64 // cores, for as long again
		least2, most2 int
	}{
		{cores: 2, clients: 100, least: 5, most: 16, afterwards: 16, least2: 24, most2: 64},
		{cores: 16, clients: 200, least: 24, most: 64, afterwards: 2, least2: 4, most2: 18},
		{cores: 64, clients: 6, least: 4, most: 12, afterwards: 64, least2: 4, most2: 12}, // nobody asks for more
	} {
		t.Run(fmt.Sprint(c.cores, " cores"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, admission.Config{})
				n := &node{base: 5 * time.Millisecond}
				n.cores.Store(c.cores)
				if got := load(t, g, n, c.clients, 50*time.Second); got < c.least || got > c.most {
					t.Errorf("the limit is %d, want %d to %d (%+v)", got, c.least, c.most, g.Stats())
				}
				n.cores.Store(c.afterwards)
				if got := load(t, g, n, c.clients, 50*time.Second); got < c.least2 || got > c.most2 {
					t.Errorf("with %d cores the limit is %d, want %d to %d (%+v)", c.afterwards, got, c.least2, c.most2, g.Stats())
				}
			})
		})
	}
}

func TestRefusalsOfTheNodeLowerTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{})
		n := &node{base: 5 * time.Millisecond}
		n.cores.Store(16)
		before := load(t, g, n, 200, 50*time.Second)
		ticket, err := g.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for range 10 { // at one time they count as one
			ticket.Overloaded()
		}
		ticket.Leave()
		if after := g.Stats().Limit; after >= before || after < before/2 {
			t.Errorf("the limit was %d and is %d", before, after)
		}
	})
}

func TestAnHourOfOverloadLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admission.Config{MaxQueue: 16, MaxWait: time.Second})
		n := &node{base: 200 * time.Millisecond}
		n.cores.Store(2)
		load(t, g, n, 10, time.Second)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		load(t, g, n, 30, time.Hour)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if s := g.Stats(); s.Out != 0 || s.Waiting != 0 || s.Users != 0 || s.Refused == 0 {
			t.Errorf("at the end: %+v", s)
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
	})
}

func TestAGateWithoutSenseIsRefused(t *testing.T) {
	for _, cfg := range []admission.Config{{Limit: -1}, {Min: 9, Max: 8}, {MaxWait: -1}, {MaxQueue: -1}} {
		if _, err := admission.New[string](cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
