package fair

import (
	"sync"
	"time"
)

const (
	// MaxBuckets is how many people are told apart by one [Buckets].
	MaxBuckets = 20_000
	// sweepEvery is how often a full table is searched for those who rest.
	sweepEvery = time.Second
)

// Buckets are token buckets (RFC 2697 calls them so), one for each person: each fills by so
// much a second, up to a size. A bucket that is full says nothing and is forgotten when room
// is needed. Who finds none shares one with all others who do not, so that a flood of names
// cannot free anybody of a debt, and costs a bounded memory. It is safe for concurrent use.
type Buckets[P comparable] struct {
	perSecond, size float64

	mu     sync.Mutex // guards what follows
	of     map[P]*bucket
	others bucket
	swept  time.Time
}

// A bucket held so much at a time; below 0 it is a debt.
type bucket struct {
	level float64
	at    time.Time
}

// NewBuckets makes buckets of a size that fill by so much a second.
func NewBuckets[P comparable](perSecond, size float64) *Buckets[P] {
	return &Buckets[P]{perSecond: perSecond, size: size, of: make(map[P]*bucket), others: bucket{level: size}}
}

// Take takes n from the bucket of p, or takes nothing and says when there will be so much.
// More than the size is given from a full bucket, as a debt.
func (b *Buckets[P]) Take(p P, n float64, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.filledLocked(p, now)
	if missing := min(n, b.size) - own.level; missing > 0 {
		return max(1, time.Duration(missing/b.perSecond*float64(time.Second)))
	}
	own.level -= n
	return 0
}

// Spend takes n from the bucket of p, whether or not it is there: what was done already is paid
// for before anything else is. A negative n gives back.
func (b *Buckets[P]) Spend(p P, n float64, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.filledLocked(p, now)
	own.level = min(own.level-n, b.size)
}

// filledLocked is the bucket of p as it is now.
func (b *Buckets[P]) filledLocked(p P, now time.Time) *bucket {
	own := b.findLocked(p, now)
	own.level, own.at = b.level(*own, now), now
	return own
}

func (b *Buckets[P]) level(of bucket, now time.Time) float64 {
	return min(b.size, of.level+max(0, now.Sub(of.at).Seconds())*b.perSecond)
}

func (b *Buckets[P]) findLocked(p P, now time.Time) *bucket {
	if own, ok := b.of[p]; ok {
		return own
	}
	if len(b.of) >= MaxBuckets && now.Sub(b.swept) >= sweepEvery {
		b.swept = now
		for p, other := range b.of {
			if b.level(*other, now) >= b.size {
				delete(b.of, p)
			}
		}
	}
	if len(b.of) >= MaxBuckets {
		return &b.others
	}
	own := &bucket{level: b.size, at: now}
	b.of[p] = own
	return own
}

// Len is how many people are told apart.
func (b *Buckets[P]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.of)
}
