package scheduler

import (
	"regexp"
	"strconv"
	"strings"
)

// jobID takes 12, 12_3, 12_[1-3,7%2], 12+1 and 12.batch; PBS has 12.server and
// 12[3].server. None begins with a dash or has a space.
var jobID = regexp.MustCompile(`\A([a-z0-9]{1,20})(?:_([0-9]{1,10})|_\[([0-9,:%-]{1,200})\]|\[([0-9]{0,10})\])?(\+[0-9]{1,10})?(\.[a-z0-9_.+-]{1,100})?\z`)

// ValidID says whether s can be the id of a job, a part of a job, or a step.
func ValidID(s string) bool { return jobID.MatchString(s) }

// Base is the id of the job that a part of a job belongs to, without a server's name.
func Base(id string) string {
	m := jobID.FindStringSubmatch(id)
	if m == nil {
		return id
	}
	return m[1]
}

// Covers says whether the job under id is one that was asked for: itself, an
// element of an array, or a component of a heterogeneous job. The step of an id that
// was asked for is of no matter.
func Covers(asked, id string) bool {
	a, b := jobID.FindStringSubmatch(asked), jobID.FindStringSubmatch(id)
	if a == nil || b == nil || a[1] != b[1] {
		return asked == id
	}
	switch {
	case a[5] != "":
		return a[5] == b[5]
	case a[2] != "": // one element, which may still be part of a range that waits
		return a[2] == b[2] || b[3] != "" && inRange(b[3], a[2])
	case a[3] != "":
		return a[3] == b[3] || b[2] != "" && inRange(a[3], b[2])
	}
	return true
}

// inRange says whether an element is in "1-3,7", "0-8:2" or "1-4%2".
func inRange(set, element string) bool {
	n, err := strconv.Atoi(element)
	if err != nil {
		return false
	}
	set, _, _ = strings.Cut(set, "%")
	for part := range strings.SplitSeq(set, ",") {
		part, step, _ := strings.Cut(part, ":")
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err != nil || err2 != nil || n < from || n > to {
			continue
		}
		if every, err := strconv.Atoi(step); err != nil || every < 1 || (n-from)%every == 0 {
			return true
		}
	}
	return false
}
