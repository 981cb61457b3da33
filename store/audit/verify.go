package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Report is what Verify found. HeadHash stands for the whole log: whoever notes
// it elsewhere from time to time can show later that nothing before it changed.
type Report struct {
	// Files is how many files the log has.
	Files int
	// Events is how many events they hold.
	Events uint64
	// First and Last are the times of the first and the last event; zero when
	// there is none.
	First, Last time.Time
	// Sequence and HeadHash are those of the last event; 0 and 64 zeros when
	// there is none.
	Sequence uint64
	HeadHash string
	// Unfinished is how many bytes follow the last event that are no event. They
	// were never acknowledged: the log is being written at this moment, or a
	// crash left them and the next Open will remove them.
	Unfinished int64
}

// Verify reads the log in dir from its first line and checks every byte, with
// memory that does not depend on the size of the log. It may run while the log is
// in use. An error that wraps ErrChain names the file, the line and what is wrong
// with it; any other error means that the log could not be read.
//
// Verify finds any changed bit, any line that is missing, moved or put between two
// others, and a missing end. It cannot tell that somebody who may write the folder
// computed a new chain, head file included, or continued the chain after the
// head: for that, compare HeadHash with one that was noted elsewhere.
func Verify(dir string) (Report, error) {
	head, err := readHead(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	// Listed after the head was read: a log in use only grows beyond it.
	numbers, err := listFiles(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	to := head.file
	if head.sequence == 0 {
		to = 0 // a new log may have no file yet
	}
	if err := contiguous(numbers, 1, to); err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	w := walk{dir: dir, head: head, at: start()}
	if err := w.files(numbers); err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	return Report{
		Files: len(numbers), Events: w.events, First: w.first, Last: w.last,
		Sequence: w.at.sequence, HeadHash: w.at.hash, Unfinished: w.unfinished,
	}, nil
}

// readHead returns the head of a log that may be in use: a slot that is being
// written at this moment looks damaged, and a second look tells.
func readHead(dir string) (position, error) {
	f, err := os.Open(filepath.Join(dir, headName))
	if errors.Is(err, fs.ErrNotExist) {
		if numbers, listErr := listFiles(dir); listErr == nil && len(numbers) > 0 {
			return position{}, fmt.Errorf("%w: the head file is missing", ErrChain)
		}
	}
	if err != nil {
		return position{}, err
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	var found [2]*position
	for range 5 {
		if found, err = slots(f); err != nil {
			return position{}, err
		}
		if found[0] != nil && found[1] != nil {
			return *found[newest(found)], nil
		}
	}
	damaged := 1
	if found[0] != nil {
		damaged = 2
	}
	return position{}, fmt.Errorf("%w: the head file is damaged in its record %d of 2", ErrChain, damaged)
}
