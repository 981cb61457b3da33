package firecrest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"unicode/utf8"

	"sallyport/executor"
)

// A span is a part of a file.
type span struct{ from, to int64 }

// withFile opens a file to read for act, which gets its size too.
func (c *call) withFile(program string, p place, act func(ctx context.Context, file *executor.File, size int64) error) error {
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		file, err := files.Open(ctx, p.path)
		if err != nil {
			return fileFailure(program, p.name, err)
		}
		defer file.Close()
		size := file.Info().Size
		if size == 0 { // also of files that have a content and no size, as those of /proc
			if size, err = file.WriteRange(ctx, io.Discard, 0, c.handler.cfg.MaxFile+1); err != nil {
				return fileFailure(program, p.name, err)
			}
		}
		return fileFailure(program, p.name, act(ctx, file, size))
	})
}

// viewFile is GET ops/view: a part of a file as text, counted in bytes.
func viewFile(c *call) error {
	query, most := c.query(), c.handler.cfg.MaxFile
	p, size, offset := c.place(query, "path"), query.whole("size", most), query.whole("offset", 0)
	if offset < 0 {
		query.refuse("offset", "`offset` value must be an integer value equal or greater than 0")
	}
	if size <= 0 {
		query.refuse("size", "`size` value must be an integer value greater than 0")
	}
	if size > most {
		query.refuse("size", "`size` value must be less than %d bytes", most)
	}
	if err := query.finish(); err != nil {
		return err
	}
	return c.withFile("dd: failed to open", p, func(_ context.Context, file *executor.File, all int64) error {
		from := min(offset, all)
		return c.answerText(c.r.Context(), file, span{from, min(all, from+size)}, `{"output":`, "}\n") //nolint:contextcheck // a client may be slow
	})
}

// answerText sends a part of a file as a string of JSON, with what stands before and
// after it. Memory does not grow with the part. ctx is the request's, which has
// the time that the client takes.
func (c *call) answerText(ctx context.Context, file *executor.File, part span, before, after string) error {
	if part.to-part.from > c.handler.cfg.MaxFile {
		return errOutputTooLarge
	}
	text := &textWriter{w: c.w, before: before + `"`}
	if _, err := file.WriteRange(ctx, text, part.from, part.to-part.from); err != nil {
		return err
	}
	return text.end(`"` + after)
}

// A textWriter writes bytes as a string of JSON. What is no UTF-8 becomes U+FFFD.
type textWriter struct {
	w      http.ResponseWriter
	before string // empty once it is sent
	rest   []byte // of a character
}

// Write implements io.Writer.
func (t *textWriter) Write(p []byte) (int, error) {
	data := append(t.rest, p...)
	whole := len(data)
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if at := len(data) - back; utf8.RuneStart(data[at]) {
			if !utf8.FullRune(data[at:]) {
				whole = at
			}
			break
		}
	}
	err := t.send(data[:whole])
	t.rest = append([]byte(nil), data[whole:]...)
	return len(p), err
}

func (t *textWriter) send(data []byte) error {
	if t.before != "" {
		t.w.Header().Set("Content-Type", "application/json")
		t.w.WriteHeader(http.StatusOK)
		if _, err := io.WriteString(t.w, t.before); err != nil {
			return err
		}
		t.before = ""
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(data)); err != nil {
		return err
	}
	_, err := t.w.Write(b.Bytes()[1 : b.Len()-len("\"\n")])
	return err
}

// end writes what is left, and after.
func (t *textWriter) end(after string) error {
	if err := t.send(t.rest); err != nil {
		return err
	}
	_, err := io.WriteString(t.w, after)
	return err
}
