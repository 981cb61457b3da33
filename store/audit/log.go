package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/store/internal/groupcommit"
)

const (
	defaultMaxBytes = 64 << 20
	minMaxBytes     = 4 << 10

	// maxBatch and maxWrite bound the events and about the bytes of one write.
	maxBatch = 256
	maxWrite = 4 << 20

	// headDelay is how far the head is behind the log at most. It costs a sync of
	// its own, which nobody has to wait for.
	headDelay = 50 * time.Millisecond
)

// Config says where the log is.
type Config struct {
	// Dir is the log's folder. It is created with mode 0700 if only its last part
	// is missing; a folder that others may enter is refused. Required.
	Dir string
	// MaxBytes is the size at which a new file is begun; 0 means 64 MiB, at least
	// 4 KiB. Files are never removed: older ones may be moved to an archive, but
	// Verify wants all of them in one folder.
	MaxBytes int64
	// Limits are those of people's records.
	Limits Limits
	// Logger gets what Open had to repair after a crash; nil discards it.
	Logger *slog.Logger
}

// Log is a [Recorder] that appends to hash-chained files of JSON Lines:
// audit-000001.jsonl, audit-000002.jsonl and so on, and beside them "head", the
// position of the last acknowledged event.
//
// Events that are recorded at one moment share one write: it is appended and
// synced, and only then Record returns. The head follows within 50 ms, and before
// Close returns. So the log may be ahead of the head after a crash, but never
// behind.
type Log struct {
	dir      string
	maxBytes int64
	writer   *groupcommit.Writer[*record]
	close    func() error
	limits   *limits
	repeats  *repeats

	mark      atomic.Pointer[Mark] // the end, for readers
	written   atomic.Int64
	listening sync.Mutex
	listeners []chan<- struct{}

	// Below: of the writer's goroutine alone, once Open has returned.

	head   *headFile
	file   *os.File // the newest
	number int      // of that file
	size   int64    // the bytes of good lines in it
	tail   position // the last good line, which may stand in the file before
	// headErr is why the head is behind, if it could not be written: nothing more is
	// recorded until it can be.
	headErr error
	// torn says that file may have bytes after size, which could not be removed
	// when a write failed.
	torn bool
	buf  []byte // reused by every write
}

var _ Recorder = (*Log)(nil)

// A record is a queued event and what became of it.
type record struct {
	members []byte // as membersOf made them
	err     error
}

// Open opens the log in cfg.Dir, or begins one. It checks the file that the head
// points into and refuses to go on, with an error that wraps ErrChain, if it is
// not what was written: the operator should then keep the folder as evidence and
// begin a new one. It returns an error that wraps ErrLocked when another process
// has the log.
//
// After a crash the log may be longer than the head says. What is there of whole
// events that continue the chain is kept, and the head moved on. The rest was
// never acknowledged; it is removed, and Config.Logger is told.
func Open(cfg Config) (*Log, error) {
	l, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l.publish(0)
	l.writer = groupcommit.NewSettling(maxBatch, l.commit, headDelay, l.acknowledge)
	l.repeats = newRepeats(l.recordCount(cfg.Logger))
	l.close = sync.OnceValue(func() error {
		l.repeats.end()
		l.writer.Close()
		return errors.Join(l.headErr, l.file.Close(), l.head.file.Close())
	})
	return l, nil
}

// Record makes the event durable. Its errors wrap ErrUnavailable, or ErrShare if the event is
// more than its person's part of the log. The same refusal that comes again and again is counted,
// which is durable later. ctx ends the
// wait only until the event is taken into a write; afterwards Record waits for
// the disk. An event whose Record failed may still be found in the log, if the
// disk failed late: the log then tells of an act that did not happen, never the
// other way round.
func (l *Log) Record(ctx context.Context, e Event) error {
	members, err := membersOf(RequestFrom(ctx), e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if l.repeats.counted(RequestFrom(ctx), e) {
		return nil
	}
	r := &record{members: members}
	if err := l.limits.admit(RequestFrom(ctx), e, lineSize(r)); err != nil {
		return err
	}
	return r.outcome(l.writer.Do(ctx, r))
}

// recordCount records how often a refusal came again.
func (l *Log) recordCount(logger *slog.Logger) func(Request, Event) {
	return func(request Request, e Event) {
		members, err := membersOf(request, e)
		if err == nil {
			r := &record{members: members}
			err = r.outcome(l.writer.Do(context.Background(), r)) // nobody waits for it
		}
		if err != nil {
			logger.Error("how often something was refused is not in the audit log", slog.Any("error", err))
		}
	}
}

// RecordLater is Record without the wait for the disk, for the end of an act that
// was done already: it waits only while too much is queued. The event goes with the
// next one that somebody waits for, or after 20 ms. done is called once with what Record would have returned, by the log's own goroutine, which it must
// not hold up. Events are written in the order of the calls.
func (l *Log) RecordLater(ctx context.Context, e Event, done func(error)) {
	members, err := membersOf(RequestFrom(ctx), e)
	if err != nil {
		done(fmt.Errorf("%w: %w", ErrUnavailable, err))
		return
	}
	r := &record{members: members}
	if err := l.limits.admit(RequestFrom(ctx), e, lineSize(r)); err != nil {
		done(err)
		return
	}
	if err := l.writer.Start(ctx, r, func(err error) { done(r.outcome(err)) }); err != nil {
		done(r.outcome(err))
	}
}

// outcome is the error of a record whose way through the writer ended with err.
func (r *record) outcome(err error) error {
	if errors.Is(err, groupcommit.ErrClosed) {
		err = errors.New("it is closed")
	}
	if err == nil {
		err = r.err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Close waits for the write at work, refuses what is still queued, writes the head,
// and releases the folder.
func (l *Log) Close() error { return l.close() }

func (cfg Config) withDefaults() (Config, error) {
	var errs []error
	if cfg.Dir == "" {
		errs = append(errs, errors.New("no folder given"))
	}
	if cfg.MaxBytes != 0 && cfg.MaxBytes < minMaxBytes {
		errs = append(errs, fmt.Errorf("file size of %d bytes, at least %d are needed", cfg.MaxBytes, minMaxBytes))
	}
	if min(cfg.Limits.BytesPerMinute, cfg.Limits.Reserve, cfg.Limits.MaxTotal) < 0 {
		errs = append(errs, errors.New("a limit is negative"))
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, errors.Join(errs...)
}
