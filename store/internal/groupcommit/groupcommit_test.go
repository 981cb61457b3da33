package groupcommit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a commit that takes a second, as a slow disk would.
type recorder struct{ batches [][]int }

func (r *recorder) commit(batch []int) {
	r.batches = append(r.batches, append([]int{}, batch...))
	time.Sleep(time.Second)
}

func (r *recorder) items() (n int) {
	for _, b := range r.batches {
		n += len(b)
	}
	return n
}

func TestAnIdleWriterCommitsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(8, r.commit)
		defer w.Close()
		for i := range 3 {
			begin := time.Now()
			if err := w.Do(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took != time.Second {
				t.Errorf("Do took %s beside a commit of 1s", took)
			}
		}
	})
}

func TestItemsThatArriveDuringACommitShareTheNextOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(64, r.commit)
		defer w.Close()
		var wg sync.WaitGroup
		begin := time.Now()
		wg.Go(func() { do(t, w, 0) })
		synctest.Wait()
		for i := range 50 {
			wg.Go(func() { do(t, w, i+1) })
		}
		wg.Wait()
		if took := time.Since(begin); took != 2*time.Second || len(r.batches) != 2 || len(r.batches[1]) != 50 {
			t.Errorf("51 items took %s in %d batches", took, len(r.batches))
		}
	})
}

func TestABatchIsNeverAboveTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(4, r.commit)
		defer w.Close()
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { do(t, w, i) })
		}
		wg.Wait()
		for _, b := range r.batches {
			if len(b) > 4 {
				t.Errorf("a batch has %d items", len(b))
			}
		}
		if r.items() != 30 {
			t.Errorf("%d of 30 items were committed", r.items())
		}
	})
}

func TestAContextEndsTheWaitOnlyBeforeTheItemIsTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(1, r.commit)
		defer w.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		results := make([]error, 3)
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range results { // taken, queued, waiting for room in the queue
			wg.Go(func() {
				results[i] = w.Do(ctx, i)
				if took, want := time.Since(begin), []time.Duration{time.Second, time.Second / 2, time.Second / 2}[i]; took != want {
					t.Errorf("item %d: Do took %s, want %s", i, took, want)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if results[0] != nil {
			t.Errorf("the taken item ended with %v", results[0])
		}
		for _, err := range results[1:] {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("an item that was not taken ended with %v", err)
			}
		}
		do(t, w, 3)
		if r.items() != 2 || r.batches[1][0] != 3 {
			t.Errorf("committed %v, want the first and the last item only", r.batches)
		}
	})
}

func TestCloseEndsTheBatchAtWorkAndRefusesTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(1, r.commit)
		results := make([]error, 3)
		var wg sync.WaitGroup
		for i := range results { // taken, queued, waiting for room in the queue
			wg.Go(func() { results[i] = w.Do(t.Context(), i) })
			synctest.Wait()
		}
		begin := time.Now()
		w.Close()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("Close took %s, want the second that the batch takes", took)
		}
		wg.Wait()
		if results[0] != nil || !errors.Is(results[1], ErrClosed) || !errors.Is(results[2], ErrClosed) || r.items() != 1 {
			t.Errorf("results are %v, committed were %v", results, r.batches)
		}
		if err := w.Do(t.Context(), 4); !errors.Is(err, ErrClosed) {
			t.Errorf("Do after Close = %v, want ErrClosed", err)
		}
		w.Close()
	})
}

// Every item is either committed and nil, or not committed and an error.
func TestTheResultTellsWhetherTheItemWasCommitted(t *testing.T) {
	t.Parallel()
	for range 20 {
		committed := map[int]bool{}
		w := New(4, func(batch []int) {
			for _, i := range batch {
				committed[i] = true
			}
		})
		results := make([]error, 200)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() {
				switch i {
				case 100:
					cancel()
				case 150:
					w.Close()
				}
				results[i] = w.Do(ctx, i)
			})
		}
		wg.Wait()
		cancel()
		w.Close()
		for i, err := range results {
			if committed[i] != (err == nil) {
				t.Errorf("item %d: committed %t, Do = %v", i, committed[i], err)
			}
		}
	}
}

