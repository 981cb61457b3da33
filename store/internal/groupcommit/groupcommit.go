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
	done  chan struct{}
}

// Writer commits items of type T, which is usually a pointer to an operation
// that holds its own result.
type Writer[T any] struct {
	commit  func([]T)
	queue   chan *ticket[T]
	closing chan struct{}
	stopped chan struct{}
	close   func()
}

// New starts a writer whose batches have at most limit items. The writer calls
// commit from one goroutine, in the order of arrival; commit leaves each item's
// result in the item and does not keep the slice.
func New[T any](limit int, commit func([]T)) *Writer[T] {
	w := &Writer[T]{
		commit:  commit,
		queue:   make(chan *ticket[T], limit),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
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
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &ticket[T]{item: item, done: make(chan struct{})}
	select {
	case w.queue <- t:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.closing:
		return ErrClosed
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

// Close ends the batch at work, refuses what is queued, and waits until the
// goroutine has gone. It may be called more than once.
func (w *Writer[T]) Close() {
	w.close()
	<-w.stopped
}

func (w *Writer[T]) run(limit int) {
	defer close(w.stopped)
	batch := make([]*ticket[T], 0, limit)
	items := make([]T, 0, limit)
	for {
		select {
		case <-w.closing: // before the queue, which is likely to be ready as well
			return
		default:
		}
		select {
		case <-w.closing:
			return
		case t := <-w.queue:
			batch = w.gather(append(batch[:0], t))
		}
		items = items[:0]
		for _, t := range batch {
			items = append(items, t.item)
		}
		if len(items) > 0 {
			w.commit(items)
		}
		for _, t := range batch {
			close(t.done)
		}
		clear(batch)
		clear(items)
	}
}

// gather adds what else is queued, up to the batch's capacity, and keeps the
// items whose callers still wait for them.
func (w *Writer[T]) gather(batch []*ticket[T]) []*ticket[T] {
	for len(batch) < cap(batch) {
		select {
		case t := <-w.queue:
			batch = append(batch, t)
			continue
		default:
		}
		break
	}
	kept := batch[:0]
	for _, t := range batch {
		if t.state.CompareAndSwap(queued, taken) {
			kept = append(kept, t)
		}
	}
	return kept
}
