package policy

import (
	"sync"
	"time"

	"sallyport/internal/fair"
)

// maxRemembered is how many decisions are remembered at a time, some megabytes;
// maxRememberedOfOne how many of one user, who loses the oldest to the next: to ask again
// is always right.
const maxRemembered, maxRememberedOfOne = 10_000, 256

// remembered are relations that were found, for a while.
type remembered struct {
	life time.Duration

	mu    sync.Mutex // guards found
	found fair.Table[string, tuple, struct{}]
}

func newRemembered(life time.Duration) *remembered {
	return &remembered{life: life, found: fair.Table[string, tuple, struct{}]{Most: maxRemembered, Each: maxRememberedOfOne}}
}

func (r *remembered) has(t tuple, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.found.Get(t, now)
	return ok
}

// add notes what was true at that time.
func (r *remembered) add(t tuple, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found.Put(t.User, t, struct{}{}, at, at.Add(r.life))
}
