package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"sallyport/internal/private"
)

// ArchiverConfig says what is archived where.
type ArchiverConfig struct {
	Log *Log
	// Dir is the archive's folder; it is created with mode 0700 if only its last part is
	// missing. It may be on another file system.
	Dir string
	// After is how long the last event of a file must be past.
	After time.Duration
	// Shipped says up to where every receiver has everything; false without receivers.
	Shipped func() (Mark, bool)
	// Keep removes archived files whose last event is older; 0 keeps all. What was removed
	// is noted in the log and in the archive, signed by Signer if that is not nil.
	Keep   time.Duration
	Signer *Signer
	Logger *slog.Logger
}

// An Archiver moves old files of a log, compressed, to an archive. A file goes when all
// receivers have it and it is old enough. The copy is durable, and was read back and
// compared, before the file is removed; a crash at any moment leaves the one, the other
// or both.
type Archiver struct {
	cfg ArchiverConfig

	mu       sync.Mutex
	failures uint64
	archived uint64
}

// NewArchiver checks the archive's folder. Run does the work.
func NewArchiver(cfg ArchiverConfig) (*Archiver, error) {
	if err := makeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("audit archive: %w", err)
	}
	return &Archiver{cfg: cfg}, nil
}

// archiveEvery is how often the archiver looks.
const archiveEvery = 10 * time.Second

// Run archives until ctx ends.
func (a *Archiver) Run(ctx context.Context) {
	timer := time.NewTicker(archiveEvery)
	defer timer.Stop()
	for {
		if err := a.Step(ctx); err != nil && ctx.Err() == nil {
			a.mu.Lock()
			a.failures++
			a.mu.Unlock()
			a.cfg.Logger.ErrorContext(ctx, "old audit files cannot be archived; they stay where they are", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// Counts says how many files this process has archived, and how many attempts failed.
func (a *Archiver) Counts() (archived, failures uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.archived, a.failures
}

// Step archives what can be, and removes what is too old.
func (a *Archiver) Step(ctx context.Context) error {
	numbers, err := listFiles(a.cfg.Log.dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		ready, err := a.ready(n)
		if err != nil {
			return err
		}
		if !ready {
			break
		}
		if err := a.archive(n); err != nil {
			return err
		}
		a.mu.Lock()
		a.archived++
		a.mu.Unlock()
	}
	if a.cfg.Keep == 0 {
		return nil
	}
	return a.prune(ctx)
}

// ready says whether a file may go: nobody writes it, no recovery needs it, everybody has
// it, and it is old enough.
func (a *Archiver) ready(number int) (bool, error) {
	log := a.cfg.Log
	if number >= log.Mark().File || int64(number) >= log.head.needed.Load() {
		return false, nil
	}
	info, err := os.Stat(filepath.Join(log.dir, fileName(number)))
	if err != nil {
		return false, err
	}
	if a.cfg.Shipped != nil {
		if m, ok := a.cfg.Shipped(); ok && (m.File < number || m.File == number && m.Offset < info.Size()) {
			return false, nil
		}
	}
	return time.Since(info.ModTime()) >= a.cfg.After, nil
}

// archive copies a file to the archive and removes it.
func (a *Archiver) archive(number int) error {
	path, copied := filepath.Join(a.cfg.Log.dir, fileName(number)), filepath.Join(a.cfg.Dir, archivedName(number))
	if _, err := os.Lstat(copied); errors.Is(err, fs.ErrNotExist) {
		if err := a.copy(path, copied); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	// Whether we wrote it or a process before us: what is there must be what we remove.
	if err := a.compare(number); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return private.SyncDir(a.cfg.Log.dir)
}

// copy writes the compressed file under another name first.
func (a *Archiver) copy(from, to string) error {
	in, err := openRegular(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // opened for reading only
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := private.OpenFile(to+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close()); err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(to+".new", time.Time{}, info.ModTime()); err != nil {
		return err
	}
	if err := os.Rename(to+".new", to); err != nil {
		return err
	}
	return private.SyncDir(a.cfg.Dir)
}

// compare reads both back. The file must be a whole part of the chain: what is broken
// stays where it was written.
func (a *Archiver) compare(number int) error {
	w := walk{dir: a.cfg.Log.dir, at: position{file: number, hash: start().hash}, trustFirst: true}
	if err := w.files([]int{number}); err != nil {
		return err
	}
	if w.unfinished > 0 || w.events == 0 {
		return fmt.Errorf("%w: %s does not end with an event", ErrChain, fileName(number))
	}
	live, err := openRegular(filepath.Join(a.cfg.Log.dir, fileName(number)))
	if err != nil {
		return err
	}
	defer live.Close() //nolint:errcheck // opened for reading only
	old, err := openArchived(a.cfg.Dir, number)
	if err != nil {
		return err
	}
	defer old.Close() //nolint:errcheck // opened for reading only
	var sums [2][]byte
	for i, r := range []io.Reader{live, old} {
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			return err
		}
		sums[i] = h.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("%w: %s in the archive is not %s: keep both and look who wrote it", ErrChain, archivedName(number), fileName(number))
	}
	return nil
}

// prune removes archived files that are older than Keep. The log and the archive say so
// before they go.
func (a *Archiver) prune(ctx context.Context) error {
	numbers, err := listArchive(a.cfg.Dir)
	if err != nil {
		return err
	}
	b, c, err := readBeginning(a.cfg.Dir)
	if err != nil {
		return err
	}
	if b == nil {
		b = &beginning{File: start().file}
		c = Checkpoint{Hash: start().hash}
	}
	next, at := b.File, position{sequence: c.Sequence, hash: c.Hash}
	for _, n := range numbers {
		if n < next {
			continue
		}
		info, err := os.Stat(filepath.Join(a.cfg.Dir, archivedName(n)))
		if err != nil {
			return err
		}
		if n != next || time.Since(info.ModTime()) < a.cfg.Keep {
			break
		}
		w := walk{dir: a.cfg.Log.dir, archive: a.cfg.Dir, at: at}
		if err := w.files([]int{n}); err != nil {
			return err
		}
		next, at = n+1, w.at
	}
	if next > b.File {
		if err := a.begin(ctx, next, at); err != nil {
			return err
		}
	}
	for _, n := range numbers {
		if n >= next {
			break
		}
		if err := os.Remove(filepath.Join(a.cfg.Dir, archivedName(n))); err != nil {
			return err
		}
	}
	return private.SyncDir(a.cfg.Dir)
}

// begin notes that the log begins with a file, behind the event at.
func (a *Archiver) begin(ctx context.Context, file int, at position) error {
	c := Checkpoint{Sequence: at.sequence, Hash: at.hash, Time: time.Now()}
	text := c.text(beginningWord)
	b := beginning{File: file, Text: string(text)}
	if a.cfg.Signer != nil {
		signature, err := a.cfg.Signer.cfg.Sign(text)
		if err != nil {
			return err
		}
		b.Signature = string(signature)
	}
	content, err := json.Marshal(b)
	if err != nil {
		return err
	}
	err = a.cfg.Log.Record(ctx, Event{Action: AdminAct, Outcome: Unknown, Reason: "older than audit.archive_keep", Detail: map[string]string{
		"act": "audit remove", "before_event": strconv.FormatUint(at.sequence+1, 10), "hash": at.hash,
	}})
	if err != nil {
		return err
	}
	path := filepath.Join(a.cfg.Dir, beginningName)
	f, err := private.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return private.SyncDir(a.cfg.Dir)
}
