package executor

import (
	"sync"
	"time"
)

// recent remembers failures for a while, so that what failed just now is not
// tried again by every command that waits.
type recent[K comparable] struct {
	ttl time.Duration

	mu       sync.Mutex // guards failures
	failures map[K]failure
}

type failure struct {
	err   error
	until time.Time
}

func newRecent[K comparable](ttl time.Duration) *recent[K] {
	return &recent[K]{ttl: ttl, failures: make(map[K]failure)}
}

// note remembers err, and forgets what is over: there are never more entries
// than failures within the ttl.
func (r *recent[K]) note(k K, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, f := range r.failures {
		if !now.Before(f.until) {
			delete(r.failures, k)
		}
	}
	r.failures[k] = failure{err: err, until: now.Add(r.ttl)}
}

// last returns the failure that is remembered for k, or nil.
func (r *recent[K]) last(k K) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.failures[k]; ok && time.Now().Before(f.until) {
		return f.err
	}
	return nil
}
