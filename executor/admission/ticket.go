package admission

import (
	"sync"
	"time"
)

// settle is how long a start counts after the node has accepted it. A quick command is
// over by then, and what goes on longer is no start any more.
const settle = 200 * time.Millisecond

// A Ticket is the right to start one thing. It must be given back by [Ticket.Leave];
// all its methods may be called by several goroutines.
type Ticket[K comparable] struct {
	gate  *Gate[K]
	among int // tickets that were out when this one was given, itself included
	turn  *turn

	mu    sync.Mutex // guards what follows
	left  bool
	timer *time.Timer
}

// Accepted tells that the node has begun what was to be started, took after it was
// asked. A while later the ticket counts no more.
func (t *Ticket[K]) Accepted(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left || t.timer != nil {
		return
	}
	t.gate.mu.Lock()
	t.gate.limit.sample(took, max(t.among, t.gate.out))
	t.gate.grantLocked()
	t.gate.mu.Unlock()
	t.timer = time.AfterFunc(settle, t.Leave)
}

// Begun tells that the node has begun what was to be started, and nothing of how long
// that took. A while later the ticket counts no more.
func (t *Ticket[K]) Begun() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.left && t.timer == nil {
		t.timer = time.AfterFunc(settle, t.Leave)
	}
}

// Overloaded tells that the node refused to begin it for want of room.
func (t *Ticket[K]) Overloaded() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.gate.limit.overloaded()
}

// Leave gives the ticket back. Further calls do nothing.
func (t *Ticket[K]) Leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left {
		return
	}
	t.left = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.gate.returnLocked(t.turn)
}
