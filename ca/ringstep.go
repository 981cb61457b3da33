package ca

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A StepError refuses a step of a key's life that is not safe or not possible.
// Its text is for administrators.
type StepError struct {
	// Reason says what is in the way, Remedy what to do about it.
	Reason, Remedy string
	// until, if it is only a matter of time, is when the step can be tried again.
	until time.Time
}

// Error returns reason and remedy.
func (e *StepError) Error() string { return e.Reason + "; " + e.Remedy }

// Unwrap returns ErrStep.
func (e *StepError) Unwrap() error { return ErrStep }

func refuseStep(remedy, reason string, args ...any) error {
	return &StepError{Reason: fmt.Sprintf(reason, args...), Remedy: remedy}
}

// A move is the pure part of a step: it says what a key's new state is. Whether
// the nodes are ready for it is for the gates in rotation.go.
type move func(r *ring, i int, now time.Time) error

// next returns the ring after a move of key i, or an error. Nothing of r changes.
func (r ring) next(m move, i int, now time.Time) (ring, error) {
	old := r
	r.Keys = slices.Clone(old.Keys)
	if err := m(&r, i, now); err != nil {
		return ring{}, err
	}
	r.Generation++
	if !bytes.Equal(r.bundle(), old.bundle()) {
		r.Version, r.PublishedAt = old.Version+1, now
	}
	if err := r.check(); err != nil {
		return ring{}, fmt.Errorf("the step would break the key ring: %w", err)
	}
	if err := r.follows(old); err != nil {
		return ring{}, fmt.Errorf("the step would break the key ring: %w", err)
	}
	return r, nil
}

// stage adds a key that no node trusts.
func stage(k ringKey) move {
	return func(r *ring, _ int, _ time.Time) error {
		if i := slices.IndexFunc(r.Keys, func(o ringKey) bool { return o.fingerprint() == k.fingerprint() }); i >= 0 {
			return refuseStep("make a new key", "key %s was in the ring before, and is %s", k.fingerprint(), r.Keys[i].State)
		}
		r.Keys = append(r.Keys, k)
		return nil
	}
}

// publish puts a staged key into the bundle.
func publish(r *ring, i int, now time.Time) error {
	k := &r.Keys[i]
	if k.State != KeyStaged {
		return refuseStep("see 'sallyport ca status'", "key %s is %s; only a staged key is published", k.fingerprint(), k.State)
	}
	k.State, k.Published, k.PublishedAt = KeyPending, true, now
	if k.Standby {
		k.State = KeyStandby
	}
	return nil
}

// activate makes a trusted key sign; the one that did so retires.
func activate(r *ring, i int, now time.Time) error {
	k := &r.Keys[i]
	if k.State != KeyPending && k.State != KeyStandby {
		return refuseStep("stage and publish it first", "key %s is %s; only a pending or standby key is activated", k.fingerprint(), k.State)
	}
	if j := r.in(KeyRetiring); j >= 0 {
		return refuseStep("finish its retirement first: sallyport ca retire", "key %s is still retiring", r.Keys[j].fingerprint())
	}
	retireActive(r, now)
	k.State, k.ActivatedAt, k.Standby = KeyActive, now, false
	return nil
}

func retireActive(r *ring, now time.Time) {
	if j := r.in(KeyActive); j >= 0 {
		r.Keys[j].State, r.Keys[j].RetiringAt = KeyRetiring, now
	}
}

// remove takes a retiring key out of the bundle.
func remove(r *ring, i int, now time.Time) error {
	r.Keys[i].Published, r.Keys[i].RemovedAt = false, now
	return nil
}

// end is the last step of a retiring key that is in no bundle.
func end(r *ring, i int, now time.Time) error {
	k := &r.Keys[i]
	if k.State != KeyRetiring || k.Published {
		return refuseStep("see 'sallyport ca status'", "key %s is %s (in the bundle: %t)", k.fingerprint(), k.State, k.Published)
	}
	k.State, k.EndedAt = KeyRetired, now
	return nil
}

// abandon gives up a key that does not sign. One that did, before a rollback, has
// certificates out and retires as any other.
func abandon(r *ring, i int, now time.Time) error {
	k := &r.Keys[i]
	if k.State == KeyPending && !k.ActivatedAt.IsZero() {
		k.State, k.RetiringAt = KeyRetiring, now
		return nil
	}
	switch k.State {
	case KeyStaged, KeyPending, KeyStandby:
		k.State, k.Published, k.RemovedAt, k.EndedAt = KeyRetired, false, now, now
		return nil
	case KeyActive, KeyRetiring, KeyRetired, KeyCompromised:
	}
	return refuseStep("an active key retires when another is activated", "key %s is %s; only a key that does not sign is abandoned", k.fingerprint(), k.State)
}

// rollback makes the retiring key sign again; the one that replaced it is pending.
func rollback(r *ring, i int, now time.Time) error {
	k := &r.Keys[i]
	if k.State != KeyRetiring || !k.Published {
		return refuseStep("go forward: stage another key", "key %s is %s and in the bundle: %t; only a retiring key that nodes still trust signs again",
			k.fingerprint(), k.State, k.Published)
	}
	if j := r.in(KeyActive); j >= 0 {
		r.Keys[j].State = KeyPending
	}
	k.State, k.ActivatedAt, k.RetiringAt = KeyActive, now, time.Time{}
	return nil
}

// compromise ends a key for good. If it was active, a standby takes its place.
func compromise(r *ring, i int, now time.Time) error {
	k := &r.Keys[i]
	if k.State == KeyCompromised {
		return refuseStep("see 'sallyport krl'", "key %s is compromised already", k.fingerprint())
	}
	wasActive := k.State == KeyActive
	k.State, k.Published, k.RemovedAt, k.EndedAt = KeyCompromised, false, now, now
	if j := r.in(KeyStandby); wasActive && j >= 0 {
		r.Keys[j].State, r.Keys[j].ActivatedAt, r.Keys[j].Standby = KeyActive, now, false
	}
	return nil
}

// find returns the key that text names: a fingerprint, or the beginning of one
// that is not ambiguous. Empty text names the only key in one of the states.
func (r ring) find(text string, states ...KeyState) (int, error) {
	found := -1
	for i, k := range r.Keys {
		fp := k.fingerprint()
		matches := text != "" && (strings.HasPrefix(fp, text) || strings.HasPrefix(strings.TrimPrefix(fp, "SHA256:"), text))
		if text == "" {
			matches = slices.Contains(states, k.State)
		}
		if matches && found >= 0 {
			return -1, refuseStep("name it by its fingerprint", "more than one key is meant")
		}
		if matches {
			found = i
		}
	}
	if found < 0 && text != "" {
		return -1, refuseStep("see 'sallyport ca status'", "no key begins with %q", clip(text))
	}
	if found < 0 {
		return -1, refuseStep("see 'sallyport ca status'", "no key is %s", joinStates(states))
	}
	return found, nil
}

func joinStates(states []KeyState) string {
	texts := make([]string, len(states))
	for i, s := range states {
		texts[i] = string(s)
	}
	return strings.Join(texts, " or ")
}
