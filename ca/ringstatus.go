package ca

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// KeyStatus is one key of the ring, for people and programs.
type KeyStatus struct {
	State       KeyState `json:"state"`
	Algorithm   string   `json:"algorithm"`
	Fingerprint string   `json:"fingerprint"`
	// Published: the key is in the bundle.
	Published bool `json:"published"`
	// Held: the private key can be had.
	Held bool `json:"held"`
	// Valid counts certificates of the key that have not expired, probes left out;
	// ValidBefore is the end of the last.
	Valid       int       `json:"valid"`
	ValidBefore time.Time `json:"valid_before,omitzero"`
	// DrainedAt, of a retiring key, is when it may leave the bundle.
	DrainedAt   time.Time `json:"drained_at,omitzero"`
	StagedAt    time.Time `json:"staged_at"`
	PublishedAt time.Time `json:"published_at,omitzero"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	RetiringAt  time.Time `json:"retiring_at,omitzero"`
	RemovedAt   time.Time `json:"removed_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
}

// RingStatus is the whole state of the CA's keys and of the nodes that trust them.
type RingStatus struct {
	Generation  uint64    `json:"generation"`
	Version     uint64    `json:"bundle_version"`
	PublishedAt time.Time `json:"published_at"`
	// RevocationVersion is that of the revocation list.
	RevocationVersion uint64 `json:"revocation_version"`
	// PullInterval is how long nodes take to fetch a bundle, in nanoseconds.
	PullInterval time.Duration `json:"pull_interval"`
	Keys         []KeyStatus   `json:"keys"`
	Nodes        []NodeStatus  `json:"nodes"`
	Next         NextStep      `json:"next"`
	// Closed counts connections that the service ended because a compromised key
	// had opened them.
	Closed int `json:"closed_connections,omitempty"`
}

// NextStep is what a rotation does next.
type NextStep struct {
	// Step is one of the Step constants; empty if no rotation is under way.
	Step string `json:"step"`
	Key  string `json:"key,omitempty"`
	// Ready: it can be done now. Else Reason says what is in the way, Remedy what
	// to do, and At, if it is only a matter of time, until when.
	Ready  bool      `json:"ready"`
	Reason string    `json:"reason,omitempty"`
	Remedy string    `json:"remedy,omitempty"`
	At     time.Time `json:"at,omitzero"`
}

// Keys are all keys there ever were, in the order of their making.
func (a *Authority) Keys() []KeyStatus { return a.ring.latest.Load().status() }

func (v *ringView) status() []KeyStatus {
	list := make([]KeyStatus, len(v.Keys))
	for i, k := range v.Keys {
		fp := k.fingerprint()
		list[i] = KeyStatus{
			State: k.State, Algorithm: k.parse().Type(), Fingerprint: fp, Published: k.Published, Held: v.held[fp] != nil,
			StagedAt: k.StagedAt, PublishedAt: k.PublishedAt, ActivatedAt: k.ActivatedAt,
			RetiringAt: k.RetiringAt, RemovedAt: k.RemovedAt, EndedAt: k.EndedAt,
		}
	}
	return list
}

// RingStatus tells everything about keys and nodes. It reads the whole ledger.
func (a *Authority) RingStatus(ctx context.Context) (RingStatus, error) {
	v, err := a.ring.read(ctx)
	if err != nil {
		return RingStatus{}, fmt.Errorf("%w: key ring: %w", ErrUnavailable, err)
	}
	return a.statusOf(ctx, v)
}

func (a *Authority) statusOf(ctx context.Context, v *ringView) (RingStatus, error) {
	s := RingStatus{
		Generation: v.Generation, Version: v.Version, PublishedAt: v.PublishedAt,
		RevocationVersion: a.RevocationVersion(), PullInterval: a.rotation.PullInterval, Keys: v.status(),
	}
	uses, err := a.ledgerUse(ctx)
	if err != nil {
		return s, err
	}
	for i := range s.Keys {
		k := &s.Keys[i]
		k.Valid, k.ValidBefore = uses[k.Fingerprint].valid, uses[k.Fingerprint].until
		if k.State == KeyRetiring {
			k.DrainedAt = a.drainEnd(v.Keys[i], uses[k.Fingerprint])
		}
	}
	if s.Nodes, err = a.Nodes(ctx); err != nil {
		return s, err
	}
	s.Next, err = a.nextStep(ctx, v, s)
	return s, err
}

// nextStep says how a rotation that is under way goes on.
func (a *Authority) nextStep(ctx context.Context, v *ringView, s RingStatus) (NextStep, error) {
	var n NextStep
	for _, candidate := range []struct {
		step  string
		state KeyState
	}{{StepPublish, KeyStaged}, {StepActivate, KeyPending}, {StepRetire, KeyRetiring}} {
		for i, k := range v.Keys {
			if k.State == candidate.state && !k.Standby {
				n = NextStep{Step: candidate.step, Key: s.Keys[i].Fingerprint}
				if k.Published {
					n.At = s.Keys[i].DrainedAt
				}
			}
		}
	}
	if n.Step == "" && v.in(KeyActive) < 0 {
		n.Step = StepStage
		if i := v.in(KeyStandby); i >= 0 {
			n.Step, n.Key = StepActivate, s.Keys[i].Fingerprint
		}
	}
	if n.Step == "" {
		return n, nil
	}
	_, err := a.permit(ctx, v, Act{Step: n.Step, Key: n.Key})
	refusal, refused := errors.AsType[*StepError](err)
	switch {
	case err == nil:
		n.Ready = true
	case refused:
		n.Reason, n.Remedy = refusal.Reason, refusal.Remedy
		if n.At.Before(refusal.until) {
			n.At = refusal.until
		}
	default:
		return n, err
	}
	if n.Ready || !time.Now().Before(n.At) {
		n.At = time.Time{}
	}
	return n, nil
}
