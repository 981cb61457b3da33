package httpapi

import (
	"context"
	"sync"
	"time"
)

// checkTimeout bounds one readiness check.
const checkTimeout = 2 * time.Second

// A readiness runs the checks for all who ask at a time, and remembers for a moment what
// came out.
type readiness struct {
	checks []Check
	lasts  time.Duration // how long a good answer is remembered

	mu     sync.Mutex // guards what follows
	latest *lookout   // nil: nobody has asked yet
}

// A lookout is one run of all checks.
type lookout struct {
	done chan struct{}
	// What follows is set before done is closed.
	checks []checkAnswer
	ok     bool
	until  time.Time // zero: it is not remembered
}

// ask returns the run that is under way, or the last one while it is good, or begins one.
func (s *readiness) ask() *lookout {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.latest; l != nil {
		select {
		case <-l.done:
			if time.Now().Before(l.until) {
				return l
			}
		default:
			return l
		}
	}
	s.latest = &lookout{done: make(chan struct{})}
	go s.run(s.latest)
	return s.latest
}

// run makes all checks, one after the other: they look at what the process already knows.
// Who asked first may be gone long before.
func (s *readiness) run(l *lookout) {
	defer close(l.done)
	l.ok = true
	for _, c := range s.checks {
		ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
		err := c.Ready(ctx)
		cancel()
		answer := checkAnswer{Name: c.Name, OK: err == nil}
		if err != nil {
			answer.Error, l.ok = err.Error(), false
		}
		l.checks = append(l.checks, answer)
	}
	if l.ok { // a bad answer is for those who wait for it: what was mended shows at once
		l.until = time.Now().Add(s.lasts)
	}
}

// ready says what the checks say. A request that waits for them yields its place.
func (a *API) ready(ctx context.Context) ([]checkAnswer, bool) {
	all := !a.draining.Load()
	checks := []checkAnswer{{Name: "not draining", OK: all}}
	if len(a.readiness.checks) == 0 {
		return checks, all
	}
	l := a.readiness.ask() //nolint:contextcheck // it outlives who asked first
	select {
	case <-l.done:
	default:
		place := exchangeFrom(ctx).seat.member
		place.Yield()
		defer place.Hold()
		select {
		case <-l.done:
		case <-ctx.Done():
			return checks, false
		}
	}
	return append(checks, l.checks...), all && l.ok
}
