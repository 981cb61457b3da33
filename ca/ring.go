package ca

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// A KeyState is where a CA key stands in its life.
type KeyState string

// The states of a key. Each is safe to stay in for any time, except that a
// compromised active key leaves nobody to sign if there is no standby.
const (
	// KeyStaged: the key exists and no node trusts it.
	KeyStaged KeyState = "staged"
	// KeyPending: nodes are to trust it; it signs probes only.
	KeyPending KeyState = "pending"
	// KeyStandby: as pending, but kept for an emergency.
	KeyStandby KeyState = "standby"
	// KeyActive: it signs certificates.
	KeyActive KeyState = "active"
	// KeyRetiring: certificates of it may still be valid; it signs probes only.
	KeyRetiring KeyState = "retiring"
	// KeyRetired: no node trusts it and the private key is destroyed.
	KeyRetired KeyState = "retired"
	// KeyCompromised: it is in the revocation list for good.
	KeyCompromised KeyState = "compromised"
)

// ended says that a key never signs again, not even a probe.
func (s KeyState) ended() bool { return s == KeyRetired || s == KeyCompromised }

// A ring is the one record of all CA keys. It is a value: a step makes a new one.
type ring struct {
	// Generation rises by one with each change: the swap token of administrators.
	Generation uint64 `json:"generation"`
	// Version is that of the published bundle; it rises when the bundle changes.
	Version     uint64    `json:"version"`
	PublishedAt time.Time `json:"published_at"`
	Keys        []ringKey `json:"keys"`
}

// A ringKey is one key, from its making to the end of the installation.
type ringKey struct {
	State KeyState `json:"state"`
	// PublicKey is a line of authorized_keys without comment.
	PublicKey string `json:"public_key"`
	// Name is what the KeyStore calls the private key; empty is the initial key.
	Name string `json:"name,omitempty"`
	// Published: the key is in the bundle.
	Published bool `json:"published"`
	// Standby: publishing makes it a standby instead of pending.
	Standby bool `json:"standby,omitempty"`

	StagedAt    time.Time `json:"staged_at"`
	PublishedAt time.Time `json:"published_at,omitzero"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	RetiringAt  time.Time `json:"retiring_at,omitzero"`
	RemovedAt   time.Time `json:"removed_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
}

// parse returns the public key, which check has found to be one.
func (k ringKey) parse() ssh.PublicKey {
	key, _, _, _, _ := ssh.ParseAuthorizedKey([]byte(k.PublicKey)) //nolint:dogsled // see above
	return key
}

func (k ringKey) fingerprint() string {
	key := k.parse()
	if key == nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

func newRingKey(pub ssh.PublicKey, name string, state KeyState, now time.Time) ringKey {
	return ringKey{State: state, PublicKey: string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(pub))), Name: name, StagedAt: now}
}

// adopt is the ring of an installation whose one key signs and is trusted already.
func adopt(pub ssh.PublicKey, now time.Time) ring {
	k := newRingKey(pub, "", KeyActive, now)
	k.Published, k.PublishedAt, k.ActivatedAt = true, now, now
	return ring{Generation: 1, Version: 1, PublishedAt: now, Keys: []ringKey{k}}
}

// check holds what must be true of every ring that is stored.
func (r ring) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	active, seen := 0, make(map[string]bool)
	for _, k := range r.Keys {
		fp := k.fingerprint()
		if fp == "" {
			bad("a public key cannot be read: %q", clip(k.PublicKey))
			continue
		}
		if seen[fp] {
			bad("key %s stands twice", fp)
		}
		seen[fp] = true
		switch k.State {
		case KeyActive:
			active++
			fallthrough
		case KeyPending, KeyStandby:
			if !k.Published {
				bad("key %s is %s and not in the bundle", fp, k.State)
			}
		case KeyStaged, KeyRetired, KeyCompromised:
			if k.Published {
				bad("key %s is %s and in the bundle", fp, k.State)
			}
		case KeyRetiring:
		default:
			bad("key %s has state %q", fp, k.State)
		}
	}
	if active > 1 {
		bad("%d keys are active", active)
	}
	if active == 0 && !slices.ContainsFunc(r.Keys, func(k ringKey) bool { return k.State == KeyCompromised }) {
		bad("no key is active, and none was compromised")
	}
	return errors.Join(errs...)
}

// follows holds what must be true of a ring that replaces old.
func (r ring) follows(old ring) error {
	if r.Generation != old.Generation+1 {
		return fmt.Errorf("generation %d does not follow %d", r.Generation, old.Generation)
	}
	for _, before := range old.Keys {
		i := slices.IndexFunc(r.Keys, func(k ringKey) bool { return k.PublicKey == before.PublicKey })
		if i < 0 {
			return fmt.Errorf("key %s is forgotten", before.fingerprint())
		}
		now := r.Keys[i].State
		if before.State == KeyCompromised && now != KeyCompromised || before.State == KeyRetired && !now.ended() {
			return fmt.Errorf("key %s returns from %s", before.fingerprint(), before.State)
		}
	}
	if changed := !bytes.Equal(r.bundle(), old.bundle()); changed != (r.Version == old.Version+1) || r.Version < old.Version {
		return fmt.Errorf("bundle version %d does not follow %d (bundle changed: %t)", r.Version, old.Version, changed)
	}
	return nil
}

// in returns the index of the key in a state, or -1.
func (r ring) in(state KeyState) int {
	return slices.IndexFunc(r.Keys, func(k ringKey) bool { return k.State == state })
}

// bundle is the text of the nodes' trust file: the active key first, because sshd
// stops reading at the first line that it does not understand.
func (r ring) bundle() []byte {
	var text []byte
	for _, state := range []KeyState{KeyActive, KeyRetiring, KeyPending, KeyStandby} {
		for _, k := range r.Keys {
			if k.State == state && k.Published {
				text = append(text, k.PublicKey+" sallyport-user-ca\n"...)
			}
		}
	}
	return text
}
