package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A Line is an event as it stands in the log.
type Line struct {
	// Mark is the place behind it.
	Mark
	Time time.Time
	// Text is the JSON object without its newline; it is valid until the next call.
	Text []byte
}

// A Reader reads a log in use, from a place on. It gives out only what is durable, and
// checks the chain on the way: what it returns is what was recorded.
type Reader struct {
	log    *Log
	at     Mark
	source durable
	reader *bufio.Reader
	buf    []byte
}

// durable reads a file up to the place to which it is durable: what is behind may be
// taken back when a write fails, and other bytes come in its place.
type durable struct {
	file *os.File
	at   int64
	end  int64 // -1: all of it
}

func (d *durable) Read(p []byte) (int, error) {
	if d.end >= 0 {
		p = p[:min(int64(len(p)), max(d.end-d.at, 0))]
		if len(p) == 0 {
			return 0, io.EOF
		}
	}
	n, err := d.file.Read(p)
	d.at += int64(n)
	return n, err
}

// ReadFrom returns a reader of the events after m. Close it.
func (l *Log) ReadFrom(m Mark) *Reader {
	return &Reader{log: l, at: m, reader: bufio.NewReaderSize(nil, 64<<10)}
}

// Close closes the file that is being read.
func (r *Reader) Close() error {
	if r.source.file == nil {
		return nil
	}
	err := r.source.file.Close()
	r.source.file = nil
	return err
}

// Next returns the next event, or false if there is none yet. An error that wraps
// ErrChain says that the log does not go on from where the reader is.
func (r *Reader) Next() (Line, bool, error) {
	end := r.log.Mark()
	if r.at.Sequence == end.Sequence && r.at.Hash == end.Hash {
		return Line{}, false, nil
	}
	if r.at.Sequence >= end.Sequence {
		return Line{}, false, fmt.Errorf("%w: event %d was read with hash %.16s…, but the log ends with event %d, hash %.16s…",
			ErrChain, r.at.Sequence, r.at.Hash, end.Sequence, end.Hash)
	}
	for {
		text, err := r.line(end)
		if err != nil {
			return Line{}, false, err
		}
		if len(text) > 0 {
			return r.take(text)
		}
		if r.at.File >= end.File {
			return Line{}, false, fmt.Errorf("%w: %s ends before event %d", ErrChain, fileName(r.at.File), end.Sequence)
		}
		if err := r.Close(); err != nil {
			return Line{}, false, err
		}
		r.at.File, r.at.Offset = r.at.File+1, 0
	}
}

// line returns the next line of the file, or nothing at its end.
func (r *Reader) line(end Mark) ([]byte, error) {
	if r.source.file == nil {
		f, err := openRegular(filepath.Join(r.log.dir, fileName(r.at.File)))
		if err != nil {
			return nil, err
		}
		r.source.file, r.source.at = f, r.at.Offset
		if _, err := f.Seek(r.at.Offset, io.SeekStart); err != nil {
			return nil, err
		}
		r.reader.Reset(&r.source)
	}
	r.source.end = -1
	if r.at.File == end.File {
		r.source.end = end.Offset
	}
	var err error
	r.buf, err = readLine(r.reader, r.buf[:0])
	return r.buf, err
}

func (r *Reader) take(text []byte) (Line, bool, error) {
	at := position{file: r.at.File, sequence: r.at.Sequence, hash: r.at.Hash}
	p, err := parseLine(text)
	if err == nil {
		at, err = at.follow(p, r.at.File)
	}
	if err != nil {
		return Line{}, false, fmt.Errorf("%w: %s at byte %d: %w", ErrChain, fileName(r.at.File), r.at.Offset, err)
	}
	r.at = Mark{File: at.file, Offset: r.at.Offset + int64(len(text)), Sequence: at.sequence, Hash: at.hash}
	return Line{Mark: r.at, Time: p.time, Text: text[:len(text)-1]}, true, nil
}

// readLine appends the next line with its newline to b, or what there is of it at the
// end, or the beginning of a line that is too long for a record.
func readLine(r *bufio.Reader, b []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case err == nil, errors.Is(err, io.EOF):
			return b, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(b) > maxLineBytes:
			return b, nil
		}
	}
}

// errEmpty says that a file has no line yet.
var errEmpty = errors.New("the file is empty")

// firstLine parses the first line of a file.
func firstLine(dir, archive string, number int) (parsed, error) {
	f, err := openFrom(dir, archive, number)
	if err != nil {
		return parsed{}, err
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	text, err := readLine(bufio.NewReader(f), nil)
	if err == nil && len(text) == 0 {
		err = errEmpty
	}
	if err != nil {
		return parsed{}, err
	}
	p, err := parseLine(text)
	if err != nil {
		return p, fmt.Errorf("%w: %s line 1: %w", ErrChain, fileName(number), err)
	}
	return p, nil
}
