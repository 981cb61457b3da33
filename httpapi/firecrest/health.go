package firecrest

import (
	"sync"
	"time"
)

// health is what the calls of users told about the services of a system. It decides
// nothing: a call is tried whatever was before, so that nobody is shut out by what
// befell somebody else.
type health struct {
	mu     sync.Mutex // guards what follows
	checks map[string]check
	// doubts has who complained of a service last, since it was well.
	doubts map[string]person
}

// A check is the last thing that is known of a service.
type check struct {
	ServiceType string    `json:"serviceType"`
	LastChecked time.Time `json:"lastChecked"`
	Latency     float64   `json:"latency"` // in seconds
	Healthy     bool      `json:"healthy"`
	Message     *string   `json:"message"`
}

// A Probe is the last attempt to log in on a node with an account that is there for
// that.
type Probe struct {
	System string // its name
	At     time.Time
	// Answered says that the node proved to be the one it should be; Refused that it
	// did not let the account in, which is the account's fault or the CA's, and no
	// reason why users could not log in.
	Answered, Refused bool
}

// probed is what the probes of a system's nodes tell of its SSH service, false if
// there are none: one node that answers is enough.
func probed(probes []Probe) (check, bool) {
	c, answered, refused := check{ServiceType: "ssh"}, false, true
	for _, p := range probes {
		if p.At.IsZero() {
			continue
		}
		if p.At.After(c.LastChecked) {
			c.LastChecked = p.At.UTC()
		}
		answered = answered || p.Answered
		refused = refused && p.Refused
	}
	c.Healthy = answered
	switch {
	case !answered:
		c.Message = new("No login node answers.")
	case refused:
		c.Message = new("The login nodes answer, but refuse the account of the probes.")
	}
	return c, !c.LastChecked.IsZero()
}

// complain keeps what a command of the scheduler says is wrong, once two persons in a row have
// heard it: the programs that one of them calls may be that one's own.
func (h *health) complain(who person, began time.Time, message string) {
	const service = "scheduler" // whose commands tell of it
	h.mu.Lock()
	before, doubted := h.doubts[service]
	if !doubted {
		if h.doubts == nil {
			h.doubts = make(map[string]person)
		}
		h.doubts[service] = who
	}
	h.mu.Unlock()
	if doubted && before != who {
		h.note(service, began, message)
	}
}

// note keeps what was learnt; an empty message means that all is well.
func (h *health) note(service string, began time.Time, message string) {
	now := time.Now()
	c := check{ServiceType: service, LastChecked: now.UTC(), Latency: now.Sub(began).Seconds(), Healthy: message == "", Message: optional(message)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks == nil {
		h.checks = make(map[string]check)
	}
	h.checks[service] = c
	if c.Healthy {
		delete(h.doubts, service)
	}
}

// snapshot returns the checks in a fixed order, nil before the first. A probe counts
// if no user's call is newer.
func (h *health) snapshot(probes []Probe) (checks []check, last *time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, service := range []string{"scheduler", "ssh"} {
		c, ok := h.checks[service]
		if p, there := probed(probes); there && service == "ssh" && p.LastChecked.After(c.LastChecked) {
			c, ok = p, true
		}
		if !ok {
			continue
		}
		checks = append(checks, c)
		if last == nil || c.LastChecked.After(*last) {
			last = new(c.LastChecked)
		}
	}
	return checks, last
}
