package identitytest

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// A Prover is a client with a key, which makes DPoP proofs (RFC 9449 §4.2).
type Prover struct {
	Key       crypto.Signer
	algorithm jose.SignatureAlgorithm
}

// NewProver makes a client with a key for one of [Config.Algorithm]'s algorithms.
func NewProver(algorithm string) (*Prover, error) {
	key, err := newKey(algorithm)
	return &Prover{key, jose.SignatureAlgorithm(algorithm)}, err
}

// Confirmation is the "cnf" claim of a token that is bound to the key.
func (p *Prover) Confirmation() map[string]any {
	key := jose.JSONWebKey{Key: p.Key.Public()}
	sum, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		panic("a key of our own making has no thumbprint: " + err.Error())
	}
	return map[string]any{"jkt": base64.RawURLEncoding.EncodeToString(sum)}
}

// Proof makes a proof for a request with a token, or for one to a token endpoint if the
// token is empty. Claims are changed as Mint does it.
func (p *Prover) Proof(method, url, token string, changes map[string]any) (string, error) {
	all := map[string]any{"jti": rand.Text(), "htm": method, "htu": url, "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		all["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	maps.Copy(all, changes)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	return p.Sign(payload, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
}

// Sign signs any payload under any header, for proofs that Proof would not make.
func (p *Prover) Sign(payload []byte, options *jose.SignerOptions) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.algorithm, Key: p.Key}, options)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
