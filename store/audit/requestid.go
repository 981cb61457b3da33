package audit

import "crypto/rand"

const maxRequestID = 64

// NewRequestID returns a random request id of 26 characters, which nobody can
// guess or repeat.
func NewRequestID() string { return rand.Text() }

// CleanRequestID returns s if it may serve as a request id: 1 to 64 characters of
// [A-Za-z0-9._-]. A client's own id goes through it before it reaches a log, a
// key id or a header; anything else is refused, not repaired.
func CleanRequestID(s string) (string, bool) {
	if s == "" || len(s) > maxRequestID {
		return "", false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return "", false
		}
	}
	return s, true
}
