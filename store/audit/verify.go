package audit

import (
	"errors"
	"fmt"
	"io/fs"
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
	// Archived is how many of the files are in the archive.
	Archived int
	// Checkpoints counts the signed checkpoints; Signed is the last, and Key whose
	// signature it is, if signatures were checked. Unsigned is how many events follow the
	// one that it names, and UnsignedFor the time from the first of them, but for the
	// checkpoint itself, to the last.
	Checkpoints uint64
	Signed      Checkpoint
	Key         string
	Unsigned    uint64
	UnsignedFor time.Duration
}

// A Check says what Verify compares the log with.
type Check struct {
	// Archive is the folder of an [Archiver]; empty if there is none.
	Archive string
	// Signature checks the signatures of checkpoints; nil: they are only counted.
	Signature SignatureCheck
	// Known are checkpoints that were noted elsewhere: the log must have them.
	Known []Checkpoint
	// From begins with the file that has the event of this checkpoint, which is taken as
	// true; nil begins with the first event.
	From *Checkpoint
	// Partial begins with the oldest file that is there, whatever was before it.
	Partial bool
}

// Verify reads the log in dir from its first line and checks every byte, with
// memory that does not depend on the size of the log. It may run while the log is
// in use. An error that wraps ErrChain names the file, the line and what is wrong
// with it; any other error means that the log could not be read.
//
// Verify finds any changed bit, any line that is missing, moved or put between two
// others, and a missing end. It cannot tell that somebody who may write the folder
// computed a new chain, head file included, or continued the chain after the
// head: for that, see [VerifyWith].
func Verify(dir string) (Report, error) { return VerifyWith(dir, Check{}) }

// VerifyWith is Verify across the archive, with the signatures of the log's
// checkpoints and with what was noted elsewhere. Who has not the key cannot rewrite what
// is signed; [Report.Signed] and [Report.Unsigned] say how much that is. Who cuts the log
// back to an earlier checkpoint shows only against a later one that was noted elsewhere
// or shipped.
func VerifyWith(dir string, c Check) (Report, error) {
	report, err := verifyWith(dir, c)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	return report, nil
}

func verifyWith(dir string, c Check) (Report, error) {
	head, err := readHead(dir)
	if err != nil {
		return Report{}, err
	}
	// Listed after the head was read: a log in use only grows beyond it.
	numbers, archived, err := listAll(dir, c.Archive)
	if err != nil {
		return Report{}, err
	}
	w := &walk{dir: dir, archive: c.Archive, head: head, at: start(), signed: &signatures{check: c.Signature, known: map[uint64]string{}}}
	for _, k := range c.Known {
		w.signed.known[k.Sequence] = k.Hash
	}
	if numbers, err = w.begin(numbers, c); err != nil {
		return Report{}, err
	}
	to := head.file
	if head.sequence == 0 {
		to = 0 // a new log may have no file yet
	}
	if err := contiguous(numbers, w.at.file, to); err != nil {
		return Report{}, err
	}
	if err := w.files(numbers); err != nil {
		return Report{}, err
	}
	for sequence := range w.signed.known {
		if sequence > w.at.sequence {
			return Report{}, fmt.Errorf("%w: it ends with event %d, but event %d was noted: the end was cut off", ErrChain, w.at.sequence, sequence)
		}
		return Report{}, fmt.Errorf("event %d was noted, and lies before what is here: its file is missing or was not read", sequence)
	}
	report := Report{
		Files: len(numbers), Events: w.events, First: w.first, Last: w.last,
		Sequence: w.at.sequence, HeadHash: w.at.hash, Unfinished: w.unfinished,
		Checkpoints: w.signed.count, Signed: w.signed.last, Key: w.signed.lastKey,
		Unsigned: w.events,
	}
	if report.Checkpoints > 0 {
		report.Unsigned = w.at.sequence - w.signed.last.Sequence
	}
	for _, n := range numbers {
		if archived[n] {
			report.Archived++
		}
	}
	if !w.signed.waiting.IsZero() {
		report.UnsignedFor = w.last.Sub(w.signed.waiting)
	}
	return report, nil
}

// readHead returns the head of a log that may be in use: a slot that is being
// written at this moment looks damaged, and a second look tells.
func readHead(dir string) (position, error) {
	f, err := openRegular(filepath.Join(dir, headName))
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
