package executor

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestWarmSessionsAreBegunForWhoNeedsThem: later ones need more, and pauses begin anew.
func TestWarmSessionsAreBegunForWhoNeedsThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers(System{MaxSessions: 10, WarmAfter: 8}, new(sessionStats))
		k := key{login: "alice"}
		until := func() (n int) {
			for !ws.allow(k) {
				if n++; n > 10_000 {
					return n
				}
			}
			return n
		}
		for i, want := range []int{8, 32, 128, 512, 10_001} {
			if n := until(); n != want {
				t.Errorf("number %d was begun after %d commands, want %d", i+1, n, want)
			}
		}
		for range maxWorkers {
			ws.leave(k)
		}
		for range 100 { // one command now and then
			time.Sleep(workerIdle + time.Second)
			if ws.allow(k) {
				t.Fatal("a warm session for one command")
			}
		}
		time.Sleep(time.Minute)
		ws.allow(key{login: "bob"})
		if len(ws.all) != 1 {
			t.Errorf("%d keys are remembered", len(ws.all))
		}
	})
}
