package identity

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// MaxProofBytes is the size of the largest DPoP proof that is looked at.
	MaxProofBytes = 8 << 10

	maxProofIDBytes    = 256
	maxProofRSABits    = 4096 // a proof is verified for each request
	defaultProofMaxAge = time.Minute
	maxProofMaxAge     = 10 * time.Minute
)

// ProofAlgorithms are the algorithms by which a DPoP proof may be signed, for the
// "algs" of a challenge (RFC 9449 §7.1).
func ProofAlgorithms() []string {
	names := make([]string, len(knownAlgorithms))
	for i, alg := range knownAlgorithms {
		names[i] = string(alg)
	}
	return names
}

// A proofChecker verifies DPoP proofs (RFC 9449 §4.3). It is safe for concurrent use.
type proofChecker struct {
	maxAge time.Duration
	nonces *nonces // nil unless they are required
	spent  *replays
}

// dpopProof is the payload of a proof (RFC 9449 §4.2).
type dpopProof struct {
	jwt.Claims

	Method    string `json:"htm"`
	Address   string `json:"htu"`
	TokenHash string `json:"ath"`
	Nonce     string `json:"nonce"`
}

// badProof makes an error that wraps ErrProof; like reject it must not hold the proof.
func badProof(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProof, fmt.Errorf(format, args...))
}

// check verifies the one proof of a presentation for a token of e's that is bound to
// a key. Nothing is remembered of a proof that is refused.
func (c *proofChecker) check(e entry, p Presentation, now time.Time) error {
	if len(p.Proofs) != 1 {
		return badProof("%d DPoP headers, want one", len(p.Proofs))
	}
	proof, err := openProof(p.Proofs[0], e.identity.binding.key)
	if err != nil {
		return err
	}
	if err := proof.fits(p); err != nil {
		return err
	}
	if c.nonces != nil && !c.nonces.good(proof.Nonce, now) {
		return fmt.Errorf("%w: %d bytes of one came", ErrNonce, len(proof.Nonce))
	}
	leeway := e.issuer.cfg.Leeway
	if err := proof.fresh(now, c.maxAge, leeway); err != nil {
		return err
	}
	issued := proof.IssuedAt.Time()
	who := person{e.identity.issuer, e.identity.subject}
	return c.spent.take(who, e.identity.binding.key+" "+proof.ID, issued, issued.Add(c.maxAge+leeway), now)
}

// openProof takes a proof apart and verifies its signature by the key in its header,
// which must be the one of that thumbprint.
func openProof(raw, thumbprint string) (*dpopProof, error) {
	if len(raw) > MaxProofBytes || checkEncoding(raw) != nil {
		return nil, badProof("not a compact JWS of at most %d bytes", MaxProofBytes)
	}
	k, alg, err := proofKey(raw)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString([]byte(k.thumb))), []byte(thumbprint)) != 1 {
		return nil, badProof("it is by another key than the one that the token is bound to")
	}
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return nil, badProof("not a JWS")
	}
	payload, err := jws.Verify(k.public)
	if err != nil {
		return nil, badProof("the signature is not by the key in it")
	}
	proof := &dpopProof{}
	if !utf8.Valid(payload) || json.Unmarshal(payload, proof) != nil {
		return nil, badProof("a claim is malformed")
	}
	return proof, nil
}

// proofKey reads the header: typ, an asymmetric algorithm, and the public key. What
// else a header may name ("kid", "jku", "x5c") is not followed.
func proofKey(raw string) (key, jose.SignatureAlgorithm, error) {
	part, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(part)
	var header struct {
		Type      string          `json:"typ"`
		Algorithm string          `json:"alg"`
		Key       json.RawMessage `json:"jwk"`
		Critical  json.RawMessage `json:"crit"`
	}
	if err != nil || !utf8.Valid(text) || json.Unmarshal(text, &header) != nil {
		return key{}, "", badProof("the header is malformed")
	}
	alg := jose.SignatureAlgorithm(header.Algorithm)
	switch {
	case !strings.EqualFold(strings.TrimPrefix(strings.ToLower(header.Type), "application/"), "dpop+jwt"):
		return key{}, "", badProof("typ is %q, want dpop+jwt", clip(header.Type))
	case !slices.Contains(knownAlgorithms, alg):
		return key{}, "", badProof("algorithm %q is not acceptable", clip(header.Algorithm))
	case len(header.Critical) > 0:
		return key{}, "", badProof("a critical header is not supported")
	case len(header.Key) == 0:
		return key{}, "", badProof("it has no key")
	}
	k, err := parseKey(header.Key)
	if err != nil {
		return key{}, "", badProof("its key: %w", err)
	}
	if public, ok := k.public.(*rsa.PublicKey); ok && public.N.BitLen() > maxProofRSABits {
		return key{}, "", badProof("RSA with %d bits, at most %d are acceptable", public.N.BitLen(), maxProofRSABits)
	}
	if !k.fits(alg) {
		return key{}, "", badProof("algorithm %q is not for its key", alg)
	}
	return k, alg, nil
}

// fits checks that the proof is for this request and this token.
func (proof *dpopProof) fits(p Presentation) error {
	if proof.Method != p.Method {
		return badProof("htm is %q, the method %q", clip(proof.Method), clip(p.Method))
	}
	if len(p.Addresses) == 0 {
		return badProof("the request came to a name that is not known as this service's (server.public_urls)")
	}
	address, ok := normalAddress(proof.Address)
	ours := func(own string) bool {
		normal, known := normalAddress(own)
		return known && normal == address
	}
	if !ok || !slices.ContainsFunc(p.Addresses, ours) {
		return badProof("htu %q is not the request's address", clip(proof.Address))
	}
	sum := sha256.Sum256([]byte(p.Token))
	if subtle.ConstantTimeCompare([]byte(proof.TokenHash), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) != 1 {
		return badProof("ath is missing or another token's")
	}
	if proof.ID == "" || len(proof.ID) > maxProofIDBytes {
		return badProof("jti has %d bytes, want 1 to %d", len(proof.ID), maxProofIDBytes)
	}
	return nil
}

// fresh checks the times. RFC 9449 knows iat alone; exp and nbf are heeded if a client
// sets them.
func (proof *dpopProof) fresh(now time.Time, maxAge, leeway time.Duration) error {
	for name, date := range map[string]*jwt.NumericDate{"iat": proof.IssuedAt, "exp": proof.Expiry, "nbf": proof.NotBefore} {
		switch {
		case date == nil && name == "iat":
			return badProof("iat is missing")
		case date != nil && (*date < 0 || *date > latestDate):
			return badProof("%s is not a date", name)
		}
	}
	age := now.Sub(proof.IssuedAt.Time())
	switch {
	case age > maxAge+leeway:
		return badProof("it is %v old, at most %v are acceptable", age.Round(time.Second), maxAge+leeway)
	case age < -leeway:
		return badProof("iat is %v in the future", -age.Round(time.Second))
	case proof.Expiry != nil && !now.Before(proof.Expiry.Time().Add(leeway)):
		return badProof("it has expired")
	case proof.NotBefore.Time().After(now.Add(leeway)):
		return badProof("nbf is in the future")
	}
	return nil
}
