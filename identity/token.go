package identity

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// A token is a JWT that was taken apart but not verified.
type token struct {
	jws    *jose.JSONWebSignature
	issuer string
	keyID  string
	alg    jose.SignatureAlgorithm
	typ    string // lower case, without "application/" (RFC 7515 §4.1.9)
}

// A proof names the key that verified a token, and how it was found.
type proof struct {
	keyID string
	alg   jose.SignatureAlgorithm
	thumb string
}

// reject makes an error that wraps ErrInvalidToken. The reason is for logs and
// audit records; it must not hold the token or an unbounded part of it.
func reject(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalidToken, fmt.Errorf(format, args...))
}

// clip bounds a value from a token before it is quoted in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// parse takes a compact JWS (RFC 7515 §7.1) apart. The library's errors are not
// passed on, for they quote header values at full length. "jku", "jwk", "x5u"
// and "x5c" are never looked at.
func parse(raw string) (*token, error) {
	if err := checkEncoding(raw); err != nil {
		return nil, err
	}
	jws, err := jose.ParseSignedCompact(raw, knownAlgorithms)
	if err != nil {
		return nil, reject("not a JWS of an acceptable algorithm")
	}
	header := jws.Signatures[0].Protected
	t := &token{jws: jws, keyID: header.KeyID, alg: jose.SignatureAlgorithm(header.Algorithm)}
	if len(t.keyID) > maxKeyIDBytes {
		return nil, reject("key ID has %d bytes, at most %d are acceptable", len(t.keyID), maxKeyIDBytes)
	}
	if _, ok := header.ExtraHeaders["crit"]; ok {
		return nil, reject("a critical header is not supported")
	}
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok {
		name, ok := typ.(string)
		if !ok {
			return nil, reject("typ is not a string")
		}
		t.typ = strings.TrimPrefix(strings.ToLower(name), "application/")
	}
	payload := jws.UnsafePayloadWithoutVerification()
	var unverified struct {
		Issuer string `json:"iss"`
	}
	// Invalid UTF-8 would decode to the same replacement character everywhere,
	// and two subjects could become one.
	if !utf8.Valid(payload) || json.Unmarshal(payload, &unverified) != nil {
		return nil, reject("payload is not a JSON object of the right shape")
	}
	t.issuer = unverified.Issuer
	return t, nil
}

// checkEncoding demands three non-empty parts in strict base64url. Go's decoder
// skips line breaks and unused bits, so that one token had many spellings, each
// with a digest of its own.
func checkEncoding(raw string) error {
	if strings.Count(raw, ".") != 2 {
		return reject("not three parts")
	}
	for part := range strings.SplitSeq(raw, ".") {
		if part == "" || strings.ContainsAny(part, "\r\n") {
			return reject("a part is empty or broken")
		}
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return reject("a part is not base64url")
		}
	}
	return nil
}

// open returns the payload if one of the candidate keys made the signature.
func (s *keySet) open(t *token) ([]byte, proof, bool) {
	for _, k := range s.candidates(t.keyID, t.alg) {
		if payload, err := t.jws.Verify(k.public); err == nil {
			return payload, proof{keyID: t.keyID, alg: t.alg, thumb: k.thumb}, true
		}
	}
	return nil, proof{}, false
}

// vouches says whether the key behind an earlier proof would still be tried.
func (s *keySet) vouches(p proof) bool {
	return slices.ContainsFunc(s.candidates(p.keyID, p.alg), func(k key) bool { return k.thumb == p.thumb })
}
