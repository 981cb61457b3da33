package ship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/store/audit"
)

const (
	// cursorEvery bounds how often the cursor is written, which costs two syncs on the
	// disk of the log. A kill -9 repeats what was shipped since.
	cursorEvery = time.Second

	minPause, maxPause = 500 * time.Millisecond, 30 * time.Second
	// tellEvery bounds the log lines of a destination that goes on failing the same way.
	tellEvery = 5 * time.Minute
)

// A destination ships to one target.
type destination struct {
	target Target
	log    *audit.Log
	dir    string
	logger *slog.Logger
	wake   chan struct{}

	// safe is what the receiver surely has; what follows is sent again after a break.
	safe atomic.Pointer[audit.Mark]
	// behind is how far safe was from the log when it was opened, and shipped how many
	// bytes it has moved since.
	behind  int64
	shipped atomic.Int64
	sent    atomic.Uint64

	mu       sync.Mutex
	oldest   time.Time // of the first event after safe
	failing  Kind
	since    time.Time
	told     time.Time
	failures uint64

	// Of run's goroutine alone.
	written   audit.Mark // the cursor on disk
	writtenAt time.Time
}

func newDestination(cfg Config, t Target) (*destination, error) {
	if !names.MatchString(t.Name) {
		return nil, errors.New("a name has 1 to 32 of a-z, 0-9 and '-'")
	}
	d := &destination{target: t, log: cfg.Log, dir: cfg.Dir, logger: cfg.Logger, wake: make(chan struct{}, 1)}
	m, err := readCursor(cfg.Dir, t.Name)
	if errors.Is(err, errNoCursor) {
		if m, err = cfg.Log.Oldest(); err != nil {
			return nil, err
		}
		cfg.Logger.Info("audit events are shipped to a new destination, from the oldest file in the folder",
			slog.String("destination", t.Name), slog.Uint64("after_event", m.Sequence))
	} else if err != nil {
		return nil, err
	} else {
		d.written = m
	}
	d.safe.Store(&m)
	cfg.Log.Notify(d.wake)
	if d.behind, err = cfg.Log.Behind(m); err != nil {
		return nil, err
	}
	d.behind -= cfg.Log.Written()
	return d, nil
}

// backlog is how many bytes of the log the receiver is not known to have. It is cheap:
// each record asks.
func (d *destination) backlog() int64 {
	return max(0, d.behind+d.log.Written()-d.shipped.Load())
}

func (d *destination) status() Status {
	end, safe := d.log.Mark(), d.safe.Load()
	s := Status{Name: d.target.Name, Kind: d.target.kind, Bytes: d.backlog(), Shipped: safe.Sequence, Sent: d.sent.Load()}
	if end.Sequence > safe.Sequence {
		s.Records = end.Sequence - safe.Sequence
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.Records > 0 {
		s.Oldest = d.oldest
	}
	s.Failing, s.Since, s.Failures = d.failing, d.since, d.failures
	return s
}

// run ships until ctx ends, or, once stopping is closed, until all is sent.
func (d *destination) run(ctx context.Context, stopping <-chan struct{}) {
	pause := minPause
	for {
		before := d.sent.Load()
		err := d.session(ctx, stopping)
		if err == nil || ctx.Err() != nil {
			return
		}
		if d.sent.Load() > before {
			pause = minPause
		}
		d.failed(ctx, err)
		wait := pause/2 + rand.N(pause/2+1) //nolint:gosec // it only spreads attempts
		if f, ok := errors.AsType[*failure](err); ok {
			wait = max(wait, min(f.after, maxPause))
		}
		pause = min(2*pause, maxPause)
		ending := stopping
		if isClosed(stopping) {
			ending = nil
			if kind := kindOf(err); kind != Broken && kind != Unconfirmed {
				return // what is not there will not come now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ending:
		case <-time.After(wait):
		}
	}
}

// session ships over one link after the other until something fails; nil says that all
// is done.
func (d *destination) session(ctx context.Context, stopping <-chan struct{}) error {
	if err := d.skipArchived(); err != nil {
		return err
	}
	s := &session{d: d, reader: d.log.ReadFrom(*d.safe.Load())}
	defer s.close()
	for {
		batch, err := s.read()
		if err != nil {
			return err
		}
		if len(batch) > 0 {
			if err := s.send(ctx, batch); err != nil {
				return err
			}
		}
		if err := s.settle(ctx, len(batch) == 0 && isClosed(stopping)); err != nil {
			return err
		}
		if len(batch) > 0 {
			continue
		}
		if isClosed(stopping) {
			return d.writeCursor()
		}
		if err := s.wait(ctx, stopping); err != nil {
			return err
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// skipArchived moves on from a file that has left the folder, as it can only while this
// destination was not configured.
func (d *destination) skipArchived() error {
	oldest, err := d.log.Oldest()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // archived just now; the next look tells
	}
	if err != nil {
		return err
	}
	safe := d.safe.Load()
	if safe.File >= oldest.File || safe.Sequence >= oldest.Sequence {
		return nil
	}
	d.logger.Warn("audit events were archived while this destination was not configured: it does not get them",
		slog.String("destination", d.target.Name), slog.Uint64("first", safe.Sequence+1), slog.Uint64("last", oldest.Sequence))
	d.safe.Store(&oldest)
	return nil
}

// advance makes m safe.
func (d *destination) advance(m audit.Mark, bytes int64, oldest time.Time) error {
	d.safe.Store(&m)
	d.shipped.Add(bytes)
	d.mu.Lock()
	d.oldest = oldest
	d.mu.Unlock()
	if time.Since(d.writtenAt) < cursorEvery {
		return nil
	}
	return d.writeCursor()
}

// writeCursor makes safe durable, if it is not.
func (d *destination) writeCursor() error {
	safe := *d.safe.Load()
	if safe == d.written {
		return nil
	}
	if err := writeCursor(d.dir, d.target.Name, safe); err != nil {
		return fmt.Errorf("cursor: %w", err)
	}
	d.written, d.writtenAt = safe, time.Now()
	return nil
}

// failed notes and tells why a session ended. The same reason is told again only after
// a while.
func (d *destination) failed(ctx context.Context, err error) {
	kind, now := kindOf(err), time.Now()
	d.mu.Lock()
	d.failures++
	tell := d.failing != kind || now.Sub(d.told) >= tellEvery
	if d.failing == "" {
		d.since = now
	}
	d.failing = kind
	if tell {
		d.told = now
	}
	d.mu.Unlock()
	if tell {
		d.logger.WarnContext(ctx, "audit events cannot be shipped; they stay in the folder and are sent later",
			slog.String("destination", d.target.Name), slog.Any("error", err))
	}
}

// works notes that the receiver confirms again.
func (d *destination) works(ctx context.Context) {
	d.mu.Lock()
	was, since := d.failing, d.since
	d.failing, d.since = "", time.Time{}
	d.mu.Unlock()
	if was != "" {
		d.logger.InfoContext(ctx, "audit events are shipped again",
			slog.String("destination", d.target.Name), slog.Duration("after", time.Since(since).Round(time.Millisecond)))
	}
}
