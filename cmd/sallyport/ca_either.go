package main

import (
	"context"
	"errors"
	"time"

	"sallyport/ca"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// An eitherRing asks the running service, and opens the data folder while none runs.
// It decides so for each call and keeps nothing open in between: a rotation takes long,
// and a service that was killed meanwhile must find its folder free. It is for one
// goroutine.
type eitherRing struct {
	remote  remoteRing
	streams streams
	file    File
	keys    *caKeys // loaded: nobody is asked for the passphrase twice
}

// RingStatus implements [ca.Rotator].
func (r *eitherRing) RingStatus(ctx context.Context) (ca.RingStatus, error) {
	return either(r, func(ring adminRing) (ca.RingStatus, error) { return ring.RingStatus(ctx) })
}

// Act implements [ca.Rotator].
func (r *eitherRing) Act(ctx context.Context, act ca.Act) (ca.RingStatus, error) {
	return either(r, func(ring adminRing) (ca.RingStatus, error) { return ring.Act(ctx, act) })
}

// Probe implements [ca.Rotator].
func (r *eitherRing) Probe(ctx context.Context) ([]ca.NodeStatus, error) {
	return either(r, func(ring adminRing) ([]ca.NodeStatus, error) { return ring.Probe(ctx) })
}

// ProbeRefusals implements [adminRing].
func (r *eitherRing) ProbeRefusals(ctx context.Context, actor ca.Actor, system string, accounts []string) ([]ca.RefusalAnswer, error) {
	return either(r, func(ring adminRing) ([]ca.RefusalAnswer, error) {
		return ring.ProbeRefusals(ctx, actor, system, accounts)
	})
}

func either[T any](r *eitherRing, call func(adminRing) (T, error)) (T, error) {
	for tries := 0; ; tries++ {
		answer, err := call(r.remote)
		if !errors.Is(err, errNoDaemon) {
			return answer, err
		}
		err = r.offline(func(a *ca.Authority) error {
			answer, err = call(a)
			return err
		})
		// A service that starts has the folder before it answers.
		if tries == folderTries || !errors.Is(err, audit.ErrLocked) && !errors.Is(err, bolt.ErrLocked) {
			return answer, err
		}
		time.Sleep(folderPause)
	}
}

const (
	// folderTries and folderPause are how often, and after what pause, a service is
	// asked again that has the data folder and does not answer yet.
	folderTries = 20
	folderPause = 250 * time.Millisecond
)

func (r *eitherRing) offline(use func(*ca.Authority) error) error {
	if r.keys != nil {
		var err error
		if r.keys.initial, err = r.keys.initialOrLater(); err != nil {
			return err
		}
		return withKeys(r.file, *r.keys, use)
	}
	if err := checkDataDir(r.file.DataDir); err != nil {
		return err
	}
	keys, err := loadCAKey(r.streams, r.file)
	if err != nil {
		return err
	}
	r.keys = &keys
	return withKeys(r.file, keys, use)
}
