package httpapi

import (
	"bytes"
	"encoding/base64"
	"io"
	"unicode/utf8"
)

// The encodings of output in JSON, which can hold text but not bytes.
const (
	encodingText   = "utf-8"
	encodingBase64 = "base64"
)

// encodingOf chooses one encoding for both streams: text when both are valid
// UTF-8, so that no byte is ever replaced; and base64 for a long output that would
// be longer as text, as one of control characters is, which JSON writes as six.
func encodingOf(stdout, stderr *collector) string {
	outValid, outLength := stdout.text()
	errValid, errLength := stderr.text()
	size := stdout.size + stderr.size
	if !outValid || !errValid || (size > chunkBytes && outLength+errLength > int64(base64.StdEncoding.EncodedLen(int(size)))) {
		return encodingBase64
	}
	return encodingText
}

// writeString writes a stream as a JSON string, piece by piece: a whole one would
// need its memory several times.
func (c *collector) writeString(w io.Writer, encoding string) error {
	if _, err := io.WriteString(w, `"`); err != nil {
		return err
	}
	write := c.writeText
	if encoding == encodingBase64 {
		write = c.writeBase64
	}
	if err := write(w); err != nil {
		return err
	}
	_, err := io.WriteString(w, `"`)
	return err
}

func (c *collector) writeBase64(w io.Writer) error {
	enc := base64.NewEncoder(base64.StdEncoding, w)
	for _, chunk := range c.chunks {
		if _, err := enc.Write(chunk); err != nil {
			return err
		}
	}
	return enc.Close()
}

func (c *collector) writeText(w io.Writer) error {
	var split splitter
	for _, chunk := range append(c.chunks, nil) {
		piece := split.next(chunk)
		if chunk == nil {
			piece = append(piece, split.rest()...)
		}
		quoted := bytes.TrimSuffix(marshal(string(piece)), []byte("\n"))
		if _, err := w.Write(quoted[1 : len(quoted)-1]); err != nil {
			return err
		}
	}
	return nil
}

// A splitter cuts a stream of bytes into pieces that can be frames: a character
// that arrives in two parts is held back until it is whole, so that valid UTF-8
// makes frames of text however the network cuts it.
type splitter struct {
	held []byte // the beginning of a character, at most 3 bytes
}

// next returns what can be sent now, and holds back the rest.
func (s *splitter) next(p []byte) []byte {
	data := append(s.held, p...)
	cut := len(data) - incomplete(data)
	s.held = append([]byte(nil), data[cut:]...)
	return data[:cut]
}

// rest returns what was held back when nothing more comes.
func (s *splitter) rest() []byte {
	data := s.held
	s.held = nil
	return data
}

// incomplete is how many bytes at the end of p begin a character without ending
// it.
func incomplete(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
