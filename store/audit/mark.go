package audit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A Mark is a place in the log: the end of a durable event. With its hash it stands
// for every event up to it.
type Mark struct {
	// File is the number of the file, Offset how many of its bytes are before the
	// place.
	File   int   `json:"sallyport.file"`
	Offset int64 `json:"sallyport.offset"`
	// Sequence and Hash are those of the last event before the place; 0 and 64 zeros
	// at the beginning.
	Sequence uint64 `json:"event.sequence"`
	Hash     string `json:"sallyport.head"`
}

// Mark returns the end of the log: what is before it is durable.
func (l *Log) Mark() Mark { return *l.mark.Load() }

// Written is how many bytes became durable since Open.
func (l *Log) Written() int64 { return l.written.Load() }

// Notify has one value sent to c after events became durable, unless one waits there
// already. The log never waits for c, which must have room for one.
func (l *Log) Notify(c chan<- struct{}) {
	l.listening.Lock()
	defer l.listening.Unlock()
	l.listeners = append(l.listeners, c)
}

// publish tells others of n bytes more, which end at the tail.
func (l *Log) publish(n int64) {
	l.mark.Store(&Mark{File: l.number, Offset: l.size, Sequence: l.tail.sequence, Hash: l.tail.hash})
	l.written.Add(n)
	l.listening.Lock()
	defer l.listening.Unlock()
	for _, c := range l.listeners {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Oldest returns the place before the first event that is in the log's folder.
func (l *Log) Oldest() (Mark, error) {
	numbers, err := listFiles(l.dir)
	if err != nil {
		return Mark{}, err
	}
	end := l.Mark()
	if len(numbers) == 0 || numbers[0] >= end.File && end.Offset == 0 {
		return end, nil
	}
	return beginningOf(l.dir, numbers[0])
}

// beginningOf returns the place before the first event of a file.
func beginningOf(dir string, number int) (Mark, error) {
	if number == start().file {
		return Mark{File: number, Hash: start().hash}, nil
	}
	first, err := firstLine(dir, "", number)
	if err != nil {
		return Mark{}, err
	}
	return Mark{File: number, Sequence: first.sequence - 1, Hash: first.prev}, nil
}

// Behind is how many bytes of the log follow m. It looks at each file since.
func (l *Log) Behind(m Mark) (int64, error) {
	end := l.Mark()
	bytes := end.Offset - m.Offset
	for number := m.File; number < end.File; number++ {
		info, err := os.Stat(filepath.Join(l.dir, fileName(number)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // archived meanwhile
		}
		if err != nil {
			return 0, err
		}
		bytes += info.Size()
	}
	return bytes, nil
}
