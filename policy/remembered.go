package policy

import (
	"sync"
	"time"
)

// maxRemembered is how many decisions are remembered at a time: some megabytes.
const maxRemembered = 10_000

// remembered are relations that were found, for a while. It drops any of them when it
// is full: to ask again is always right.
type remembered struct {
	life time.Duration

	mu    sync.Mutex // guards what follows
	since map[tuple]time.Time
}

func newRemembered(life time.Duration) *remembered {
	return &remembered{life: life, since: make(map[tuple]time.Time)}
}

func (r *remembered) has(t tuple, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.since[t]
	if ok && now.Sub(at) >= r.life {
		delete(r.since, t)
		return false
	}
	return ok
}

// add notes what was true at that time.
func (r *remembered) add(t tuple, at time.Time) {
	if r.life == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for old := range r.since {
		if len(r.since) < maxRemembered {
			break
		}
		delete(r.since, old)
	}
	r.since[t] = at
}
