package executor

import (
	"sync"
	"time"

	"sallyport/internal/fair"
)

// maxRecent bounds the failures that are remembered of one kind, maxRecentOfOne those of one
// person (of one node where it is the node that fails): a person has as many keys as the
// system has nodes and they have accounts.
const maxRecent, maxRecentOfOne = 20_000, 64

// recent remembers failures for a while, so that what failed just now is not
// tried again by every command that waits. P is whose failure a K is.
type recent[P, K comparable] struct {
	ttl   time.Duration
	owner func(K) P

	mu       sync.Mutex // guards failures
	failures fair.Table[P, K, error]
}

func newRecent[P, K comparable](ttl time.Duration, owner func(K) P) *recent[P, K] {
	return &recent[P, K]{ttl: ttl, owner: owner, failures: fair.Table[P, K, error]{Most: maxRecent, Each: maxRecentOfOne}}
}

// note remembers err.
func (r *recent[P, K]) note(k K, err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures.Put(r.owner(k), k, err, now, now.Add(r.ttl))
}

// last returns the failure that is remembered for k, or nil.
func (r *recent[P, K]) last(k K) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err, _ := r.failures.Get(k, time.Now())
	return err
}