func do(t *testing.T, w *Writer[int], i int) {
	if err := w.Do(t.Context(), i); err != nil {
		t.Errorf("item %d: %v", i, err)
	}
}

func TestAWriterSettlesOnceForManyCommits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		begin := time.Now()
		var settled []time.Duration
		w := NewSettling(8, r.commit, 5*time.Second, func() { settled = append(settled, time.Since(begin)) })
		for i := range 3 {
			if err := w.Do(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // idle: nothing more is to be settled
		synctest.Wait()
		if want := []time.Duration{6 * time.Second}; !slices.Equal(settled, want) {
			t.Errorf("settled at %v, want %v", settled, want)
		}
		if err := w.Do(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if len(settled) != 2 {
			t.Errorf("Close left a commit unsettled: %v", settled)
		}
	})
}

func TestAWriterWithoutCommitsDoesNotSettle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := NewSettling(8, func([]int) {}, time.Second, func() { t.Error("nothing was committed") })
		time.Sleep(time.Minute)
		w.Close()
	})
}

func TestStartTellsOnceAndInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(2, r.commit)
		var told []int
		if err := w.Start(t.Context(), 0, func(error) { told = append(told, 0) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(patience) // then it is at work
		synctest.Wait()
		begin := time.Now()
		for i := 1; i < 3; i++ { // queued
			err := w.Start(t.Context(), i, func(err error) {
				if err != nil {
					t.Errorf("item %d: %v", i, err)
				}
				told = append(told, i)
			})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("Start waited %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := w.Start(ctx, 3, func(error) { t.Error("told of what was not queued") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start on a full queue: %v", err)
		}
		if err := w.Do(t.Context(), 4); err != nil {
			t.Error(err)
		}
		if want := []int{0, 1, 2}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
		w.Close()
	})
}

func TestCloseTellsThoseThatItRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(4, r.commit)
		told := make([]error, 3)
		for i := range told {
			told[i] = errors.New("nobody was told")
			if err := w.Start(t.Context(), i, func(err error) { told[i] = err }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(patience) // then the first is at work
			synctest.Wait()
		}
		w.Close()
		if told[0] != nil || !errors.Is(told[1], ErrClosed) || !errors.Is(told[2], ErrClosed) {
			t.Errorf("told %v", told)
		}
		if err := w.Start(t.Context(), 9, func(error) { t.Error("told of what was refused") }); !errors.Is(err, ErrClosed) {
			t.Errorf("Start after Close: %v", err)
		}
	})
}

// What nobody waits for costs no commit of its own while others have some.
func TestStartedItemsGoWithThoseThatAreWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		w := New(8, r.commit)
		for i := range 2 {
			if err := w.Start(t.Context(), i, func(error) {}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(patience / 2)
		begin := time.Now()
		if err := w.Do(t.Context(), 2); err != nil || time.Since(begin) != time.Second {
			t.Errorf("Do: %v after %v, want the time of one commit", err, time.Since(begin))
		}
		if err := w.Start(t.Context(), 3, func(error) {}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it lingers
		w.Close()
		if want := [][]int{{0, 1, 2}, {3}}; !slices.EqualFunc(r.batches, want, slices.Equal[[]int]) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
	})
}

// However Start and Close meet, each item that was queued is told of exactly once.
func TestStartAndCloseMeet(t *testing.T) {
	t.Parallel()
	for range 200 {
		w := New(4, func([]int) {})
		var started, told atomic.Int64
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for i := range 20 {
					if w.Start(t.Context(), i, func(error) { told.Add(1) }) == nil {
						started.Add(1)
					}
				}
			})
		}
		w.Close()
		workers.Wait()
		if started.Load() != told.Load() {
			t.Fatalf("%d were queued and %d told of", started.Load(), told.Load())
		}
	}
}
