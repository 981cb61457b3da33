package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxKeys       = 64
	maxKeyIDBytes = 256
	minRSABits    = 2048
	minRSAExpo    = 65537 // FIPS 186-5 §A.1.1: 2^16 < e
)

// A key is one public key of an issuer.
type key struct {
	id     string
	alg    jose.SignatureAlgorithm // "" if the JWK leaves it open
	public crypto.PublicKey
	thumb  string // RFC 7638, SHA-256
}

// fits says whether the key can have made a signature of this algorithm. A key
// is never tried with an algorithm of another family or curve.
func (k key) fits(alg jose.SignatureAlgorithm) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return slices.Contains([]jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}, alg)
	case *ecdsa.PublicKey:
		curves := map[jose.SignatureAlgorithm]string{jose.ES256: "P-256", jose.ES384: "P-384", jose.ES512: "P-521"}
		return curves[alg] == public.Curve.Params().Name
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}

// A keySet holds the keys of an issuer that may verify tokens. It is never
// changed after it was made.
type keySet struct {
	keys    []key
	refused []error // one for each key of the document that is not in keys
}

// candidates returns the keys to try for a token. Key IDs need not be unique
// (RFC 7517 §4.5), so all that have the ID and fit are tried: every key in the
// set is the issuer's, and taking the first would make the result depend on the
// document's order. Keys without an ID stand in when no key has the token's; a
// token without an ID may be any key's.
func (s *keySet) candidates(id string, alg jose.SignatureAlgorithm) []key {
	var named, unnamed []key
	for _, k := range s.keys {
		switch {
		case !k.fits(alg):
		case id == "" || k.id == id:
			named = append(named, k)
		case k.id == "":
			unnamed = append(unnamed, k)
		}
	}
	if s.has(id) || len(named) > 0 {
		return named
	}
	return unnamed
}

// has says whether a key of the set bears this ID.
func (s *keySet) has(id string) bool {
	return id != "" && slices.ContainsFunc(s.keys, func(k key) bool { return k.id == id })
}

// parseKeySet reads a JWK Set (RFC 7517 §5). Each key is decoded on its own, so
// that one that we do not understand costs only itself. A set without a usable
// key is not an error: an issuer may withdraw its last key.
func parseKeySet(document []byte) (*keySet, error) {
	var raw struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &raw); err != nil || raw.Keys == nil {
		return nil, errors.New("not a JWK Set")
	}
	if len(*raw.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are acceptable", len(*raw.Keys), maxKeys)
	}
	set := &keySet{}
	for i, member := range *raw.Keys {
		k, err := parseKey(member)
		if err != nil {
			set.refused = append(set.refused, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		set.keys = append(set.keys, k)
	}
	return set, nil
}

// privateMembers are those that only a private or symmetric key has (RFC 7518 §6).
func privateMembers() []string { return []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} }

// parseKey accepts a public signature key and says why it refuses another.
func parseKey(raw json.RawMessage) (key, error) {
	var about struct {
		Type       string   `json:"kty"`
		Use        string   `json:"use"`
		Operations []string `json:"key_ops"`
		Algorithm  string   `json:"alg"`
		ID         string   `json:"kid"`
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &about) != nil || json.Unmarshal(raw, &members) != nil {
		return key{}, errors.New("not a JSON Web Key")
	}
	alg := jose.SignatureAlgorithm(about.Algorithm)
	switch {
	case !slices.Contains([]string{"RSA", "EC", "OKP"}, about.Type):
		return key{}, fmt.Errorf("key type %q is symmetric or unknown", about.Type)
	case about.Use != "" && about.Use != "sig":
		return key{}, fmt.Errorf("use is %q", about.Use)
	case about.Operations != nil && !slices.Contains(about.Operations, "verify"):
		return key{}, errors.New("its operations do not include verify")
	case slices.ContainsFunc(privateMembers(), func(name string) bool { _, ok := members[name]; return ok }):
		return key{}, errors.New("it is a private key, which is no secret any more")
	case len(about.ID) > maxKeyIDBytes:
		return key{}, fmt.Errorf("key ID has %d bytes, at most %d are acceptable", len(about.ID), maxKeyIDBytes)
	case alg != "" && !slices.Contains(knownAlgorithms, alg):
		return key{}, fmt.Errorf("algorithm %q is not known", about.Algorithm)
	}
	public, thumb, err := parsePublic(raw)
	if err != nil {
		return key{}, err
	}
	k := key{id: about.ID, alg: alg, public: public, thumb: thumb}
	if alg != "" && !k.fits(alg) {
		return key{}, fmt.Errorf("algorithm %q is not for a key of this kind", about.Algorithm)
	}
	return k, nil
}

func parsePublic(raw json.RawMessage) (public crypto.PublicKey, thumb string, err error) {
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil || !jwk.Valid() || !jwk.IsPublic() {
		return nil, "", errors.New("its parameters are missing, malformed or of an unknown curve")
	}
	if public, ok := jwk.Key.(*rsa.PublicKey); ok {
		// The library has refused more than 8192 bits, which would be slow.
		if bits := public.N.BitLen(); bits < minRSABits {
			return nil, "", fmt.Errorf("RSA with %d bits, want at least %d", bits, minRSABits)
		}
		if public.E < minRSAExpo || public.E%2 == 0 {
			return nil, "", fmt.Errorf("RSA exponent %d is even or below %d", public.E, minRSAExpo)
		}
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, "", errors.New("it has no thumbprint")
	}
	return jwk.Key, string(sum), nil
}
