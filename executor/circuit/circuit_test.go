package circuit_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sallyport/executor/circuit"
)

var errDead = errors.New("dead")

func enter(t *testing.T, b *circuit.Breaker) circuit.Attempt {
	t.Helper()
	a, err := b.Enter()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func refused(t *testing.T, b *circuit.Breaker) time.Duration {
	t.Helper()
	_, err := b.Enter()
	open, ok := errors.AsType[*circuit.OpenError](err)
	if !ok || !errors.Is(err, errDead) || !b.State().Refusing {
		t.Fatalf("got %v, state %+v", err, b.State())
	}
	return open.After
}

func TestBreakerOpensTriesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b circuit.Breaker
		first, second := enter(t, &b), enter(t, &b)
		first.Failed(errDead)
		second.Failed(errDead) // does not count again
		if s := b.State(); s.Failures != 1 || !s.Open {
			t.Errorf("state %+v", s)
		}
		pause := time.Second
		for range 10 {
			if after := refused(t, &b); after > max(pause, time.Second) {
				t.Errorf("refused for %v after a pause of %v", after, pause)
			}
			time.Sleep(pause/2 - time.Millisecond)
			refused(t, &b)
			time.Sleep(pause/2 + time.Millisecond)
			trial := enter(t, &b)
			refused(t, &b) // only one at a time
			trial.Abandoned()
			trial = enter(t, &b)
			trial.Failed(errDead)
			pause = min(2*pause, time.Minute)
		}
		time.Sleep(time.Minute)
		enter(t, &b).Succeeded()
		enter(t, &b).Succeeded()
		enter(t, &b).Failed(errDead)
		time.Sleep(time.Second) // the first pause again
		enter(t, &b).Succeeded()
	})
}

// TestOneDroppedAttemptIsChance: three in a row are none, nor is one of a trial.
func TestOneDroppedAttemptIsChance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b circuit.Breaker
		enter(t, &b).Broke(errDead)
		enter(t, &b).Broke(errDead)
		enter(t, &b).Succeeded()
		enter(t, &b).Broke(errDead)
		enter(t, &b).Broke(errDead)
		enter(t, &b).Broke(errDead)
		refused(t, &b)
		time.Sleep(time.Second)
		enter(t, &b).Broke(errDead)
		refused(t, &b)
	})
}

// TestLateSuccessIsNoRecovery: an attempt from before the failures says nothing.
func TestLateSuccessIsNoRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b circuit.Breaker
		late := enter(t, &b)
		enter(t, &b).Failed(errDead)
		late.Succeeded()
		late.Abandoned()
		refused(t, &b)
	})
}

// TestDeadNodeIsLeftAlone has attempts begin and end at random at a node that is dead
// for a while: never two at once, never too soon, and the breaker closes after.
func TestDeadNodeIsLeftAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 200).Draw(rt, "steps")
		naps := rapid.SliceOfN(rapid.IntRange(0, 40_000), len(steps), len(steps)).Draw(rt, "naps")
		synctest.Test(t, func(t *testing.T) {
			var b circuit.Breaker
			enter(t, &b).Failed(errDead)
			last := time.Now()
			var under []circuit.Attempt
			for i, step := range steps {
				time.Sleep(time.Duration(naps[i]) * time.Millisecond)
				switch {
				case step < 2:
					if a, err := b.Enter(); err == nil {
						under = append(under, a)
						if len(under) > 1 {
							t.Fatal("two attempts at once")
						}
						if time.Since(last) < 500*time.Millisecond {
							t.Fatalf("an attempt %v after a failure", time.Since(last))
						}
					}
				case len(under) > 0 && step == 2:
					under[0].Failed(errDead)
					under, last = nil, time.Now()
				case len(under) > 0:
					under[0].Abandoned()
					under = nil
				}
			}
			for _, a := range under {
				a.Abandoned()
			}
			time.Sleep(time.Minute)
			enter(t, &b).Succeeded()
			if s := b.State(); s.Open || s.Failures != 0 {
				t.Fatalf("state %+v", s)
			}
		})
	})
}
