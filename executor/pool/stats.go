package pool

import "time"

// Stats is a snapshot of a pool. Counters count since New and never fall.
type Stats struct {
	// Open is the number of connections, until their Close has returned.
	Open int
	// Idle is the number of connections that serve and have no lease.
	Idle int
	// Dialing is the number of dials under way.
	Dialing int
	// Leases is the number of leases given out and not ended.
	Leases int
	// Waiting is the number of callers that wait in Reserve.
	Waiting int

	// Waits counts the reservations that had to wait, WaitTime adds up for how
	// long, those that ended in an error included.
	Waits    uint64
	WaitTime time.Duration
	// Cancelled counts callers whose context ended while they waited.
	Cancelled uint64
	// Full counts callers that got ErrFull.
	Full uint64
	// Refusals counts sessions that nodes refused to open (Lease.Full).
	Refusals uint64

	// Dials counts dials begun, DialFailures those that ended in an error.
	Dials, DialFailures uint64
	// Evicted counts idle connections that made room under MaxConns.
	Evicted uint64
	// IdleClosed counts connections closed after IdleTimeout.
	IdleClosed uint64
	// Renewed counts connections replaced by a successor in good time.
	Renewed uint64
	// Expired counts connections that came to the end of their lifetime without
	// a successor.
	Expired uint64
	// CutOff counts connections closed under running leases because the grace
	// after their credential's end was over.
	CutOff uint64
	// ProbesFailed counts connections closed for want of an answer.
	ProbesFailed uint64
	// Lost counts connections that ended by themselves.
	Lost uint64
}

// Stats returns a snapshot.
func (p *Pool[K, C]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Idle = p.idle.n
	return s
}
