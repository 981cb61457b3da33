package admission

import "time"

// A pace is how quickly requests are done with while others wait for a ticket.
type pace struct {
	last time.Time // of a departure; zero: none lately
	mean time.Duration
	gaps int // that are in the mean, weight at the most
}

const (
	// weight is how many gaps the mean is of.
	weight = 32
	// enough gaps say something about the pace. The first ones are those of users who
	// have to be logged in: whoever believes them refuses what would be served at once.
	enough = 16
)

// longestGap bounds what one gap adds: a pause of the whole node says little about the
// pace after it.
const longestGap = time.Second

// departed counts a ticket that came back, of so many requests. Without somebody who waits, the next one
// says how much was asked for and not how much the node bears.
func (p *pace) departed(requests int, waiting bool) {
	now := time.Now()
	if waiting && !p.last.IsZero() {
		gap := min(now.Sub(p.last), longestGap) / time.Duration(requests)
		p.gaps = min(p.gaps+1, weight)
		p.mean += (gap - p.mean) / time.Duration(p.gaps)
	}
	p.last = now
	if !waiting {
		p.last = time.Time{}
	}
}

// until is when the nth ticket from now comes back, as far as one can tell; 0 before
// anything is known.
func (p *pace) until(n int) time.Duration {
	if p.gaps < enough {
		return 0
	}
	return time.Duration(n) * p.mean
}
