package krl

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A Range is the serials from First to Last, both included.
type Range struct{ First, Last uint64 }

// Serials are ranges in ascending order that neither overlap nor touch. Serial 0
// means that a certificate has none, so it is never among them.
type Serials []Range

// NewSerials sorts and joins ranges. It refuses serial 0 and a range whose end is
// before its beginning: sshd takes a list with one of them for damaged.
func NewSerials(ranges ...Range) (Serials, error) {
	for _, r := range ranges {
		if r.First == 0 || r.First > r.Last {
			return nil, fmt.Errorf("serials from %d to %d are no range above 0", r.First, r.Last)
		}
	}
	return join(slices.Clone(ranges)), nil
}

// join sorts and joins valid ranges, in place.
func join(ranges []Range) Serials {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	var joined Serials
	for _, r := range ranges {
		if n := len(joined); n > 0 && (joined[n-1].Last == math.MaxUint64 || r.First <= joined[n-1].Last+1) {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// Contains says whether serial is one of them.
func (s Serials) Contains(serial uint64) bool {
	_, found := slices.BinarySearchFunc(s, serial, func(r Range, serial uint64) int {
		switch {
		case r.Last < serial:
			return -1
		case r.First > serial:
			return 1
		}
		return 0
	})
	return found
}

// check returns an error if s is not what its type promises.
func (s Serials) check() error {
	for i, r := range s {
		if r.First == 0 || r.First > r.Last {
			return fmt.Errorf("serials from %d to %d are no range above 0", r.First, r.Last)
		}
		if i > 0 && r.First-1 <= s[i-1].Last {
			return fmt.Errorf("serials from %d do not follow %d", r.First, s[i-1].Last)
		}
	}
	return nil
}
