package ca

import (
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
	Held        bool      `json:"held"`
	StagedAt    time.Time `json:"staged_at"`
	PublishedAt time.Time `json:"published_at,omitzero"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	RetiringAt  time.Time `json:"retiring_at,omitzero"`
	RemovedAt   time.Time `json:"removed_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
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
