package firecrest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sallyport/executor"
)

// A cut says which part of a file head and tail show.
type cut struct {
	place
	bytes, lines int64
	// given says that the client named a number of lines or bytes, maybe zero, and
	// position is that number as the answer repeats it.
	given    bool
	position int64
	// inverse is skipTrailing of head, skipHeading of tail.
	inverse bool
}

// cut takes the parameters of head and tail.
func (c *call) cut(inverse string) (cut, error) {
	query := c.query()
	k := cut{place: c.place(query, "path"), bytes: query.whole("bytes", 0), lines: query.whole("lines", 0), inverse: query.flag(inverse, false)}
	if k.bytes < 0 || k.lines < 0 {
		query.refuse("lines", "`bytes` and `lines` must not be negative")
	}
	if k.bytes != 0 && k.lines != 0 {
		query.refuse("lines", "Only one of `bytes` or `lines` can be specified.")
	}
	_, hasLines := query.take("lines")
	_, hasBytes := query.take("bytes")
	k.given, k.position = hasLines || hasBytes, k.bytes
	if hasLines {
		k.position = k.lines
	}
	return k, query.finish()
}

// count is how many of the lines are meant: ten unless the client says so. Without a
// number there is nothing to invert.
func (k cut) count() (lines int64, inverse bool) {
	if k.lines == 0 {
		return 10, false
	}
	return k.lines, k.inverse
}

func (k cut) kind() string {
	if k.bytes != 0 {
		return "bytes"
	}
	return "lines"
}

// headFile is GET ops/head.
func headFile(c *call) error {
	k, err := c.cut("skipTrailing")
	if err != nil {
		return err
	}
	end := int64(10)
	if k.given {
		end = k.position
		if k.inverse {
			end = -end
		}
	}
	return c.answerCut("head", k, 0, end, func(ctx context.Context, file *executor.File, size int64) (span, error) {
		if k.bytes != 0 {
			if k.inverse {
				return span{0, max(0, size-k.bytes)}, nil
			}
			return span{0, min(size, k.bytes)}, nil
		}
		lines, inverse := k.count()
		find := afterLines
		if inverse {
			find = lastLines
		}
		to, err := find(ctx, file, size, lines)
		return span{0, to}, err
	})
}

// tailFile is GET ops/tail. With skipHeading, the first line or byte shown is the one
// of that number, as in tail(1).
func tailFile(c *call) error {
	k, err := c.cut("skipHeading")
	if err != nil {
		return err
	}
	start := int64(10)
	if k.given {
		start = k.position
		if !k.inverse {
			start = -start
		}
	}
	return c.answerCut("tail", k, start, -1, func(ctx context.Context, file *executor.File, size int64) (span, error) {
		if k.bytes != 0 {
			if k.inverse {
				return span{min(size, k.bytes-1), size}, nil
			}
			return span{max(0, size-k.bytes), size}, nil
		}
		lines, inverse := k.count()
		find := lastLines
		if inverse {
			find, lines = afterLines, lines-1
		}
		from, err := find(ctx, file, size, lines)
		return span{from, size}, err
	})
}

// answerCut finds a part of a file and sends it.
func (c *call) answerCut(program string, k cut, start, end int64, find func(ctx context.Context, file *executor.File, size int64) (span, error)) error {
	return c.withFile(program+": cannot open", k.place, func(ctx context.Context, file *executor.File, size int64) error {
		part, err := find(ctx, file, size)
		if err != nil {
			return err
		}
		after := fmt.Sprintf(`,"contentType":%q,"startPosition":%d,"endPosition":%d}}`+"\n", k.kind(), start, end)
		return c.answerText(c.r.Context(), file, part, `{"output":{"content":`, after) //nolint:contextcheck // a client may be slow
	})
}

// errFound ends a search.
var errFound = errors.New("found")

// A lineCounter counts lines until it has seen enough, and then where the next begins.
type lineCounter struct{ left, at int64 }

// Write implements io.Writer.
func (l *lineCounter) Write(p []byte) (int, error) {
	for rest := p; l.left > 0; l.left-- {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			l.at += int64(len(rest))
			return len(p), nil
		}
		l.at, rest = l.at+int64(i)+1, rest[i+1:]
	}
	return 0, errFound
}

// afterLines returns where the first n lines end. Memory does not grow with the file.
func afterLines(ctx context.Context, file *executor.File, size, n int64) (int64, error) {
	if n == 0 {
		return 0, nil
	}
	count := &lineCounter{left: n}
	if _, err := file.WriteRange(ctx, count, 0, size); err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	return count.at, nil
}

// lastLines returns where the last n lines begin. It reads no more of the file than
// these lines and a piece.
func lastLines(ctx context.Context, file *executor.File, size, n int64) (int64, error) {
	const piece = 64 << 10
	var b bytes.Buffer
	for end := size; end > 0; {
		from := max(0, end-piece)
		b.Reset()
		if _, err := file.WriteRange(ctx, &b, from, end-from); err != nil {
			return 0, err
		}
		data := b.Bytes()
		if end == size { // the end of the last line begins no line
			data = bytes.TrimSuffix(data, []byte("\n"))
		}
		for {
			i := bytes.LastIndexByte(data, '\n')
			if i < 0 {
				break
			}
			if n--; n == 0 {
				return from + int64(i) + 1, nil
			}
			data = data[:i]
		}
		end = from
	}
	return 0, nil
}
