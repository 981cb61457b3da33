package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// A sealer encrypts what the store keeps, with AES-256-GCM and random nonces, under
// a key that only the holder of the CA's private key can derive.
type sealer struct{ aead cipher.AEAD }

func newSealer(key *Key, purpose string) (*sealer, error) {
	secret, err := key.Derive(purpose)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &sealer{aead: aead}, nil
}

// seal binds secret to label: what is sealed under one label opens under no other.
func (s *sealer) seal(secret, label []byte) []byte {
	return s.aead.Seal(nil, nil, secret, label) //nolint:gosec // the AEAD draws and prepends a random nonce itself
}

func (s *sealer) open(sealed, label []byte) ([]byte, error) {
	secret, err := s.aead.Open(nil, nil, sealed, label)
	if err != nil {
		return nil, fmt.Errorf("sealed record does not open: %w", err)
	}
	return secret, nil
}
