package httpapi

import (
	"encoding/base64"
	"unicode/utf8"
)

// The encodings of output in JSON, which can hold text but not bytes.
const (
	encodingText   = "utf-8"
	encodingBase64 = "base64"
)

// encodeOutput encodes both streams alike: as text when both are valid UTF-8,
// else as base64, so that no byte is ever replaced.
func encodeOutput(stdout, stderr []byte) (outText, errText, encoding string) {
	if utf8.Valid(stdout) && utf8.Valid(stderr) {
		return string(stdout), string(stderr), encodingText
	}
	return base64.StdEncoding.EncodeToString(stdout), base64.StdEncoding.EncodeToString(stderr), encodingBase64
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
