// Package admission holds a node at the load that it bears best. It knows no SSH: a
// ticket is the right to start something on the node, and what is told of a ticket is
// how long the start took.
//
// Guarantees. No more tickets are out than the limit allows; the limit is fixed, or
// finds by itself how many starts at once the node answers soonest. Who must wait is
// served in turn with every other user, however many requests each has waiting. The
// number of waiting requests is bounded, in all and for each user, and every wait ends;
// a request that would not be served in time is refused before it waits, and told when
// to come again.
//
// Threats. A user with many requests delays another's single one by one of his own, not
// by all. A node that slows down gets less; one that is slow for good is no reason to
// let anybody wait without an end.
//
// Caveats. A ticket is for the start: long commands give it back soon after they have
// begun, since what they do to the node is their users' business and is bounded
// elsewhere. What is told of tickets is believed.
package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrBusy is wrapped by every [*BusyError].
var ErrBusy = errors.New("node takes no more starts in time")

// A BusyError refuses a request. Nothing was started for it.
type BusyError struct {
	// Own says that it is for the requests that the same user has waiting.
	Own bool
	// RetryAfter is when the queue has probably room: whole seconds, 1 to 60.
	RetryAfter time.Duration
}

// Error says who is to blame, and until when.
func (e *BusyError) Error() string {
	if e.Own {
		return fmt.Sprintf("too many requests of this user wait; try again in %s", e.RetryAfter)
	}
	return fmt.Sprintf("%v; try again in %s", ErrBusy, e.RetryAfter)
}

// Unwrap returns ErrBusy.
func (e *BusyError) Unwrap() error { return ErrBusy }

// Config sets the limits of a gate. The zero value of a field means its default.
type Config struct {
	// Limit fixes how many tickets are out. 0: the gate finds the limit itself.
	Limit int
	// Min and Max bound the limit that the gate finds. Defaults: 4 and 64.
	Min, Max int
	// MaxQueue bounds the requests that wait. Default: 4096.
	MaxQueue int
	// MaxQueuePerUser bounds those of one user. Default: a quarter of MaxQueue.
	MaxQueuePerUser int
	// MaxWait bounds a wait. Default: 30 s.
	MaxWait time.Duration
}

func (c Config) withDefaults() Config {
	c.Min, c.Max = cmp.Or(c.Min, 4), cmp.Or(c.Max, 64)
	c.MaxQueue = cmp.Or(c.MaxQueue, 4096)
	c.MaxQueuePerUser = cmp.Or(c.MaxQueuePerUser, max(1, c.MaxQueue/4))
	c.MaxWait = cmp.Or(c.MaxWait, 30*time.Second)
	return c
}

func (c Config) validate() error {
	if min(c.Limit, c.Min, c.Max, c.MaxQueue, c.MaxQueuePerUser) < 0 || c.MaxWait < 0 || c.Max < c.Min {
		return fmt.Errorf("admission: a limit is negative, or the least above the most: %+v", c)
	}
	return nil
}

// A Gate admits starts on one node. It is safe for concurrent use; K names users.
type Gate[K comparable] struct {
	cfg Config

	mu    sync.Mutex // guards what follows
	limit limiter
	out   int // tickets
	queue queue[K]
	pace  pace
	stats Stats
}

// New returns a gate.
func New[K comparable](cfg Config) (*Gate[K], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Gate[K]{cfg: cfg, limit: newLimiter(cfg), queue: newQueue[K]()}, nil
}

// Enter returns a ticket when it is the user's turn. The errors are ctx's own and
// [*BusyError].
func (g *Gate[K]) Enter(ctx context.Context, user K) (*Ticket[K], error) {
	return g.EnterSharing(ctx, user, 1)
}

// EnterSharing is Enter for something so small that the user's next ones, up to that
// many that may share as well, begin in the same turn. They count as one ticket until
// the last of them has come back.
func (g *Gate[K]) EnterSharing(ctx context.Context, user K, most int) (*Ticket[K], error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	if g.queue.n == 0 && g.out < g.limit.now() {
		g.out++
		t := &Ticket[K]{gate: g, among: g.out}
		g.mu.Unlock()
		return t, nil
	}
	w, err := g.enqueueLocked(user, most)
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return g.await(ctx, w)
}

