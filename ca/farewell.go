package ca

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store"
	"sallyport/store/audit"
)

// A key that is compromised is destroyed, and then nothing here can show any more
// that the nodes refuse it, while the thief still can use it. So its last signature
// is a probe's certificate that lasts: for the probe's account, limited to
// [ProbeCommand] as all of them. The probes go on with it until it expires.

const (
	farewellPrefix = "ca/farewell/"
	// farewellTTL is how long the nodes are asked for a compromised key. A node that
	// was away for longer gets its bundle before it is used.
	farewellTTL = 30 * 24 * time.Hour
)

// A farewell is what the store has of it.
type farewell struct {
	Certificate []byte `json:"certificate"` // wire form
	// Sealed is the seed of its private key, under the key that was active then.
	Sealed []byte `json:"sealed"`
	// Sealer is the fingerprint of that key.
	Sealer string `json:"sealer"`
}

// bidFarewell lets key i sign its last certificate, before next takes force. A site
// without probes, or without a key to seal it under, goes without: the compromised
// key ends in any case.
func (a *Authority) bidFarewell(ctx context.Context, v *ringView, next ring, i int) error {
	active := next.in(KeyActive)
	if a.rotation.ProbeUser == "" || active < 0 {
		return nil
	}
	key, err := v.signing(i)
	if err != nil {
		return err
	}
	successor, err := v.signing(active)
	if err != nil {
		return err
	}
	sealer, err := newSealer(successor.Key, "farewell")
	if err != nil {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	plain, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	signer, err := a.issueProbe(ctx, key, audit.NewRequestID(), probeCertificate{plain: plain, ttl: farewellTTL})
	if err != nil {
		return err
	}
	certificate := signer.PublicKey().Marshal()
	value, err := json.Marshal(farewell{Certificate: certificate, Sealed: sealer.seal(private.Seed(), certificate), Sealer: successor.fingerprint})
	if err != nil {
		return fmt.Errorf("encode probe: %w", err)
	}
	_, err = a.store.Put(ctx, store.Entry{Key: farewellPrefix + key.fingerprint, Value: value, Expires: time.Now().Add(farewellTTL)})
	if err != nil {
		return fmt.Errorf("%w: probe of %s: %w", ErrUnavailable, key.fingerprint, err)
	}
	return nil
}

// farewellSigner returns the last certificate of a compromised key; nil if there is
// none, or none that can be used any more.
func (a *Authority) farewellSigner(ctx context.Context, v *ringView, fingerprint string) (ssh.Signer, error) {
	e, err := a.store.Get(ctx, farewellPrefix+fingerprint)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: probe of %s: %w", ErrUnavailable, fingerprint, err)
	}
	signer, err := openFarewell(e.Value, v)
	if err != nil {
		a.logger.WarnContext(ctx, "a compromised key is not probed any more", slog.String("key", fingerprint), slog.Any("error", err))
		if err := a.store.Delete(ctx, e); err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("%w: probe of %s: %w", ErrUnavailable, fingerprint, err)
		}
		return nil, nil
	}
	return signer, nil
}

func openFarewell(value []byte, v *ringView) (ssh.Signer, error) {
	var f farewell
	if err := json.Unmarshal(value, &f); err != nil {
		return nil, fmt.Errorf("record is damaged: %w", err)
	}
	successor := v.held[f.Sealer]
	if successor == nil {
		return nil, fmt.Errorf("%s, under which it is sealed, is gone", f.Sealer)
	}
	sealer, err := newSealer(successor, "farewell")
	if err != nil {
		return nil, err
	}
	seed, err := sealer.open(f.Sealed, f.Certificate)
	if err != nil {
		return nil, err
	}
	public, err := ssh.ParsePublicKey(f.Certificate)
	cert, ok := public.(*ssh.Certificate)
	if err != nil || !ok || len(seed) != ed25519.SeedSize {
		return nil, errors.New("record is damaged")
	}
	plain, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	return ssh.NewCertSigner(cert, plain)
}
