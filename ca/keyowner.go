package ca

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/crypto/ssh"

	"sallyport/store"
)

// The first person who has a key certified is its owner until the ledger forgets
// the certificate. A certificate over the key for someone else is still issued:
// without proof that the first one holds the private key, a refusal would let
// anybody lock others out of their own public keys. But the intent says whose the
// key was, and the log warns.

func ownerKey(d *draft) string {
	sum := sha256.Sum256(d.key.Marshal())
	return "keyowner/" + hex.EncodeToString(sum[:])
}

func (d *draft) owner() string { return d.caller.Alias() + ":" + d.caller.Subject() }

// findOwner notes in d what the store knows about the owner of its key.
func (a *Authority) findOwner(ctx context.Context, d *draft) error {
	e, err := a.store.Get(ctx, ownerKey(d))
	switch {
	case errors.Is(err, store.ErrNotFound):
		e = store.Entry{Key: ownerKey(d), Value: []byte(d.owner())}
	case err != nil:
		return fmt.Errorf("%w: owner of key: %w", ErrUnavailable, err)
	}
	d.ownership = e
	if owner := string(e.Value); owner != d.owner() {
		d.keyAlsoOf = owner
		a.logger.WarnContext(ctx, "public key was certified for somebody else before",
			slog.Any("caller", d.caller), slog.String("owner", owner), slog.String("public_key", ssh.FingerprintSHA256(d.key)))
	}
	return nil
}

// claim makes or prolongs the entry of the owner. A conflict means that somebody
// did so at the same time, which is as good.
func (a *Authority) claim(ctx context.Context, d *draft) error {
	if d.ownership.Key == "" || d.keyAlsoOf != "" {
		return nil
	}
	d.ownership.Expires = unixTime(d.validBefore).Add(a.retention)
	if _, err := a.store.Put(ctx, d.ownership); err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%w: owner of key: %w", ErrUnavailable, err)
	}
	return nil
}
