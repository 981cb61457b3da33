// Package circuit keeps callers away from a node that cannot be reached. It knows no
// SSH: an attempt is whatever may find out.
//
// A breaker is closed while attempts succeed. A failure opens it: no attempt is let
// through for a while, which doubles with each further failure and is spread by chance,
// so that several services do not come back at once. After that one attempt at a time
// is let through; its success closes the breaker.
//
// Guarantees. While a node is dead at most one attempt is under way, and two of them are
// at least half the pause apart; who is refused hears at once, and until when. An attempt
// that ends without a result leaves the breaker as it was, ready for the next one.
//
// Caveats. Attempts that were under way when the breaker opened go on. What an attempt
// says of itself is believed.
package circuit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// first and longest bound the pause after a failure.
	first, longest = time.Second, time.Minute
)

// An OpenError refuses an attempt.
type OpenError struct {
	// After is when another one makes sense.
	After time.Duration
	// Cause is what the last attempt failed with.
	Cause error
}

// Error says since what the breaker is open, and for how long.
func (e *OpenError) Error() string {
	return fmt.Sprintf("not tried again for %v, since it failed: %v", e.After.Round(time.Millisecond), e.Cause)
}

// Unwrap returns the cause.
func (e *OpenError) Unwrap() error { return e.Cause }

// A Breaker is for one node. The zero value is closed. It is safe for concurrent use.
type Breaker struct {
	mu       sync.Mutex // guards what follows
	failures int        // one after the other
	cause    error      // of the last one; nil: closed
	until    time.Time  // no attempt before
	trying   bool       // an attempt is under way since
	opened   uint64     // how often it opened
	breaks   int        // attempts that broke, one after the other
}

// An Attempt was let through. Exactly one of its methods must be called.
type Attempt struct {
	breaker *Breaker
	opened  uint64 // of the breaker when it was let through
	trial   bool   // the only one, of an open breaker
}

// Enter lets an attempt through, or refuses it with an [*OpenError].
func (b *Breaker) Enter() (Attempt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cause == nil {
		return Attempt{breaker: b, opened: b.opened}, nil
	}
	if left := time.Until(b.until); left > 0 || b.trying {
		return Attempt{}, &OpenError{After: max(left, first), Cause: b.cause}
	}
	b.trying = true
	return Attempt{breaker: b, opened: b.opened, trial: true}, nil
}

// Succeeded closes the breaker.
func (a Attempt) Succeeded() {
	a.breaker.mu.Lock()
	defer a.breaker.mu.Unlock()
	if a.trial || a.opened == a.breaker.opened { // else others have failed since
		a.breaker.failures, a.breaker.cause, a.breaker.trying, a.breaker.breaks = 0, nil, false, 0
	}
}

// Broke says that the node took the attempt and dropped it: that may be chance (sshd does
// so at MaxStartups), so it takes three in a row to be a failure.
func (a Attempt) Broke(cause error) {
	const most = 3
	b := a.breaker
	b.mu.Lock()
	b.breaks++
	failed := a.trial || b.breaks >= most
	b.mu.Unlock()
	if failed {
		a.Failed(cause)
	}
}

// Failed opens the breaker, for longer than the time before. Of several attempts that
// were let through together only the first counts.
func (a Attempt) Failed(cause error) {
	b := a.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.opened != b.opened {
		return
	}
	b.opened++
	b.failures++
	b.breaks = 0
	b.cause, b.trying = cause, false
	pause := longest
	if shift := b.failures - 1; shift < 6 { // 1 s << 6 is above the longest
		pause = first << shift
	}
	b.until = time.Now().Add(pause/2 + rand.N(pause/2+1)) //nolint:gosec // nobody gains from foreseeing it
}

// Abandoned says that the attempt came to no result.
func (a Attempt) Abandoned() {
	if !a.trial {
		return
	}
	a.breaker.mu.Lock()
	defer a.breaker.mu.Unlock()
	if a.opened == a.breaker.opened {
		a.breaker.trying = false
	}
}

// State is a snapshot of a breaker.
type State struct {
	// Open says that the last attempt failed.
	Open bool
	// Failures is how many did, one after the other.
	Failures int
	// Opened counts failures since the start.
	Opened uint64
	// Refusing says that an attempt would be refused now.
	Refusing bool
}

// State returns a snapshot.
func (b *Breaker) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return State{
		Open: b.cause != nil, Failures: b.failures, Opened: b.opened,
		Refusing: b.cause != nil && (b.trying || time.Now().Before(b.until)),
	}
}
