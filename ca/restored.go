package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"sallyport/store"
)

// Restored makes the records of a store that came from a backup fit for today.
// Cached credentials go: they are for people who may have been locked out since.
// The revocation list gets a new version when it is next made, which is the time
// then, above that of every list that the nodes have seen: with the version of the
// backup they would refuse it for an old one.
func Restored(ctx context.Context, s store.Store) error {
	for e, err := range s.List(ctx, credentialPrefix) {
		if err == nil {
			err = s.Delete(ctx, e)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) { // else it has expired this moment
			return fmt.Errorf("cached credential: %w", err)
		}
	}
	e, err := s.Get(ctx, revocationStateKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("revocation list: %w", err)
	}
	var state revocationState
	if err := json.Unmarshal(e.Value, &state); err != nil {
		return fmt.Errorf("state of the revocation list is damaged: %w", err)
	}
	state.Digest = ""
	if e.Value, err = json.Marshal(state); err != nil {
		return fmt.Errorf("encode state of the revocation list: %w", err)
	}
	if _, err := s.Put(ctx, e); err != nil {
		return fmt.Errorf("revocation list: %w", err)
	}
	return nil
}
