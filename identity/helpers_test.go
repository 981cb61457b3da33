package identity_test

import (
	"testing"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

func newVerifier(t testing.TB, cfg identity.Config) *identity.Verifier {
	t.Helper()
	verifier, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := verifier.Close(); err != nil {
			t.Error(err)
		}
	})
	return verifier
}

func newIssuer(t testing.TB, cfg identitytest.Config) *identitytest.Issuer {
	t.Helper()
	issuer, err := identitytest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func mint(t testing.TB, issuer *identitytest.Issuer, claims map[string]any) string {
	t.Helper()
	token, err := issuer.Mint(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
