package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sallyport/store/internal/groupcommit"
	"sallyport/store/internal/private"
)

const (
	defaultMaxBytes = 64 << 20
	minMaxBytes     = 4 << 10

	// maxBatch and maxWrite bound the events and about the bytes of one write.
	maxBatch = 256
	maxWrite = 4 << 20
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
	// Logger gets what Open had to repair after a crash; nil discards it.
	Logger *slog.Logger
}

// Log is a [Recorder] that appends to hash-chained files of JSON Lines:
// audit-000001.jsonl, audit-000002.jsonl and so on, and beside them "head", the
// position of the last acknowledged event.
//
// Events that are recorded at one moment share one write: it is appended and
// synced, then the head is written and synced, and only then Record returns. So
// the log may be ahead of the head after a crash, but never behind.
type Log struct {
	dir      string
	maxBytes int64
	writer   *groupcommit.Writer[*record]
	close    func() error

	// Below: of the writer's goroutine alone, once Open has returned.

	head   *headFile
	file   *os.File // the newest
	number int      // of that file
	size   int64    // the bytes of good lines in it
	tail   position // the last good line, which may stand in the file before
	// torn says that file may have bytes after size, which could not be removed
	// when a write failed.
	torn bool
	buf  []byte // reused by every write
}

var _ Recorder = (*Log)(nil)

// A record is a queued event and what became of it.
type record struct {
	members []byte // as appendEvent made them
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
	l.writer = groupcommit.New(maxBatch, l.commit)
	l.close = sync.OnceValue(func() error {
		l.writer.Close()
		return errors.Join(l.file.Close(), l.head.file.Close())
	})
	return l, nil
}

// Record makes the event durable. Its errors wrap ErrUnavailable. ctx ends the
// wait only until the event is taken into a write; afterwards Record waits for
// the disk. An event whose Record failed may still be found in the log, if the
// disk failed late: the log then tells of an act that did not happen, never the
// other way round.
func (l *Log) Record(ctx context.Context, e Event) error {
	members, err := appendEvent(nil, RequestFrom(ctx), e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	r := &record{members: members}
	err = l.writer.Do(ctx, r)
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

// Close waits for the write at work, refuses what is still queued, and releases
// the folder.
func (l *Log) Close() error { return l.close() }

func (cfg Config) withDefaults() (Config, error) {
	var errs []error
	if cfg.Dir == "" {
		errs = append(errs, errors.New("no folder given"))
	}
	if cfg.MaxBytes != 0 && cfg.MaxBytes < minMaxBytes {
		errs = append(errs, fmt.Errorf("file size of %d bytes, at least %d are needed", cfg.MaxBytes, minMaxBytes))
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, errors.Join(errs...)
}

// commit writes a batch, file by file if it reaches over the end of one.
func (l *Log) commit(batch []*record) {
	for len(batch) > 0 {
		n, err := l.write(batch)
		for _, r := range batch[:n] {
			r.err = err
		}
		batch = batch[n:]
	}
}

// write makes the first n events durable, or returns why none of them is.
func (l *Log) write(batch []*record) (n int, err error) {
	if err := l.repair(); err != nil {
		return len(batch), err
	}
	if l.size > 0 && l.size+lineSize(batch[0]) > l.maxBytes {
		if err := l.rotate(); err != nil {
			return len(batch), err
		}
	}
	now, next := time.Now(), l.tail
	next.file = l.number
	l.buf = l.buf[:0]
	for n == 0 || n < len(batch) && len(l.buf) < maxWrite && l.size+int64(len(l.buf))+lineSize(batch[n]) <= l.maxBytes {
		l.buf, next = next.appendLine(l.buf, now, batch[n].members)
		n++
	}
	if err := l.flush(next); err != nil {
		return len(batch), err
	}
	return n, nil
}

// lineSize is how long a record's line can become.
func lineSize(r *record) int64 {
	const frame = len(timeMember) + len(timeLayout) + len(`","event.sequence":18446744073709551615`) +
		len(prevMember) + hashHex + len(`"`) + len(hashMember) + hashHex + len(lineEnd)
	return int64(len(r.members) + frame)
}

// flush writes l.buf, whose last line is at next, and then the head.
func (l *Log) flush(next position) error {
	_, err := l.file.WriteAt(l.buf, l.size)
	if err == nil {
		err = syncData(l.file)
	}
	if err != nil {
		l.torn = true
		return errors.Join(err, l.repair())
	}
	// From here on the lines stay, also if the head cannot be written: it must
	// never be ahead of the log, and a failed write may have changed it.
	l.size += int64(len(l.buf))
	l.tail = next
	return l.head.write(next)
}

// repair removes what a failed write left behind the last good line.
func (l *Log) repair() error {
	if !l.torn {
		return nil
	}
	if err := l.file.Truncate(l.size); err != nil {
		return err
	}
	l.torn = false
	return nil
}

// rotate begins the next file. It may be there already, empty, from an attempt
// that failed.
func (l *Log) rotate() error {
	f, err := openFile(l.dir, l.number+1)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != 0 {
		err = fmt.Errorf("%q exists and is not empty", f.Name())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_ = l.file.Close() // all of it is durable
	l.file, l.size = f, 0
	l.number++
	return nil
}

// openFile opens or creates a file of the log, and makes its name durable.
func openFile(dir string, number int) (*os.File, error) {
	f, err := private.OpenFile(filepath.Join(dir, fileName(number)), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := private.SyncDir(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// makeDir creates the folder if it is missing, and checks that it is private.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case err == nil:
		return private.SyncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return private.CheckDir(dir, 0o077)
	default:
		return err
	}
}
