package pool

import "sync/atomic"

// A Lease is the right to open one session on a connection. It ends with the
// first call of Release, Discard or Full; further calls do nothing. It is safe
// for concurrent use.
type Lease[C Conn] struct {
	conn  C
	owner owner
	limit int // of leases on the connection when this one was granted
	state atomic.Uint32
}

// owner is the connection of a lease, without its key type.
type owner interface {
	granted()
	serves() bool
	end(how ending, granted bool, limit int)
}

// The states of a lease.
const (
	leaseHeld uint32 = iota
	leaseGranted
	leaseEnded
)

// ending says in which way a lease ends.
type ending int

const (
	released ending = iota
	discarded
	refused
)

func newLease[K comparable, C Conn](c *conn[K, C], limit int) *Lease[C] {
	return &Lease[C]{conn: c.raw, owner: c, limit: limit}
}

// Conn returns the connection. It may be closed under the lease at any time, and
// must not be used after the lease has ended.
func (l *Lease[C]) Conn() C { return l.conn }

// Serving says whether the connection takes new leases: whoever keeps a session for
// later use should end it when that is over.
func (l *Lease[C]) Serving() bool { return l.owner.serves() }

// Granted tells the pool that the node has granted the session. It is optional:
// it lets Full tell sessions that are open from those still being opened.
func (l *Lease[C]) Granted() {
	if l.state.CompareAndSwap(leaseHeld, leaseGranted) {
		l.owner.granted()
	}
}

// Release ends the lease and leaves the connection to others.
func (l *Lease[C]) Release() { l.end(released) }

// Discard ends the lease of a connection that is no good: it takes no new leases
// and is closed when the last one ends.
func (l *Lease[C]) Discard() { l.end(discarded) }

// Full ends the lease because the node refused to open one more session on the
// connection. The pool learns the lower limit, for this connection and for a
// while for its group; the caller, whose session surely was not started, may
// Reserve again. A connection that refuses its only session is discarded.
func (l *Lease[C]) Full() { l.end(refused) }

func (l *Lease[C]) end(how ending) {
	if was := l.state.Swap(leaseEnded); was != leaseEnded {
		l.owner.end(how, was == leaseGranted, l.limit)
	}
}
