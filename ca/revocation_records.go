package ca

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/revocation"
	"sallyport/store"
)

// What the store keeps of revocations.
const (
	revocationPrefix   = "revocation/"
	revokedPrefix      = revocationPrefix + "certificates/"
	revocationStateKey = revocationPrefix + "list"
	canaryRecordKey    = revocationPrefix + "canary"
)

// revocationMargin keeps a certificate in the list beyond its end, for nodes whose
// clocks are slow.
const revocationMargin = 5 * time.Minute

// chunkSize is how many certificates one record holds: about half of what the
// store takes.
const chunkSize = 5000

// revocationState is the record that changes with every other one: its revision
// tells readers that theirs are old.
type revocationState struct {
	Version   uint64    `json:"version"`
	Generated time.Time `json:"generated"`
	// Digest is the SHA-256 of the list as if version and time were 0.
	Digest string `json:"digest"`
}

// revokedCertificate is one that a revocation found in the ledger.
type revokedCertificate struct {
	Serial uint64 `json:"serial"`
	CA     string `json:"ca"`
	Until  int64  `json:"until"` // Unix seconds
}

// revocations is all that the authority revokes: the acts, which are the register's, and
// what follows from them.
type revocations struct {
	store    store.Store
	register *revocation.Register
	// keys tells which CA keys there are, and which no node may trust again.
	keys   func() (generation uint64, known map[string]ssh.PublicKey, distrusted []ssh.PublicKey)
	canary canaryKey
	latest latestList
}

// replace writes an entry, whatever is there.
func (s *revocations) replace(ctx context.Context, key string, value any, expires time.Time) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode revocation: %w", err)
	}
	for {
		e, err := s.store.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: revocation: %w", ErrUnavailable, err)
		}
		_, err = s.store.Put(ctx, store.Entry{Key: key, Value: text, Revision: e.Revision, Expires: expires})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: revocation: %w", ErrUnavailable, err)
		}
		return nil
	}
}

// putCertificates keeps what a revocation found until the last of them is past its
// end.
func (s *revocations) putCertificates(ctx context.Context, act revocation.Act, list []revokedCertificate) error {
	n := 0
	for chunk := range slices.Chunk(list, chunkSize) {
		last := chunk[0].Until
		for _, c := range chunk {
			last = max(last, c.Until)
		}
		key := fmt.Sprintf("%s%s/%06d", revokedPrefix, act.ID(), n)
		if err := s.replace(ctx, key, chunk, time.Unix(last, 0).Add(revocationMargin)); err != nil {
			return err
		}
		n++
	}
	return nil
}

// dropCertificates removes what an act revoked, unless it was of a person: theirs may be
// in other hands, which is why they were revoked.
func (s *revocations) dropCertificates(ctx context.Context, act revocation.Act) error {
	if act.OfPerson() {
		return nil
	}
	var chunks []store.Entry
	for e, err := range s.store.List(ctx, revokedPrefix+act.ID()+"/") {
		if err != nil {
			return fmt.Errorf("%w: revocation: %w", ErrUnavailable, err)
		}
		chunks = append(chunks, e)
	}
	for _, e := range chunks {
		if err := s.store.Delete(ctx, e); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: revocation: %w", ErrUnavailable, err)
		}
	}
	return nil
}

// load reads the certificates.
func (s *revocations) load(ctx context.Context) (certificates []revokedCertificate, err error) {
	for e, err := range s.store.List(ctx, revokedPrefix) {
		var chunk []revokedCertificate
		if err == nil {
			err = json.Unmarshal(e.Value, &chunk)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: revocation %q: %w", ErrUnavailable, e.Key, err)
		}
		certificates = append(certificates, chunk...)
	}
	return certificates, nil
}

// A canaryKey is in every list. A node that accepts a certificate over it checks
// no list, or an empty one.
type canaryKey struct {
	signer ssh.Signer
	cert   *ssh.Certificate
}

// canaryRecord is what the store keeps. The seed is plain: the one thing that its
// key could open is a node that checks no revocation, with a certificate that only
// probes get.
type canaryRecord struct {
	Seed        []byte `json:"seed"`
	Certificate []byte `json:"certificate"`
}

// openCanary reads the canary, or makes it.
func (s *revocations) openCanary(ctx context.Context) error {
	e, err := s.store.Get(ctx, canaryRecordKey)
	if errors.Is(err, store.ErrNotFound) {
		e, err = s.makeCanary(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: canary: %w", ErrUnavailable, err)
	}
	var r canaryRecord
	if err := json.Unmarshal(e.Value, &r); err != nil || len(r.Seed) != ed25519.SeedSize {
		return fmt.Errorf("%w: canary is damaged: %w", ErrUnavailable, err)
	}
	signer, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(r.Seed))
	if err != nil {
		return fmt.Errorf("canary: %w", err)
	}
	parsed, err := ssh.ParsePublicKey(r.Certificate)
	if err != nil {
		return fmt.Errorf("canary is damaged: %w", err)
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok {
		return errors.New("canary is damaged: it is no certificate")
	}
	s.canary = canaryKey{signer, cert}
	return nil
}

// makeCanary makes a key with a certificate that it signs itself, which opens
// nothing anywhere.
func (s *revocations) makeCanary(ctx context.Context) (store.Entry, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return store.Entry{}, err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return store.Entry{}, err
	}
	cert := &ssh.Certificate{
		Key: signer.PublicKey(), Serial: 1, CertType: ssh.UserCert, KeyId: "sallyport:canary",
		ValidPrincipals: []string{"sallyport-canary"}, ValidBefore: 1,
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return store.Entry{}, err
	}
	value, err := json.Marshal(canaryRecord{Seed: private.Seed(), Certificate: cert.Marshal()})
	if err != nil {
		return store.Entry{}, err
	}
	e, err := s.store.Put(ctx, store.Entry{Key: canaryRecordKey, Value: value})
	if errors.Is(err, store.ErrConflict) {
		return s.store.Get(ctx, canaryRecordKey)
	}
	return e, err
}
