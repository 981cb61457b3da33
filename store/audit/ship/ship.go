// Package ship sends the events of an audit log elsewhere as they are made.
//
// The log's own files are the spool: they are durable and chained before anybody acts,
// so shipping needs no second queue. Each destination has a cursor in the log's
// folder, which says up to which event its receiver is known to have everything.
//
// Guarantee: every event reaches every destination at least once, in order within a
// connection, whoever is killed meanwhile. Each carries its sequence and its hash, so
// that a receiver can drop repeats and check the chain. The cursor moves only behind
// what the receiver has confirmed (see [Syslog] and [OTLP] for what that means), and
// what is read is checked against the chain before it is sent. Nobody who records an
// event waits for a receiver; when the part that is not shipped exceeds a bound, acts
// are refused if [Config.Refuse] says so, see [Shippers.Recorder].
//
// Caveat: events that have left the folder (see audit.Archiver) are not sent to a
// destination that is new: it begins with the oldest file that is there.
package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/store/audit"
)

// Config says what is shipped where.
type Config struct {
	// Log is the log, Dir its folder, where the cursors are.
	Log *audit.Log
	Dir string
	// Targets are the destinations. Their names are different.
	Targets []Target
	// MaxBacklog is how many bytes of the log a destination may be behind. Refuse says
	// that acts are refused beyond.
	MaxBacklog int64
	Refuse     bool
	Logger     *slog.Logger
}

// A Target is a destination. Make it with [Syslog] or [OTLP].
type Target struct {
	// Name names its cursor and its metrics.
	Name string
	kind string
	// open connects.
	open func(context.Context) (link, error)
	// confirmEvery is the longest time until what was sent is confirmed. resend is how
	// long what was confirmed is sent again if the connection breaks.
	confirmEvery, resend time.Duration
}

// A link carries events to a receiver, in order.
type link interface {
	// send hands events over.
	send(ctx context.Context, lines []audit.Line) error
	// confirm returns nil when the receiver has all that was sent.
	confirm(ctx context.Context) error
	// broken is closed when the receiver has ended the connection.
	broken() <-chan struct{}
	close()
}

// Shippers ship one log.
type Shippers struct {
	cfg   Config
	dests []*destination
}

// New reads the cursors. [Shippers.Run] does the work.
func New(cfg Config) (*Shippers, error) {
	s := &Shippers{cfg: cfg}
	for _, t := range cfg.Targets {
		d, err := newDestination(cfg, t)
		if err != nil {
			return nil, fmt.Errorf("shipping to %q: %w", t.Name, err)
		}
		s.dests = append(s.dests, d)
	}
	return s, nil
}

// drainTime is how long Run goes on after its context has ended, to ship the last events.
const drainTime = 5 * time.Second

// Run ships until ctx ends. Then it still sends what is there, within 5 seconds.
func (s *Shippers) Run(ctx context.Context) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, stop) })()
	var running sync.WaitGroup
	for _, d := range s.dests {
		running.Go(func() { d.run(work, ctx.Done()) })
	}
	running.Wait()
}

// Status is how far each destination is.
func (s *Shippers) Status() []Status {
	all := make([]Status, 0, len(s.dests))
	for _, d := range s.dests {
		all = append(all, d.status())
	}
	return all
}

// Shipped is the place up to which every destination has everything; false without
// destinations.
func (s *Shippers) Shipped() (m audit.Mark, ok bool) {
	for i, d := range s.dests {
		if safe := *d.safe.Load(); i == 0 || safe.Sequence < m.Sequence {
			m = safe
		}
	}
	return m, len(s.dests) > 0
}

// A Kind names what is wrong with a destination. There are few, and none has text of
// the other side in it.
type Kind string

// What can be wrong.
const (
	Unreachable Kind = "unreachable" // no connection
	Insecure    Kind = "tls"         // a certificate that does not count, or no TLS
	Broken      Kind = "broken"      // the connection ended
	Unconfirmed Kind = "unconfirmed" // the receiver did not say that it has everything
	Rejected    Kind = "rejected"    // the receiver does not take what is sent
	Chain       Kind = "chain"       // the log does not go on from the cursor: it is another log
	Local       Kind = "local"       // the log or the cursor cannot be read or written
)

// failure is an error of a kind.
type failure struct {
	kind Kind
	err  error
	// after is what the receiver asked to wait.
	after time.Duration
}

func (f *failure) Error() string { return string(f.kind) + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(kind Kind, format string, args ...any) error {
	return &failure{kind: kind, err: fmt.Errorf(format, args...)}
}

func kindOf(err error) Kind {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.kind
	}
	if errors.Is(err, audit.ErrChain) {
		return Chain
	}
	return Local
}

// Status says how far a destination is.
type Status struct {
	Name, Kind string
	// Records and Bytes are what its receiver is not known to have. Oldest is the time
	// of the first of them; zero when there is none.
	Records uint64
	Bytes   int64
	Oldest  time.Time
	// Shipped is the last event that it surely has.
	Shipped uint64
	// Sent counts events sent by this process, repeats included.
	Sent uint64
	// Failing is what is wrong now, empty if nothing is, and Since when; Failures counts
	// all breaks and refusals.
	Failing  Kind
	Since    time.Time
	Failures uint64
}
