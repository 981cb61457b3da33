package audit

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"sallyport/internal/private"
)

const (
	archivedSuffix = ".gz"
	// beginningName is a file of the archive that says where the log begins, once older
	// files were removed.
	beginningName = "beginning.json"
)

func archivedName(number int) string { return fileName(number) + archivedSuffix }

// listArchive returns the numbers of the files in an archive.
func listArchive(dir string) ([]int, error) {
	if dir == "" {
		return nil, nil
	}
	return list(dir, func(name string) (string, bool) { return strings.CutSuffix(name, archivedSuffix) })
}

// listAll returns the numbers of all files, and which of them are in the archive alone.
func listAll(dir, archive string) (numbers []int, archived map[int]bool, err error) {
	// The archive first, and again if a file went there meanwhile.
	for {
		old, err := listArchive(archive)
		if err != nil {
			return nil, nil, err
		}
		live, err := listFiles(dir)
		if err != nil {
			return nil, nil, err
		}
		again, err := listArchive(archive)
		if err != nil {
			return nil, nil, err
		}
		if !slices.Equal(old, again) {
			continue
		}
		archived = map[int]bool{}
		for _, n := range old {
			archived[n] = true
		}
		for _, n := range live {
			delete(archived, n)
		}
		numbers = append(slices.Collect(maps.Keys(archived)), live...)
		slices.Sort(numbers)
		return numbers, archived, nil
	}
}

// openFrom opens a file of the log where it is: in its folder, or in the archive.
func openFrom(dir, archive string, number int) (io.ReadCloser, error) {
	f, err := openRegular(filepath.Join(dir, fileName(number)))
	if archive == "" || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	return openArchived(archive, number)
}

func openArchived(archive string, number int) (io.ReadCloser, error) {
	f, err := openRegular(filepath.Join(archive, archivedName(number)))
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrChain, archivedName(number), err), f.Close())
	}
	return unzipped{z, f}, nil
}

// unzipped reads a compressed file. What cannot be unpacked is not what was archived.
type unzipped struct {
	*gzip.Reader
	file *os.File
}

func (u unzipped) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %s: %w", ErrChain, filepath.Base(u.file.Name()), err)
	}
	return n, err
}

func (u unzipped) Close() error { return u.file.Close() }

// A beginning says where a log begins whose older files were removed on purpose.
type beginning struct {
	// File is the first that is left.
	File int `json:"sallyport.file"`
	// Text names the last event before it, and Signature is its signature.
	Text      string `json:"sallyport.checkpoint"`
	Signature string `json:"sallyport.signature,omitempty"`
}

// readBeginning returns nil if nothing was removed.
func readBeginning(archive string) (*beginning, Checkpoint, error) {
	if archive == "" {
		return nil, Checkpoint{}, nil
	}
	text, err := private.ReadFile(filepath.Join(archive, beginningName), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Checkpoint{}, nil
	}
	if err != nil {
		return nil, Checkpoint{}, err
	}
	var b beginning
	err = json.Unmarshal(text, &b)
	c := Checkpoint{}
	if err == nil {
		c, err = parseCheckpoint([]byte(b.Text), beginningWord)
	}
	if err != nil || b.File < start().file {
		return nil, Checkpoint{}, fmt.Errorf("%w: %s is damaged", ErrChain, beginningName)
	}
	return &b, c, nil
}

// begin has the walk start where the check wants it, and returns the files from there on.
func (w *walk) begin(numbers []int, c Check) ([]int, error) {
	from := func(n int) []int { return numbers[sort.SearchInts(numbers, n):] }
	b, removed, err := readBeginning(w.archive)
	if err != nil {
		return nil, err
	}
	if b != nil {
		if c.Signature != nil {
			if _, err := c.Signature([]byte(b.Text), []byte(b.Signature)); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrChain, beginningName, err)
			}
		}
		w.at = position{file: b.File, sequence: removed.Sequence, hash: removed.Hash}
		numbers = from(b.File)
	}
	switch {
	case c.From != nil:
		first, err := w.containing(numbers, c.From.Sequence)
		if err != nil {
			return nil, err
		}
		w.at, w.trustFirst = position{file: first}, true
		w.signed.known[c.From.Sequence] = c.From.Hash
		return from(first), nil
	case c.Partial && len(numbers) > 0 && numbers[0] > w.at.file:
		w.at, w.trustFirst = position{file: numbers[0], hash: start().hash}, true
	}
	return numbers, nil
}

// containing is the file that has an event: the last whose first event is not behind it.
func (w *walk) containing(numbers []int, sequence uint64) (int, error) {
	var failed error
	i := sort.Search(len(numbers), func(i int) bool {
		first, err := firstLine(w.dir, w.archive, numbers[i])
		if err != nil && !errors.Is(err, errEmpty) {
			failed = err
		}
		return err != nil || first.sequence > sequence
	})
	if failed != nil {
		return 0, failed
	}
	if i == 0 {
		return 0, fmt.Errorf("event %d lies before the oldest file that is here", sequence)
	}
	return numbers[i-1], nil
}
