// Package groupcommit lets concurrent callers share one durable write.
//
// A single goroutine takes everything that has queued up and commits it as one
// batch. While it waits for the disk the next batch gathers, so the batch grows
// with the load and an idle system pays no delay. The queue is bounded: callers
// beyond it wait, each until its own context ends.
package groupcommit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed says that the item was not committed because the writer closed.
var ErrClosed = errors.New("group commit: closed")

// The states of a ticket. Whoever moves it away from queued decides whether the
// item is committed.
const (
	queued int32 = iota
	taken
	withdrawn
)

type ticket[T any] struct {
	item  T
	state atomic.Int32
	done  chan struct{}   // closed after the commit; nil if told is set
	told  func(err error) // of Start
}

// Writer commits items of type T, which is usually a pointer to an operation
// that holds its own result.
type Writer[T any] struct {
	commit  func([]T)
	settle  func() // nil: nothing is left to do after a commit
	delay   time.Duration
	queue   chan *ticket[T]
	closing chan struct{}
	stopped chan struct{} // closed when no batch will be made any more
	gone    chan struct{} // closed when nobody is left to be told
	close   func()
}

// New starts a writer whose batches have at most limit items. The writer calls
// commit from one goroutine, in the order of arrival; commit leaves each item's
// result in the item and does not keep the slice.
func New[T any](limit int, commit func([]T)) *Writer[T] {
	return NewSettling(limit, commit, 0, nil)
}

// NewSettling is New with a function for what need not be done with every batch.
// The same goroutine calls it once for one or more commits: delay after the first
// of them, and before Close returns.
func NewSettling[T any](limit int, commit func([]T), delay time.Duration, settle func()) *Writer[T] {
	w := &Writer[T]{
		commit:  commit,
		settle:  settle,
		delay:   delay,
		queue:   make(chan *ticket[T], limit),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		gone:    make(chan struct{}),
	}
	w.close = sync.OnceFunc(func() { close(w.closing) })
	go w.run(limit)
	return w
}

// Do returns nil when item went through commit, whatever the result in it is.
// An error means that commit never saw the item: the context ended or the writer
// closed while it was still queued. Once a batch has taken the item, Do waits for
// its end even if ctx is over, because only then is the outcome known.
func (w *Writer[T]) Do(ctx context.Context, item T) error {
	t := &ticket[T]{item: item, done: make(chan struct{})}
	if err := w.enqueue(ctx, t); err != nil {
		return err
	}
	var err error
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-w.stopped:
		err = ErrClosed
	}
	if t.state.CompareAndSwap(queued, withdrawn) {
		return err
	}
	<-t.done
	return nil
}

// enqueue waits until t is in the queue.
func (w *Writer[T]) enqueue(ctx context.Context, t *ticket[T]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case w.queue <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return ErrClosed
	}
}

// patience is how long an item that nobody waits for may wait for others to share
// their commit.
const patience = 20 * time.Millisecond

// Start is Do without the wait: it returns once item is queued, for which it waits
// as Do does, or an error, and then told is not called. The item goes with the next
// commit that somebody waits for, or after 20 ms. Then told is called once, by the
// writer's goroutine, with nil or ErrClosed.
func (w *Writer[T]) Start(ctx context.Context, item T, told func(err error)) error {
	t := &ticket[T]{item: item, told: told}
	if err := w.enqueue(ctx, t); err != nil {
		return err
	}
	// The goroutine may have gone between, and with it who would tell.
	if isClosed(w.stopped) && t.state.CompareAndSwap(queued, withdrawn) {
		return ErrClosed
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close ends the batch at work, refuses what is queued, and waits until the
// goroutine has gone. It may be called more than once.
func (w *Writer[T]) Close() {
	w.close()
	<-w.gone
}

func (w *Writer[T]) run(limit int) {
	defer w.refuse()
	batch := make([]*ticket[T], 0, limit)
	items := make([]T, 0, limit)
	var unsettled <-chan time.Time // nil: no commit was made since the last settle
	defer func() {
		if unsettled != nil {
			w.settle()
		}
	}()
	for {
		select {
		case <-w.closing: // before the queue, which is likely to be ready as well
			return
		default:
		}
		select {
		case <-w.closing:
			return
		case <-unsettled:
			unsettled = nil
			w.settle()
			continue
		case t := <-w.queue:
			batch = w.gather(w.linger(take(batch[:0], t)))
		}
		items = items[:0]
		for _, t := range batch {
			items = append(items, t.item)
		}
		if len(items) > 0 {
			w.commit(items)
			if w.settle != nil && unsettled == nil {
				unsettled = time.After(w.delay)
			}
		}
		for _, t := range batch {
			t.end(nil)
		}
		clear(batch)
		clear(items)
	}
}

// refuse ends what is still queued.
func (w *Writer[T]) refuse() {
	defer close(w.gone)
	close(w.stopped)
	for {
		select {
		case t := <-w.queue:
			if t.told != nil && t.state.CompareAndSwap(queued, withdrawn) {
				t.end(ErrClosed)
			}
		default:
			return
		}
	}
}

// end tells whoever waits for it. A caller of Do sees by itself that the writer
// has stopped.
func (t *ticket[T]) end(err error) {
	if t.told != nil {
		t.told(err)
		return
	}
	close(t.done)
}

// take adds an item if its caller still waits for it.
func take[T any](batch []*ticket[T], t *ticket[T]) []*ticket[T] {
	if t.state.CompareAndSwap(queued, taken) {
		batch = append(batch, t)
	}
	return batch
}

// linger waits for an item that somebody waits for, as long as there is none.
func (w *Writer[T]) linger(batch []*ticket[T]) []*ticket[T] {
	if len(batch) == 0 || batch[0].told == nil {
		return batch
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(batch) < cap(batch) && batch[len(batch)-1].told != nil {
		select {
		case t := <-w.queue:
			batch = take(batch, t)
		case <-timer.C:
			return batch
		case <-w.closing:
			return batch
		}
	}
	return batch
}

// gather adds what else is queued, up to the batch's capacity.
func (w *Writer[T]) gather(batch []*ticket[T]) []*ticket[T] {
	for len(batch) < cap(batch) {
		select {
		case t := <-w.queue:
			batch = take(batch, t)
		default:
			return batch
		}
	}
	return batch
}
