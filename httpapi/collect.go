package httpapi

import (
	"bytes"
	"context"
	"unicode/utf8"
)

const (
	// chunkBytes is what a collector takes from the memory of all answers at a time.
	chunkBytes = 64 << 10
	// freeChunks of each stream need no memory of the common one, so that small
	// outputs are whole however much others print. At most MaxInFlight requests have
	// them.
	freeChunks = 1
)

// A collector keeps a stream of a command for an answer: up to its limit, and as
// far as there is memory. The rest is dropped, and the command is not disturbed.
type collector struct {
	memory *share
	caller callerKey
	limit  int64

	size      int64
	chunks    [][]byte // of chunkBytes, but for the last
	taken     int64
	truncated bool
}

// Write never fails.
func (c *collector) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(int64(len(rest)), c.limit-c.size)
		if n > 0 {
			n = c.fill(rest[:n])
		}
		if n == 0 {
			c.truncated = true
			break
		}
		c.size += n
		rest = rest[n:]
	}
	return len(p), nil
}

// fill puts as much of p as fits into the last chunk, or into a new one.
func (c *collector) fill(p []byte) int64 {
	last := len(c.chunks) - 1
	if last < 0 || len(c.chunks[last]) == chunkBytes {
		if len(c.chunks) >= freeChunks {
			if !c.memory.take(c.caller, chunkBytes) {
				return 0
			}
			c.taken += chunkBytes
		}
		c.chunks = append(c.chunks, nil)
		last++
	}
	n := min(len(p), chunkBytes-len(c.chunks[last]))
	c.chunks[last] = append(c.chunks[last], p[:n]...)
	return int64(n)
}

// release gives the memory back. The collector must not be used after it.
func (c *collector) release() {
	c.memory.give(c.caller, c.taken)
	c.chunks, c.taken = nil, 0
}

// An Output keeps a stream of a command for a call of a mounted API, within the memory
// that all answers have. It is not safe for concurrent use.
type Output struct{ collector }

// OutputOf returns an Output for the request of ctx. Release it when the request has
// been answered.
func OutputOf(ctx context.Context) *Output {
	x := exchangeFrom(ctx)
	return &Output{collector{memory: x.memory, caller: keyOf(x.caller), limit: x.maxOutput}}
}

// Take returns what was written, once; the memory of it stays taken.
func (o *Output) Take() []byte {
	all := bytes.Join(o.chunks, nil)
	o.chunks = nil
	return all
}

// Hold counts n bytes that are kept elsewhere for the call, and says whether there is
// room for them.
func (o *Output) Hold(n int64) bool {
	for o.size += n; o.size > freeChunks*chunkBytes+o.taken; o.taken += chunkBytes {
		if !o.memory.take(o.caller, chunkBytes) {
			return false
		}
	}
	return true
}

// Truncated says that more was written than there was room for.
func (o *Output) Truncated() bool { return o.truncated }

// Release gives the memory back. It may be called again.
func (o *Output) Release() { o.release() }

// text says whether the stream is UTF-8, and how long it is as a JSON string.
func (c *collector) text() (valid bool, escaped int64) {
	var split splitter
	valid = true
	for _, chunk := range c.chunks {
		piece := split.next(chunk)
		valid = valid && utf8.Valid(piece)
		escaped += escapedLength(piece)
	}
	rest := split.rest()
	return valid && utf8.Valid(rest), escaped + escapedLength(rest)
}

// escapedLength is the length of text in a JSON string as encoding/json writes it.
func escapedLength(text []byte) int64 {
	n := int64(len(text))
	for _, b := range text {
		switch {
		case b == '"', b == '\\', b == '\n', b == '\r', b == '\t', b == '\b', b == '\f':
			n++
		case b < 0x20:
			n += 5
		}
	}
	return n
}
