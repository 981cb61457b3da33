package ca

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/store"
)

// errFormerKey is no fault of the record: a rotation has made it useless.
var errFormerKey = errors.New("certificate is of another CA key")

const credentialPrefix = "credential/" //nolint:gosec // a prefix of store keys, no secret

// cacheRecord is what the store keeps of a credential.
type cacheRecord struct {
	Certificate []byte `json:"certificate"` // wire form
	Sealed      []byte `json:"sealed"`      // nonce and sealed seed of the private key
}

// record is the store key: a hash, since subjects are arbitrary text. The lengths
// keep ("ab","c") and ("a","bc") apart.
func (k cacheKey) record() string {
	h := sha256.New()
	for _, part := range []string{k.profile, k.issuer, k.subject, k.login, k.system} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	return credentialPrefix + hex.EncodeToString(h.Sum(nil))
}

// sealLabel ties a private key to its place in the store and to its certificate,
// so that neither can be exchanged for another's.
func sealLabel(recordKey string, wire []byte) []byte {
	return append([]byte(recordKey+"\x00"), wire...)
}

func (c *Cache) seal(active signingKey, recordKey string, seed []byte, cert *ssh.Certificate) ([]byte, error) {
	sealer, err := newSealer(active.Key, "credential cache")
	if err != nil {
		return nil, err
	}
	wire := cert.Marshal()
	value, err := json.Marshal(cacheRecord{
		Certificate: wire,
		Sealed:      sealer.seal(seed, sealLabel(recordKey, wire)),
	})
	if err != nil {
		return nil, fmt.Errorf("encode credential: %w", err)
	}
	return value, nil
}

// open reads a record and makes sure that it is what would be issued to caller
// today: the configuration may have changed since.
func (c *Cache) open(active signingKey, e store.Entry, caller identity.Identity) (ssh.Signer, *ssh.Certificate, error) {
	var r cacheRecord
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return nil, nil, fmt.Errorf("record is damaged: %w", err)
	}
	parsed, err := ssh.ParsePublicKey(r.Certificate)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate is damaged: %w", err)
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok {
		return nil, nil, errors.New("certificate is something else")
	}
	if err := c.fits(active, cert, caller); err != nil {
		return nil, nil, err
	}
	sealer, err := newSealer(active.Key, "credential cache")
	if err != nil {
		return nil, nil, err
	}
	seed, err := sealer.open(r.Sealed, sealLabel(e.Key, r.Certificate))
	if err != nil {
		return nil, nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, nil, errors.New("sealed key has a wrong size")
	}
	plain, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, nil, fmt.Errorf("sealed key: %w", err)
	}
	signer, err := ssh.NewCertSigner(cert, plain) // compares the public keys
	if err != nil {
		return nil, nil, fmt.Errorf("sealed key: %w", err)
	}
	return signer, cert, nil
}

func (c *Cache) fits(active signingKey, cert *ssh.Certificate, caller identity.Identity) error {
	options := make(map[string]string)
	if len(c.profile.sources) > 0 {
		options["source-address"] = joinNetworks(c.profile.sources)
	}
	if caller.Narrow() {
		options["force-command"] = identity.NarrowCommand
	}
	life := unixTime(cert.ValidBefore).Sub(unixTime(cert.ValidAfter))
	switch {
	case cert.CertType != ssh.UserCert || !slices.Equal(cert.ValidPrincipals, []string{caller.Login()}):
		return errors.New("certificate is not for the caller's login")
	case !bytes.Equal(cert.SignatureKey.Marshal(), active.PublicKey().Marshal()):
		return errFormerKey
	case !maps.Equal(cert.CriticalOptions, options) || !maps.Equal(cert.Extensions, c.profile.extensionsFor(caller)):
		return errors.New("certificate is not of today's profile")
	case life <= 0 || life > c.profile.max+c.profile.backdate:
		return errors.New("certificate has an impossible lifetime")
	}
	return nil
}
