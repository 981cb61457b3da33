package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// GenerateKey makes a key and returns it in OpenSSH's private key format,
// encrypted (bcrypt, aes256-ctr) if passphrase is not empty. The algorithm is
// "ed25519" (also when empty), "ecdsa-p256", "ecdsa-p384", "rsa-3072" or
// "rsa-4096".
func GenerateKey(algorithm string, passphrase []byte) ([]byte, ssh.PublicKey, error) {
	signer, err := generate(algorithm)
	if err != nil {
		return nil, nil, err
	}
	pub, err := ssh.NewPublicKey(signer.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	const comment = "sallyport"
	var block *pem.Block
	if len(passphrase) > 0 {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(signer, comment, passphrase)
	} else {
		block, err = ssh.MarshalPrivateKey(signer, comment)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(block), pub, nil
}

func generate(algorithm string) (signer crypto.Signer, err error) {
	switch algorithm {
	case "", "ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa-p256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa-3072":
		signer, err = rsa.GenerateKey(rand.Reader, 3072)
	case "rsa-4096":
		signer, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, fmt.Errorf("key algorithm %q is not one of ed25519, ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096", algorithm)
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return signer, nil
}
