package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/executor/admission"
	"sallyport/executor/pool"
	"sallyport/identity"
)

// A person takes turns with every other one, whatever account and connection are used.
type person struct{ issuer, subject string }

type ticket = admission.Ticket[person]

// A RetryError says that a command was not started, and when to try again. It wraps
// ErrCallerBusy if too much of the same caller's waits, ErrBusy if too much waits, and
// ErrUnavailable if every node was found dead a moment ago.
type RetryError struct {
	// RetryAfter is when it probably can be: whole seconds, 1 to 60.
	RetryAfter time.Duration
	err        error
}

// NewRetryError returns an error for a reason that wraps ErrBusy, ErrCallerBusy or
// ErrUnavailable.
func NewRetryError(reason error, retryAfter time.Duration) *RetryError {
	return &RetryError{RetryAfter: min(max(retryAfter.Round(time.Second), time.Second), time.Minute), err: reason}
}

// Error is the reason.
func (e *RetryError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *RetryError) Unwrap() error { return e.err }

// A seat is what it takes to begin something on a node: a place among those that do,
// and a lease of a connection, or a warm session, which has one.
type seat struct {
	key   key
	place *ticket
	lease *pool.Lease[*connection]
	idle  *worker
}

func (a seat) conn() *connection {
	if a.idle != nil {
		return a.idle.lease.Conn()
	}
	return a.lease.Conn()
}

func newGates(s System, limits PoolLimits) (map[string]*admission.Gate[person], error) {
	gates := make(map[string]*admission.Gate[person])
	for _, node := range s.Nodes {
		g, err := admission.New[person](admission.Config{
			Limit: s.MaxStarts, MaxQueue: limits.MaxWaiters, MaxWait: limits.WaitTimeout,
		})
		if err != nil {
			return nil, err
		}
		gates[node] = g
	}
	return gates, nil
}

// admit waits for the caller's turn at a node and for a session of his own. Nobody
// has a place at the node while he waits for his own connection: if there is no
// room on it at once, the place is given back, and asked for again when there is.
//
// Who wants a warm session gets one instead of the lease, if one is idle.
func (e *Executor) admit(ctx context.Context, s *system, caller identity.Identity, node string, warm bool) (seat, error) {
	who, dial, k := person{caller.Issuer(), caller.Subject()}, e.dialer(s, caller, node), keyOf(caller, node)
	wait, cancel := context.WithTimeout(ctx, s.waitTimeout) // for all of it
	defer cancel()
	place, err := s.enter(wait, node, who, 1)
	if err != nil {
		return seat{}, outOfTime(ctx, wait, err)
	}
	if warm {
		if idle := s.workers.take(k); idle != nil {
			return seat{key: k, place: place, idle: idle}, nil
		}
	}
	if lease, ok := s.pool.TryReserve(wait, k, dial); ok {
		return seat{key: k, place: place, lease: lease}, nil
	}
	place.Leave()
	lease, idle, err := s.room(wait, k, dial, warm)
	if err != nil {
		return seat{}, outOfTime(ctx, wait, err)
	}
	if place, err = s.enter(wait, node, who, 1); err != nil {
		if lease != nil {
			lease.Release()
		} else {
			s.workers.put(idle)
		}
		return seat{}, outOfTime(ctx, wait, err)
	}
	return seat{key: k, place: place, lease: lease, idle: idle}, nil
}

// room waits until a connection of the caller's has room, or a warm session does if
// one is wanted.
func (s *system) room(ctx context.Context, k key, dial pool.Dial[*connection], warm bool) (*pool.Lease[*connection], *worker, error) {
	waiting, done := s.workers.await(ctx, k, warm)
	s.workers.spare(k)
	lease, err := s.pool.Reserve(waiting, k, dial)
	idle := done()
	switch {
	case idle != nil && err == nil:
		s.workers.put(idle)
	case idle != nil:
		return nil, idle, nil
	case err != nil:
		return nil, nil, reserveError(ctx, err)
	}
	return lease, nil, nil
}

// outOfTime words an error for whom the wait has become too long, while he would have
// gone on waiting.
func outOfTime(ctx, wait context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return gone(ctx)
	case wait.Err() != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrCallerBusy):
		return NewRetryError(fmt.Errorf("%w: %w", ErrBusy, err), time.Second)
	}
	return err
}

// enter waits for a turn at a node, which so many of what the caller has waiting may
// share.
func (s *system) enter(ctx context.Context, node string, who person, together int) (*ticket, error) {
	place, err := s.gates[node].EnterSharing(ctx, who, together)
	if err == nil {
		return place, nil
	}
	busy, ok := errors.AsType[*admission.BusyError](err)
	if !ok {
		return nil, gone(ctx)
	}
	reason := ErrBusy
	if busy.Own {
		reason = ErrCallerBusy
	}
	return nil, NewRetryError(fmt.Errorf("%w: %s: %w", reason, node, err), busy.RetryAfter)
}
