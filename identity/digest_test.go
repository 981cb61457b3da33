package identity_test

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// otherSpelling is the same token with n-s for the s of its ECDSA signature, which
// anybody can make, and which is as good a signature.
func otherSpelling(t *testing.T, token string, curve elliptic.Curve) string {
	t.Helper()
	end := strings.LastIndex(token, ".") + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[end:])
	if err != nil {
		t.Fatal(err)
	}
	half := len(signature) / 2
	s := new(big.Int).SetBytes(signature[half:])
	s.Sub(curve.Params().N, s).FillBytes(signature[half:])
	return token[:end] + encode(signature)
}

func TestTheDigestNamesWhatWasSignedHoweverTheSignatureIsSpelled(t *testing.T) {
	t.Parallel()
	for algorithm, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384()} {
		issuer := newIssuer(t, identitytest.Config{Algorithm: algorithm})
		verifier := verifierOf(t, issuer)
		token := mint(t, issuer, map[string]any{"jti": "t-1", "client_id": "portal"})
		other := otherSpelling(t, token, curve)
		if other == token {
			t.Fatalf("%s: the token has one spelling", algorithm)
		}
		first, err := verifier.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		second, err := verifier.Verify(t.Context(), other)
		if err != nil {
			t.Fatalf("%s: a signature with the other s gives %v", algorithm, err)
		}
		sum := sha256.Sum256([]byte(token[:strings.LastIndex(token, ".")]))
		want := map[string]string{"token_sha256": hex.EncodeToString(sum[:8]), "jti": "t-1", "client": "portal"}
		for _, caller := range []identity.Identity{first, second} {
			if !maps.Equal(caller.TokenDetail(), want) || caller.TokenDigest() != want["token_sha256"] {
				t.Errorf("%s: details %v, want %v", algorithm, caller.TokenDetail(), want)
			}
		}
		if identity.TokenDigest(token) != identity.TokenDigest(other) {
			t.Errorf("%s: a refused token has a digest for each spelling", algorithm)
		}
	}
}

// The digest leaves the signature out, and so the memory of verified tokens must not
// go by it.
func TestAForgedSignatureOfATokenThatIsRememberedIsRefused(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, identitytest.Config{})
	verifier := verifierOf(t, issuer)
	token := mint(t, issuer, nil)
	if _, err := verifier.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	end := strings.LastIndex(token, ".") + 1
	for name, forged := range map[string]string{
		"none":    token[:end],
		"zeros":   token[:end] + strings.Repeat("A", len(token)-end),
		"another": token[:end] + mint(t, issuer, nil)[end:],
		"padding": token + "==",
		"longer":  token + "AA",
	} {
		if caller, err := verifier.Verify(t.Context(), forged); !errors.Is(err, identity.ErrInvalidToken) || caller.Valid() {
			t.Errorf("%s: %v, %v", name, caller, err)
		}
	}
	if _, err := verifier.Verify(t.Context(), token); err != nil {
		t.Errorf("the good one afterwards: %v", err)
	}
}
