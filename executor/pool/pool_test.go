package pool_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor/pool"
)

func TestTwoHundredParallelReservationsNeedFourConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		p := newPool(t, pool.Config[string, *fakeConn]{})
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				l, err := p.Reserve(t.Context(), "a", n.dial)
				if err != nil {
					t.Errorf("Reserve: %v", err)
					return
				}
				time.Sleep(100 * time.Millisecond)
				l.Release()
			})
		}
		wg.Wait()
		if got := n.dials(); got != 4 {
			t.Errorf("dials = %d, want 4", got)
		}
		if s := p.Stats(); s.Leases != 0 || s.Waiting != 0 || s.Open != 4 || s.Idle != 4 || s.Dials != 4 {
			t.Errorf("stats = %+v", s)
		}
	})
}