// enqueueLocked refuses who would not be served in time.
func (g *Gate[K]) enqueueLocked(user K, most int) (*waiter[K], error) {
	g.limit.wanted()
	own := g.queue.of(user)
	expected := g.pace.until(g.queue.ahead(user) + 1)
	switch {
	case own >= g.cfg.MaxQueuePerUser:
		g.stats.RefusedOwn++
		return nil, &BusyError{Own: true, RetryAfter: seconds(g.pace.until(own))}
	case g.queue.n >= g.cfg.MaxQueue, expected > g.cfg.MaxWait:
		g.stats.Refused++
		return nil, &BusyError{RetryAfter: seconds(max(expected-g.cfg.MaxWait, expected/2))}
	}
	g.stats.Waits++
	w := g.queue.push(user)
	w.most = most
	return w, nil
}

func seconds(d time.Duration) time.Duration {
	return min(max(d.Round(time.Second), time.Second), time.Minute)
}

// await blocks until w has a ticket or gives up.
func (g *Gate[K]) await(ctx context.Context, w *waiter[K]) (*Ticket[K], error) {
	began := time.Now()
	timer := time.NewTimer(g.cfg.MaxWait)
	defer timer.Stop()
	var gaveUp error
	select {
	case <-w.ready:
	case <-ctx.Done():
		gaveUp = ctx.Err()
	case <-timer.C:
		gaveUp = ErrBusy
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.WaitTime += time.Since(began)
	switch {
	case gaveUp == nil, w.among > 0 && ctx.Err() == nil: // or at the same moment
		return &Ticket[K]{gate: g, among: w.among, turn: w.turn}, nil
	case w.among > 0:
		g.returnLocked(w.turn)
	default:
		g.queue.remove(w)
	}
	if ctx.Err() != nil {
		g.stats.Cancelled++
		return nil, ctx.Err()
	}
	g.stats.Refused++
	return nil, &BusyError{RetryAfter: seconds(g.pace.until(g.queue.n + 1))}
}

// returnLocked takes a ticket back, the last one of those that share a turn, and gives
// it to the next.
func (g *Gate[K]) returnLocked(t *turn) {
	requests := 1
	if t != nil {
		if t.shared--; t.shared > 0 {
			return
		}
		requests = t.size
	}
	g.out--
	g.pace.departed(requests, g.queue.n > 0)
	g.grantLocked()
}

func (g *Gate[K]) grantLocked() {
	for g.out < g.limit.now() {
		w := g.queue.pop()
		if w == nil {
			return
		}
		g.out++
		t := &turn{}
		w.grant(t, g.out)
		for most := w.most; t.size < most; {
			next := g.queue.popAfter(w.line)
			if next == nil {
				break
			}
			most = min(most, next.most)
			next.grant(t, g.out)
		}
	}
}

// Stats is a snapshot of a gate. Counters count since New and never fall.
type Stats struct {
	// Limit is how many tickets may be out now, Out how many are.
	Limit, Out int
	// Waiting counts requests, Users those who have any waiting.
	Waiting, Users int
	// Baseline is how long a start takes on a node that has nothing to do, Recent how
	// long starts take now; zero: not known.
	Baseline, Recent time.Duration

	// Waits counts requests that had to wait, WaitTime adds up for how long.
	Waits    uint64
	WaitTime time.Duration
	// Refused counts requests refused for want of time or room, RefusedOwn those that
	// were refused for the user's own, Cancelled those that left while they waited.
	Refused, RefusedOwn, Cancelled uint64
}

// Stats returns a snapshot.
func (g *Gate[K]) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Limit, s.Out = g.limit.now(), g.out
	s.Waiting, s.Users = g.queue.n, len(g.queue.users)
	s.Baseline, s.Recent = g.limit.base(), g.limit.recent
	return s
}

// Load is how many hold a ticket or wait for one, and how many tickets may be out.
func (g *Gate[K]) Load() (load, limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out + g.queue.n, g.limit.now()
}
