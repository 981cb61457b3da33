package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"sallyport/internal/private"
)

// open brings the folder into order: afterwards the last line of the newest file
// is the one that both slots of the head name.
func open(cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	head, err := openHead(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", cfg.Dir, err)
	}
	l := &Log{dir: cfg.Dir, maxBytes: cfg.MaxBytes, head: head, limits: newLimits(cfg.Limits, cfg.Dir)}
	if err := l.recover(cfg.Logger); err != nil {
		errs := []error{fmt.Errorf("%q: %w", cfg.Dir, err), head.file.Close()}
		if l.file != nil {
			errs = append(errs, l.file.Close())
		}
		return nil, errors.Join(errs...)
	}
	return l, nil
}

func (l *Log) recover(log *slog.Logger) error {
	numbers, err := listFiles(l.dir)
	if err != nil {
		return err
	}
	last, intact, err := l.head.load(len(numbers) == 0)
	if err != nil {
		return err
	}
	if last.sequence == 0 && len(numbers) == 0 {
		l.tail, l.number = start(), start().file
		l.file, err = openFile(l.dir, l.number)
		return err
	}
	w, err := l.check(last, numbers)
	if err != nil {
		return err
	}
	l.tail, l.number, l.size = w.at, w.number, w.size
	if l.file, err = openFile(l.dir, l.number); err != nil {
		return err
	}
	if err := l.settle(w.unfinished); err != nil {
		return err
	}
	if ahead := l.tail.sequence - last.sequence; ahead > 0 || w.unfinished > 0 || !intact {
		log.Warn("audit log repaired after a crash: nothing that was acknowledged is lost",
			slog.String("file", filepath.Join(l.dir, fileName(l.number))),
			slog.Uint64("last_acknowledged", last.sequence),
			slog.Uint64("whole_events_kept", ahead),
			slog.Int64("unfinished_bytes_removed", w.unfinished),
			slog.Bool("head_was_damaged", !intact))
		return l.head.writeBoth(l.tail)
	}
	return nil
}

// check walks from the file of the head to the end.
func (l *Log) check(last position, numbers []int) (*walk, error) {
	if err := contiguous(numbers, last.file, last.file); err != nil {
		return nil, err
	}
	for len(numbers) > 0 && numbers[0] < last.file {
		numbers = numbers[1:]
	}
	w := &walk{dir: l.dir, head: last, at: start(), trustFirst: last.file > 1}
	return w, w.files(numbers)
}

// settle cuts off the unfinished bytes and makes durable what stays, before the
// head acknowledges it.
func (l *Log) settle(unfinished int64) error {
	if unfinished > 0 {
		if err := l.file.Truncate(l.size); err != nil {
			return err
		}
	}
	return syncData(l.file)
}

// load reads the head. intact is false if one of the slots is damaged, which a
// power loss can do. If both are, the log cannot be trusted, unless there is no
// log yet: then this is a new folder, and load writes the first head.
func (h *headFile) load(empty bool) (last position, intact bool, err error) {
	found, err := slots(h.file)
	if err != nil {
		return position{}, false, err
	}
	i := newest(found)
	if i < 0 && empty {
		return start(), true, h.writeBoth(start())
	}
	if i < 0 {
		return position{}, false, fmt.Errorf("%w: the head file is missing or damaged", ErrChain)
	}
	h.last, h.slot = *found[i], 1-i
	h.needed.Store(int64(h.last.file))
	if other := found[1-i]; other != nil {
		h.needed.Store(int64(min(h.last.file, other.file)))
	}
	return h.last, found[1-i] != nil, nil
}

// writeBoth makes p the head in both slots, the one that counts least first.
func (h *headFile) writeBoth(p position) error {
	if err := h.write(p); err != nil {
		return err
	}
	return h.write(p)
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
