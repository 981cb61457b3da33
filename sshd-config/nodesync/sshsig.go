package nodesync

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// The signature format of `ssh-keygen -Y sign` (OpenSSH PROTOCOL.sshsig).
const (
	sigMagic   = "SSHSIG"
	sigVersion = 1
	sigArmor   = "SSH SIGNATURE"
)

// ErrSignature is wrapped by every refusal of a signature.
var ErrSignature = errors.New("the signature does not count")

// envelope is the signature file after its magic.
type envelope struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// signedText is what the key signs, after the magic.
type signedText struct {
	Namespace string
	Reserved  string
	Hash      string
	Sum       []byte
}

// Sign signs a message for a namespace; `ssh-keygen -Y verify` accepts the result. RSA keys must be pinned to an algorithm of
// SHA-2 (ssh.NewSignerWithAlgorithms); Verify refuses others.
func Sign(signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	text, err := digest(namespace, "sha512", message)
	if err != nil {
		return nil, err
	}
	signature, err := signer.Sign(rand.Reader, text)
	if err != nil {
		return nil, fmt.Errorf("signing for %q: %w", namespace, err)
	}
	blob := append([]byte(sigMagic), ssh.Marshal(envelope{
		Version: sigVersion, PublicKey: signer.PublicKey().Marshal(), Namespace: namespace, Hash: "sha512", Signature: ssh.Marshal(signature),
	})...)
	return pem.EncodeToMemory(&pem.Block{Type: sigArmor, Bytes: blob}), nil
}

// Verify returns the key that signed the message for the namespace, if it is one of keys; else an error that wraps ErrSignature.
func Verify(keys []ssh.PublicKey, namespace string, message, armored []byte) (ssh.PublicKey, error) {
	refuse := func(format string, args ...any) (ssh.PublicKey, error) {
		return nil, fmt.Errorf("%w: %s", ErrSignature, fmt.Sprintf(format, args...))
	}
	e, err := parseEnvelope(armored)
	if err != nil {
		return refuse("%v", err)
	}
	if e.Namespace != namespace {
		return refuse("it was made for %.64q, not for %q", e.Namespace, namespace)
	}
	text, err := digest(namespace, e.Hash, message)
	if err != nil {
		return refuse("%v", err)
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(e.Signature, &signature); err != nil || len(signature.Rest) > 0 {
		return refuse("its inner part is damaged")
	}
	if signature.Format == ssh.KeyAlgoRSA {
		return refuse("it is made with SHA-1")
	}
	for _, key := range keys {
		if !bytes.Equal(key.Marshal(), e.PublicKey) {
			continue
		}
		if err := key.Verify(text, &signature); err != nil {
			return refuse("it does not fit the content")
		}
		return key, nil
	}
	return refuse("it is by a key that is not allowed to sign, %s", fingerprintOf(e.PublicKey))
}

func parseEnvelope(armored []byte) (envelope, error) {
	var e envelope
	if len(armored) > MaxSignature {
		return e, fmt.Errorf("it has more than %d bytes", MaxSignature)
	}
	block, rest := pem.Decode(armored)
	if block == nil || block.Type != sigArmor || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(armored, []byte("-----BEGIN")) {
		return e, errors.New("it is not an SSH SIGNATURE block, and nothing else")
	}
	blob, ok := bytes.CutPrefix(block.Bytes, []byte(sigMagic))
	if !ok {
		return e, errors.New("it does not begin with SSHSIG")
	}
	if err := ssh.Unmarshal(blob, &e); err != nil {
		return e, errors.New("its fields are damaged")
	}
	if e.Version != sigVersion {
		return e, fmt.Errorf("its version is %d, not %d", e.Version, sigVersion)
	}
	return e, nil
}

// digest is the text that a key signs for a message.
func digest(namespace, hash string, message []byte) ([]byte, error) {
	if namespace == "" {
		return nil, errors.New("the namespace is empty")
	}
	var sum []byte
	switch hash {
	case "sha512":
		s := sha512.Sum512(message)
		sum = s[:]
	case "sha256":
		s := sha256.Sum256(message)
		sum = s[:]
	default:
		return nil, fmt.Errorf("hash %.32q is neither sha512 nor sha256", hash)
	}
	return append([]byte(sigMagic), ssh.Marshal(signedText{Namespace: namespace, Hash: hash, Sum: sum})...), nil
}

func fingerprintOf(blob []byte) string {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return "of an unknown kind"
	}
	return ssh.FingerprintSHA256(key)
}
