package storetest

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/store"
)

func concurrentSwapsLoseNothing(t *testing.T, s store.Store) {
	const workers, steps = 8, 15
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range steps {
				if err := increment(t, s, "counter"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := string(mustGet(t, s, "counter").Value); got != strconv.Itoa(workers*steps) {
		t.Errorf("%d increments by %d workers counted to %s", workers*steps, workers, got)
	}
}

// increment adds one to a counter by compare-and-swap.
func increment(t *testing.T, s store.Store, key string) error {
	for {
		e, err := s.Get(t.Context(), key)
		if errors.Is(err, store.ErrNotFound) {
			e, err = store.Entry{Key: key, Value: []byte("0")}, nil
		}
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(e.Value))
		if err != nil {
			return err
		}
		e.Value = []byte(strconv.Itoa(n + 1))
		if _, err = s.Put(t.Context(), e); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func oneCreatorWins(t *testing.T, s store.Store) {
	for round := range 5 {
		key := "leader/" + strconv.Itoa(round)
		var wins atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				_, err := s.Put(t.Context(), store.Entry{Key: key, Value: []byte(strconv.Itoa(i))})
				switch {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("Put = %v, want success or ErrConflict", err)
				}
			})
		}
		wg.Wait()
		if n := wins.Load(); n != 1 {
			t.Errorf("%d creators of %q won", n, key)
		}
	}
}
