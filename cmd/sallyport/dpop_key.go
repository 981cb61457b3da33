package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/internal/private"
)

// A prover makes DPoP proofs (RFC 9449 §4.2) by the key to which the token is bound.
type prover struct {
	key   crypto.Signer
	alg   jose.SignatureAlgorithm
	nonce string // what the service wants in the next proof, or ""
}

// readProver reads a private key from a file of mode 0600: a JWK, or PEM (PKCS #8, or
// "EC PRIVATE KEY").
func readProver(path string) (*prover, error) {
	text, err := private.ReadFile(path, 64<<10)
	if err != nil {
		return nil, err
	}
	key, err := parsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("%q %w", path, err)
	}
	p := &prover{key: key}
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		p.alg = map[string]jose.SignatureAlgorithm{"P-256": jose.ES256, "P-384": jose.ES384, "P-521": jose.ES512}[public.Curve.Params().Name]
	case ed25519.PublicKey:
		p.alg = jose.EdDSA
	case *rsa.PublicKey:
		p.alg = jose.PS256
	}
	if p.alg == "" {
		return nil, fmt.Errorf("%q has a key of a kind that signs no proofs: want P-256, P-384, P-521, Ed25519 or RSA", path)
	}
	return p, nil
}

var errNoPrivateKey = errors.New("is neither a private JWK nor a private key in PEM (PKCS #8)")

func parsePrivateKey(text []byte) (crypto.Signer, error) {
	if text = bytes.TrimSpace(text); bytes.HasPrefix(text, []byte("{")) {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(text); err != nil {
			return nil, errNoPrivateKey // the library's error may quote the key
		}
		signer, ok := key.Key.(crypto.Signer)
		if !ok {
			return nil, errNoPrivateKey
		}
		return signer, nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errNoPrivateKey
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errNoPrivateKey
	}
	return signer, nil
}

// proof makes the proof for one request.
func (p *prover) proof(method, address, token string) (string, error) {
	sum := sha256.Sum256([]byte(token))
	claims := map[string]any{
		"jti": rand.Text(), "htm": method, "htu": address, "iat": time.Now().Unix(),
		"ath": base64.RawURLEncoding.EncodeToString(sum[:]),
	}
	if p.nonce != "" {
		claims["nonce"] = p.nonce
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.alg, Key: p.key}, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
