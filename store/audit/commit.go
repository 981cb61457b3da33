package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sallyport/internal/private"
)

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
	if l.headErr != nil {
		l.acknowledge()
	}
	if err := errors.Join(l.headErr, l.repair()); err != nil {
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

// flush writes l.buf, whose last line is at next.
func (l *Log) flush(next position) error {
	_, err := l.file.WriteAt(l.buf, l.size)
	if err == nil {
		err = syncData(l.file)
	}
	if err != nil {
		l.torn = true
		return errors.Join(err, l.repair())
	}
	l.size += int64(len(l.buf))
	l.tail = next
	l.publish(int64(len(l.buf)))
	return nil
}

// acknowledge has the head name the last line, which is durable.
func (l *Log) acknowledge() {
	l.headErr = nil
	if l.head.last != l.tail {
		l.headErr = l.head.write(l.tail)
	}
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
