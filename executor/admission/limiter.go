package admission

import (
	"slices"
	"time"
)

// A limiter says how many starts at once a node is given.
//
// It rises by one while starts take little longer than on an idle node and more are
// asked for than are given, and falls by a tenth when they take much longer: additive
// increase, multiplicative decrease. By Little's law the time of a start grows in
// proportion with their number once the node has no processor left, so that a factor
// of the idle time is a number of starts, whatever the node's speed.
//
// The idle time is measured: from time to time the limit goes down to its least for
// some starts. Without that the time under load would be taken for that of an idle node
// after a while, and the limit would rise for ever.
type limiter struct {
	fixed    int
	least    int
	most     int
	limit    float64
	baseline time.Duration // of starts on a node that has little to do; 0: not known
	measured time.Time     // when baseline was
	quiet    []time.Duration
	batch    []time.Duration
	pressed  bool // more were asked for than were given, since the last change
	recent   time.Duration
	punished time.Time
}

const (
	// tolerance is the factor of the idle time above which a node has too much to do.
	tolerance = 2.5
	// decrease and refused are what the limit falls to.
	decrease, refused = 0.9, 0.7
	// batchSize is how many starts a decision is based on at least.
	batchSize = 8
	// quietStarts is how many starts measure the idle time.
	quietStarts = 8
	// baselineFor is how long the idle time holds.
	baselineFor = 30 * time.Second
	// punishOnce is the time in which several refusals count as one.
	punishOnce = time.Second
)

func newLimiter(cfg Config) limiter {
	return limiter{fixed: cfg.Limit, least: cfg.Min, most: cfg.Max, limit: float64(min(cfg.Max, max(cfg.Min, 2*cfg.Min)))}
}

// now is the limit.
func (l *limiter) now() int {
	switch {
	case l.fixed > 0:
		return l.fixed
	case l.measuring():
		return l.least
	}
	return int(l.limit)
}

func (l *limiter) measuring() bool {
	return l.baseline == 0 || time.Since(l.measured) >= baselineFor
}

func (l *limiter) base() time.Duration { return l.baseline }

// wanted tells that somebody has to wait.
func (l *limiter) wanted() { l.pressed = true }

// sample takes in how long a start took while out tickets were out, itself included.
func (l *limiter) sample(took time.Duration, out int) {
	if l.fixed > 0 {
		l.recent = took
		return
	}
	measuring := l.measuring()
	if out <= l.least {
		l.rest(took)
	}
	if measuring {
		l.batch = l.batch[:0] // what is begun now says nothing about the limit
		return
	}
	if l.batch = append(l.batch, took); len(l.batch) < max(batchSize, int(l.limit)) {
		return
	}
	l.recent = median(l.batch)
	l.batch = l.batch[:0]
	switch {
	case l.recent > time.Duration(tolerance*float64(l.baseline)):
		l.lower(decrease)
	case l.pressed:
		l.limit = min(l.limit+1, float64(l.most))
	}
	l.pressed = false
}

// rest takes in a start on a node that had little to do.
func (l *limiter) rest(took time.Duration) {
	if l.quiet = append(l.quiet, took); len(l.quiet) < quietStarts {
		return
	}
	l.baseline, l.measured = median(l.quiet), time.Now()
	l.quiet = l.quiet[:0]
}

// overloaded lowers the limit because the node refused a start.
func (l *limiter) overloaded() {
	if now := time.Now(); now.Sub(l.punished) >= punishOnce {
		l.punished = now
		l.lower(refused)
	}
}

func (l *limiter) lower(factor float64) { l.limit = max(l.limit*factor, float64(l.least)) }

func median(list []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
