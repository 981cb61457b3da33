package audit

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

var fileNames = regexp.MustCompile(`^audit-([0-9]{6,12})\.jsonl$`)

func fileName(number int) string { return fmt.Sprintf("audit-%06d.jsonl", number) }

// listFiles returns the numbers of the log's files in order. Other files in the
// folder are none of our business.
func listFiles(dir string) ([]int, error) {
	return list(dir, func(name string) (string, bool) { return name, true })
}

// list returns the numbers of the files whose names are, after strip, those of the log.
func list(dir string, strip func(string) (string, bool)) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		name, ok := strip(e.Name())
		m := fileNames.FindStringSubmatch(name)
		if !ok || m == nil {
			continue
		}
		if n, err := strconv.Atoi(m[1]); err == nil && fileName(n) == name {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// contiguous returns an error that names the first file missing between from and
// the last of numbers, or up to and including to.
func contiguous(numbers []int, from, to int) error {
	last := to
	if len(numbers) > 0 {
		last = max(to, numbers[len(numbers)-1])
	}
	for n := from; n <= last; n++ {
		if _, ok := slices.BinarySearch(numbers, n); !ok {
			return fmt.Errorf("%w: %s is missing", ErrChain, fileName(n))
		}
	}
	return nil
}

// A walk reads files of the log in order and checks every line.
//
// Up to the head each line must be perfect. What follows the head was never
// acknowledged: lines that continue the chain are taken as well, and from the
// first that does not, the rest of the last file counts as unfinished. That is
// the whole difference between a torn end and a broken chain: it lies after the
// head.
type walk struct {
	dir  string
	head position // acknowledged; the walk must come by
	at   position // the last good line; before the first line, where to begin

	// trustFirst takes the predecessor of the very first line from that line
	// itself, because the file before is not read.
	trustFirst bool

	// archive is where files are that are not in dir; signed looks at checkpoints. Both
	// may be missing.
	archive string
	signed  *signatures

	reader      *bufio.Reader
	buf         []byte
	passed      bool  // the head was met
	number      int   // the current file
	size        int64 // bytes of good lines in it
	unfinished  int64 // bytes after them in the last file
	events      uint64
	first, last time.Time
}

func (w *walk) files(numbers []int) error {
	w.passed = w.head.sequence == 0
	w.reader = bufio.NewReaderSize(nil, 64<<10)
	for i, n := range numbers {
		if err := w.file(n, i == len(numbers)-1); err != nil {
			return err
		}
	}
	if !w.passed {
		return fmt.Errorf("%w: %s ends with event %d, but event %d was acknowledged: the end is missing",
			ErrChain, fileName(w.number), w.at.sequence, w.head.sequence)
	}
	return nil
}

func (w *walk) file(number int, isLast bool) error {
	f, err := openFrom(w.dir, w.archive, number)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	w.reader.Reset(f)
	w.number, w.size = number, 0
	for n := 1; ; n++ {
		line, err := w.read()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		problem := w.line(line)
		if problem == nil {
			w.size += int64(len(line))
			continue
		}
		if !isLast || !w.passed {
			return fmt.Errorf("%w: %s line %d: %w", ErrChain, fileName(number), n, problem)
		}
		info, err := os.Stat(filepath.Join(w.dir, fileName(number))) // the last is never archived
		if err != nil {
			return err
		}
		w.unfinished = max(info.Size()-w.size, int64(len(line)))
		return nil
	}
}

// read returns the next line with its newline, or what there is of it at the end
// of the file, or the beginning of a line that is too long for a record. It is
// valid until the next call.
func (w *walk) read() (line []byte, err error) {
	w.buf, err = readLine(w.reader, w.buf[:0])
	return w.buf, err
}

// line takes one line, or says what is wrong with it.
func (w *walk) line(b []byte) error {
	p, err := parseLine(b)
	if err != nil {
		return err
	}
	if w.trustFirst && p.sequence > 0 {
		w.at.sequence, w.at.hash = p.sequence-1, p.prev
	}
	w.trustFirst = false
	next, err := w.at.follow(p, w.number)
	if err != nil {
		return err
	}
	if next.sequence == w.head.sequence {
		if next != w.head {
			return fmt.Errorf("event %d is not the one that the head file acknowledges", next.sequence)
		}
		w.passed = true
	}
	if w.signed != nil {
		if err := w.signed.line(next, p.time, b); err != nil {
			return err
		}
	}
	w.at = next
	w.events++
	if w.first.IsZero() {
		w.first = p.time
	}
	w.last = p.time
	return nil
}
