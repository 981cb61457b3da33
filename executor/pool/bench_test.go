package pool_test

import (
	"context"
	"testing"
	"time"

	"sallyport/executor/pool"
)

// ready is a dial that takes no time.
func ready(n *fakeNode) pool.Dial[*fakeConn] {
	return func(context.Context) (pool.Dialed[*fakeConn], error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.connectLocked(), nil
	}
}

func benchPool(tb testing.TB, cfg config) *pool.Pool[string, *fakeConn] {
	tb.Helper()
	p, err := pool.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return p
}

func TestAReservationAllocatesOnlyItsLease(t *testing.T) {
	p, dial := benchPool(t, config{}), ready(newNode())
	got := testing.AllocsPerRun(1000, func() {
		l, err := p.Reserve(t.Context(), "a", dial)
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
	})
	if got > 1 {
		t.Errorf("%v allocations, want 1", got)
	}
}

func BenchmarkReserveRelease(b *testing.B) {
	p, dial := benchPool(b, config{}), ready(newNode())
	b.ReportAllocs()
	for b.Loop() {
		l, err := p.Reserve(b.Context(), "a", dial)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

// A thousand callers share 40 sessions, so that 960 of them wait.
func BenchmarkReserveReleaseWithThousandWaiters(b *testing.B) {
	p, dial := benchPool(b, config{WaitTimeout: time.Hour}), ready(newNode())
	b.ReportAllocs()
	b.SetParallelism(500) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, err := p.Reserve(context.Background(), "a", dial)
			if err != nil {
				b.Error(err)
				return
			}
			l.Release()
		}
	})
}
