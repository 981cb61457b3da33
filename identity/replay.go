package identity

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	maxSpentPerPerson = 1 << 14
	maxSpent          = 1 << 18

	// sweepInterval is how often people are forgotten of whom nothing is remembered.
	sweepInterval = time.Minute
)

// replays remembers which proofs were used, so that none does twice (RFC 9449 §11.1).
// It is bounded for each person and in all. A person who fills a share loses the
// older half of what is remembered of them, and from then on their proofs from before
// that are refused, used or not: nothing is ever admitted a second time for want of
// memory, and nobody pays for another. Who sends a thousand requests a second has
// proofs that are good for eight seconds instead of a minute.
type replays struct {
	perPerson, total int
	// since is when the service started, in full seconds: what was used before is not
	// remembered, so older proofs are refused.
	since time.Time

	mu     sync.Mutex // guards what follows
	people map[person]*used
	held   int // proofs, of all people
	swept  time.Time
}

// used is what is remembered of one person.
type used struct {
	// floor is a time up to which nothing is remembered any more.
	floor time.Time
	seen  map[proofName]struct{}
	order []spentProof // as they came
}

type proofName [16]byte

type spentProof struct {
	name          proofName
	issued, until time.Time
}

func newReplays(perPerson, total int, now time.Time) *replays {
	return &replays{perPerson: perPerson, total: total, since: now.Truncate(time.Second), people: make(map[person]*used), swept: now}
}

// take uses a proof up. It is an error if it was used before, or may have been.
func (r *replays) take(who person, name string, issued, until, now time.Time) error {
	if issued.Before(r.since) {
		return badProof("it was made before the service started")
	}
	sum := sha256.Sum256([]byte(name))
	proof := spentProof{name: proofName(sum[:16]), issued: issued, until: until}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) >= sweepInterval {
		r.sweep(now)
	}
	u := r.people[who]
	if u == nil {
		u = &used{seen: make(map[proofName]struct{})}
		r.people[who] = u
	}
	r.expire(u, now)
	if _, ok := u.seen[proof.name]; ok {
		return badProof("it was used before")
	}
	if !issued.After(u.floor) {
		return badProof("it is older than what can be remembered of so many requests")
	}
	if len(u.order) >= r.perPerson {
		r.forgetHalf(u)
	}
	if r.held >= r.total {
		r.forgetTheMost()
	}
	if !issued.After(u.floor) {
		return badProof("it is older than what can be remembered of so many requests")
	}
	u.seen[proof.name] = struct{}{}
	u.order = append(u.order, proof)
	r.held++
	return nil
}

// expire forgets what could not be used again anyhow; the first that could stops it.
func (r *replays) expire(u *used, now time.Time) {
	n := 0
	for n < len(u.order) && u.order[n].until.Before(now) {
		n++
	}
	r.drop(u, n)
}

// forgetHalf forgets the older half, for a price that the person alone pays.
func (r *replays) forgetHalf(u *used) {
	n := (len(u.order) + 1) / 2
	for _, p := range u.order[:n] {
		if p.issued.After(u.floor) {
			u.floor = p.issued
		}
	}
	r.drop(u, n)
}

func (r *replays) drop(u *used, n int) {
	for _, p := range u.order[:n] {
		delete(u.seen, p.name)
	}
	u.order = u.order[n:]
	r.held -= n
}

// forgetTheMost makes room at the expense of those who have at least the average.
func (r *replays) forgetTheMost() {
	average := r.held / max(1, len(r.people))
	for _, u := range r.people {
		if len(u.order) > 0 && len(u.order) >= average {
			r.forgetHalf(u)
		}
	}
}

// sweep forgets people of whom nothing is left. Their floor goes with the age that
// any proof may have.
func (r *replays) sweep(now time.Time) {
	r.swept = now
	for who, u := range r.people {
		r.expire(u, now)
		if len(u.order) == 0 && now.Sub(u.floor) > maxProofMaxAge+maxLeeway {
			delete(r.people, who)
		}
	}
}
