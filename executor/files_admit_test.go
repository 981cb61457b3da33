package executor_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/executor"
)

// TestFilesHaveTheSameLimitsAsCommands: calls over SFTP wait for a place at the node,
// in turn with other users, and are refused with too many waiting.
func TestFilesHaveTheSameLimitsAsCommands(t *testing.T) {
	var starts atomic.Int32
	change := func(cfg *executor.Config) { cfg.Systems[0].MaxStarts, cfg.Pool.MaxWaiters = 1, 8 }
	inBubble(t, memoryFiles(&starts), change, func(t *testing.T, s *site) {
		f, err := s.files()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		time.Sleep(time.Second) // the channel counts no more
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		alice := person(t, "alice")
		wg.Go(func() { _, _ = s.executor.Run(ctx, alice, "hpc", executor.Command{Line: "sleep 1h"}) })
		time.Sleep(time.Millisecond) // has the only place, for 200 ms
		began := time.Now()
		var refused atomic.Int32
		for range 8 {
			wg.Go(func() {
				switch _, err := f.Stat(t.Context(), "/", false); {
				case errors.Is(err, executor.ErrCallerBusy):
					refused.Add(1)
				case err != nil || time.Since(began) < 100*time.Millisecond:
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		stop()
		wg.Wait()
		if n := refused.Load(); n != 6 { // a quarter of the queue is one caller's
			t.Errorf("%d were refused", n)
		}
		if left := s.executor.Stats().Nodes["hpc"][node1]; left.Out != 0 || left.Waiting != 0 {
			t.Errorf("at the end: %+v", left)
		}
	})
}
