package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/private"
)

// The sizes of RSA keys that are accepted, in bits: below, factoring is within
// reach of states until 2030 (NIST SP 800-57); above, a key costs its verifiers
// more than it protects.
const (
	minRSABits = 3072
	maxRSABits = 8192
)

// A Key is a private key. Neither formatting nor logging shows more of it than
// the fingerprint of its public half.
type Key struct {
	signer *pinnedSigner
	root   []byte                      // HKDF pseudorandom key; see Derive
	ready  func(context.Context) error // nil: always; see Ready
}

// LoadKey reads a private key in OpenSSH format, which ssh-keygen and
// [GenerateKey] write. The file must be regular, at most 64 KiB, owned by the
// user of the process or by root, and of mode 0600 or stricter, else the error wraps
// [ErrKeyMode]. An empty passphrase means that the key is not encrypted; see
// [ErrPassphraseNeeded] and [ErrWrongPassphrase].
func LoadKey(path string, passphrase []byte) (*Key, error) {
	text, err := private.ReadFile(path, maxKeyFileBytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	key, err := parseKey(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("private key %q: %w", path, err)
	}
	return key, nil
}

func parseKey(text, passphrase []byte) (*Key, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one key in OpenSSH format (ssh-keygen -p -f FILE converts older formats)")
	}
	private, err := ssh.ParseRawPrivateKey(text)
	missing := (*ssh.PassphraseMissingError)(nil)
	encrypted := errors.As(err, &missing)
	switch {
	case encrypted && len(passphrase) == 0:
		return nil, ErrPassphraseNeeded
	case encrypted:
		private, err = ssh.ParseRawPrivateKeyWithPassphrase(text, passphrase)
	case err == nil && len(passphrase) > 0:
		// Somebody believes that this key is protected.
		return nil, errors.New("a passphrase was given, but the key is not encrypted (ssh-keygen -p -f FILE encrypts it)")
	}
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, ErrWrongPassphrase
	}
	if err != nil {
		return nil, fmt.Errorf("not readable: %w", err)
	}
	return newKey(private)
}

func newKey(private crypto.PrivateKey) (*Key, error) {
	var signer crypto.Signer
	var secret []byte
	switch k := private.(type) {
	case *ed25519.PrivateKey:
		signer, secret = k, k.Seed()
	case *ecdsa.PrivateKey:
		b, err := k.Bytes()
		if err != nil {
			return nil, fmt.Errorf("ecdsa key: %w", err)
		}
		signer, secret = k, b
	case *rsa.PrivateKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return nil, fmt.Errorf("rsa key has %d bits; %d to %d are accepted", n, minRSABits, maxRSABits)
		}
		signer, secret = k, k.D.Bytes()
	default:
		return nil, errors.New("neither an ed25519, an ecdsa, nor an rsa key")
	}
	pinned, err := pin(signer)
	if err != nil {
		return nil, err
	}
	root, err := hkdf.Extract(sha256.New, secret, []byte("sallyport key root v1"))
	if err != nil {
		return nil, fmt.Errorf("derive from private key: %w", err)
	}
	return &Key{signer: pinned, root: root}, nil
}

// Signer signs with the key; RSA keys sign with rsa-sha2-512 and nothing else.
func (k *Key) Signer() ssh.Signer { return k.signer }

// PublicKey is the public half.
func (k *Key) PublicKey() ssh.PublicKey { return k.signer.PublicKey() }

// Derive returns 32 secret bytes that depend on the private key and on purpose
// (HKDF-SHA256, RFC 5869): the same after each start, unrelated for each purpose,
// and of no help in finding the private key. A key that an agent holds gives
// nothing to derive from; there a secret of this process takes its place, and
// after a restart the bytes are others.
func (k *Key) Derive(purpose string) ([]byte, error) {
	if purpose == "" {
		return nil, errors.New("derive from private key: purpose is empty")
	}
	b, err := hkdf.Expand(sha256.New, k.root, "sallyport/v1/"+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive from private key: %w", err)
	}
	return b, nil
}

// String returns type and fingerprint of the public half.
func (k Key) String() string {
	if k.signer == nil {
		return "no key"
	}
	pub := k.signer.PublicKey()
	return pub.Type() + " " + ssh.FingerprintSHA256(pub)
}

// Format keeps every verb of fmt, %#v included, from walking into the key.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// LogValue is String, for log/slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// pinnedSigner signs with one algorithm. x/crypto's own signers pick rsa-sha2-256
// for a certificate and SHA-1 for a plain Sign with an RSA key.
type pinnedSigner struct {
	inner     ssh.AlgorithmSigner
	algorithm string
}

func pin(private crypto.Signer) (*pinnedSigner, error) {
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	inner, ok := s.(ssh.AlgorithmSigner)
	if !ok {
		return nil, fmt.Errorf("signer of type %q cannot choose its algorithm", s.PublicKey().Type())
	}
	return &pinnedSigner{inner: inner, algorithm: signatureAlgorithm(s.PublicKey())}, nil
}

func (s *pinnedSigner) PublicKey() ssh.PublicKey { return s.inner.PublicKey() }
func (s *pinnedSigner) Algorithms() []string     { return []string{s.algorithm} }

func (s *pinnedSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.inner.SignWithAlgorithm(rand, data, s.algorithm)
}

func (s *pinnedSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if algorithm != "" && algorithm != s.algorithm {
		return nil, fmt.Errorf("algorithm %q is not %q", algorithm, s.algorithm)
	}
	return s.Sign(rand, data)
}
