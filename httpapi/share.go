package httpapi

import (
	"sync"

	"sallyport/identity"
)

// callerKey tells callers apart: two people who share a login are two.
type callerKey struct{ issuer, subject string }

func keyOf(caller identity.Identity) callerKey {
	return callerKey{caller.Issuer(), caller.Subject()}
}

// A share divides something scarce among callers: everyone takes from one total,
// and nobody holds more than a part of it, so that one caller cannot shut out the
// others.
type share struct {
	most int64 // that one caller may hold

	mu   sync.Mutex // guards what follows
	left int64
	held map[callerKey]int64
}

func newShare(total, most int64) *share {
	return &share{most: most, left: total, held: make(map[callerKey]int64)}
}

// take takes n for a caller, or nothing.
func (s *share) take(c callerKey, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.left || s.held[c]+n > s.most {
		return false
	}
	s.left -= n
	s.held[c] += n
	return true
}

// give returns what was taken.
func (s *share) give(c callerKey, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += n
	if s.held[c] -= n; s.held[c] == 0 {
		delete(s.held, c)
	}
}

// state returns what is left, and how many hold something.
func (s *share) state() (left int64, holders int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left, len(s.held)
}
