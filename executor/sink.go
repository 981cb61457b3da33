package executor

import (
	"fmt"
	"io"
	"sync"
)

// buffers holds the buffers through which streams are copied. One is as large as
// the largest packet of x/crypto (RFC 4254 §5.2 lets the receiver choose).
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *buffers) get() *[]byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return buffer
	}
	buffer := make([]byte, bufferSize)
	return &buffer
}

func (b *buffers) put(buffer *[]byte) { b.pool.Put(buffer) }

// A sink takes one output stream of a command: it collects up to a limit, or
// hands on to the caller's writer. It never fails towards the stream, so that the
// command's end is seen even if nobody wants its output.
type sink struct {
	writer io.Writer // nil: collect
	limit  int64
	failed chan<- error // gets the writer's error, once

	// turn holds one token: whoever has it may use the writer and the fields
	// below. It is a channel and no mutex because the writer may block.
	turn      chan struct{}
	collected []byte
	total     int64
	truncated bool
	stopped   bool
}

func newSink(writer io.Writer, limit int64, failed chan<- error) *sink {
	return &sink{writer: writer, limit: limit, failed: failed, turn: make(chan struct{}, 1)}
}

// drain takes r to its end.
func (s *sink) drain(r io.Reader, b *buffers) {
	buffer := b.get()
	defer b.put(buffer)
	for {
		n, err := r.Read(*buffer)
		if n > 0 {
			s.take((*buffer)[:n])
		}
		if err != nil {
			return
		}
	}
}

func (s *sink) take(p []byte) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.total += int64(len(p))
	switch {
	case s.stopped:
	case s.writer != nil:
		if _, err := s.writer.Write(p); err != nil {
			s.stopped = true
			s.failed <- fmt.Errorf("%w: %w", errOutput, err)
		}
	default:
		room := s.limit - int64(len(s.collected))
		if int64(len(p)) > room {
			p, s.truncated = p[:room], true
		}
		s.collected = append(s.collected, p...)
	}
}

// stop waits for a write under way and lets no further one happen, so that the
// writer is the caller's again.
func (s *sink) stop() {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.stopped = true
}

// output returns what was collected: not nil, unless the caller had a writer. It
// must follow stop.
func (s *sink) output() []byte {
	if s.writer == nil && s.collected == nil {
		return []byte{}
	}
	return s.collected
}
