package fair_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sallyport/internal/fair"
)

// TestFloodOfCallersFreesNobody: who has spent his rate stays refused while others come
// in any number, the table is bounded, and who rests is forgotten for who comes.
func TestFloodOfCallersFreesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := fair.NewBuckets[int](0.1, 1)
		take := func(k int) bool { return b.Take(k, 1, time.Now()) == 0 }
		if !take(-1) || take(-1) {
			t.Fatal("the first caller's rate")
		}
		for k := range 3 * fair.MaxBuckets {
			take(k)
		}
		if b.Len() > fair.MaxBuckets || take(-1) {
			t.Errorf("%d buckets; or the first caller is free again", b.Len())
		}
		time.Sleep(10 * time.Second) // all are full again
		if !take(-2) || !take(-1) || b.Len() > 2 {
			t.Errorf("%d buckets after a rest", b.Len())
		}
	})
}

// TestRateHoldsInEveryWindow: however requests come, no window of time has more than
// the burst and what the rate adds in it.
func TestRateHoldsInEveryWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		perMinute, burst := rapid.IntRange(1, 6000).Draw(rt, "rate"), rapid.IntRange(1, 50).Draw(rt, "burst")
		naps := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 150).Draw(rt, "naps")
		synctest.Test(t, func(t *testing.T) {
			b := fair.NewBuckets[string](float64(perMinute)/60, float64(burst))
			var taken []time.Time
			for _, nap := range naps {
				time.Sleep(time.Duration(nap) * time.Millisecond)
				if b.Take("x", 1, time.Now()) == 0 {
					taken = append(taken, time.Now())
				}
			}
			for i := range taken {
				for j := i; j < len(taken); j++ {
					most := float64(burst) + taken[j].Sub(taken[i]).Minutes()*float64(perMinute)
					if float64(j-i+1) > most+1e-6 {
						t.Fatal(fmt.Sprint(j-i+1, " requests in ", taken[j].Sub(taken[i]), ", at most ", most))
					}
				}
			}
		})
	})
}

// Many refusals at once must not put a bucket into debt: that of a client is everybody's.
func TestAFloodOfRefusalsCostsNothing(t *testing.T) {
	t.Parallel()
	b := fair.NewBuckets[int](1, 10)
	now := time.Now()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 20_000 {
				b.Take(1, 1, now)
			}
		})
	}
	all.Wait()
	if wait := b.Take(1, 1, now); wait <= 0 || wait > time.Second {
		t.Errorf("one has to wait for %s, want a second at most", wait)
	}
}

// What was spent without asking is paid for before anything else is.
func TestADebtIsPaidFirst(t *testing.T) {
	t.Parallel()
	b, now := fair.NewBuckets[string](10, 100), time.Now()
	b.Spend("x", 150, now)
	if wait := b.Take("x", 50, now); wait != 10*time.Second {
		t.Errorf("the wait is %s", wait)
	}
	if wait := b.Take("y", 1000, now); wait != 0 {
		t.Errorf("a full bucket does not give more than its size: %s", wait)
	}
	if wait := b.Take("y", 1, now.Add(90*time.Second)); wait != 100*time.Millisecond {
		t.Errorf("the rest of that is no debt: %s", wait)
	}
	b.Spend("z", -500, now)
	if b.Take("z", 100, now) != 0 || b.Take("z", 1, now) == 0 {
		t.Error("a bucket holds more than its size")
	}
}
