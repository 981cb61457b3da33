package identitytest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"time"

	"sallyport/identity"
)

// A test is the part of testing.TB that is needed here. The package itself is
// kept out of the product, which imports this one for its demo.
type test interface {
	Helper()
	Context() context.Context
	TempDir() string
	Fatalf(format string, args ...any)
}

// Identity is a verified caller of issuer alias "test" and subject
// "sub-"+login, whose token lives for ttl, rounded up to a full second. It needs
// no network and works in a synctest bubble.
func Identity(t test, login string, ttl time.Duration) identity.Identity {
	t.Helper()
	return IdentityFrom(t, "test", "sub-"+login, login, ttl)
}

// IdentityFrom is Identity with an issuer and a subject of choice, and more claims.
func IdentityFrom(t test, alias, subject, login string, ttl time.Duration, more ...map[string]any) identity.Identity {
	t.Helper()
	issuer, err := New(Config{URL: "https://" + alias + ".idp.test"})
	if err != nil {
		t.Fatalf("test issuer: %v", err)
	}
	keys := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(keys, issuer.JWKS(), 0o600); err != nil {
		t.Fatalf("key file of the test issuer: %v", err)
	}
	rule := issuer.IssuerConfig(alias)
	rule.JWKSFile = keys
	rule.MinLifetime = time.Nanosecond
	verifier, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{rule}, KeepClaims: true})
	if err != nil {
		t.Fatalf("verifier of the test issuer: %v", err)
	}
	defer verifier.Close() //nolint:errcheck // it never fails
	claims := map[string]any{"sub": subject, "preferred_username": login, "exp": expiry(time.Now(), ttl)}
	for _, m := range more {
		maps.Copy(claims, m)
	}
	token, err := issuer.Mint(claims)
	if err != nil {
		t.Fatalf("minting a token for %q: %v", login, err)
	}
	caller, err := verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("verifying a token for %q: %v", login, err)
	}
	return caller
}
