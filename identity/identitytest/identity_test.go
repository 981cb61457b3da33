package identitytest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

func TestAnIdentityIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	before := time.Now()
	caller := identitytest.IdentityFrom(t, "site", "s-1", "alice", time.Hour)
	if caller.Alias() != "site" || caller.Subject() != "s-1" || caller.Login() != "alice" || !caller.Valid() {
		t.Errorf("caller is %v", caller)
	}
	if left := caller.Expires().Sub(before); left < time.Hour || left > time.Hour+2*time.Second {
		t.Errorf("token lives %v, want an hour", left)
	}
	if caller := identitytest.Identity(t, "bob", time.Second); caller.Alias() != "test" || caller.Subject() != "sub-bob" {
		t.Errorf("caller is %v", caller)
	}
}

func TestAnIdentityCanBeMadeInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		caller := identitytest.Identity(t, "alice", 90*time.Second)
		if left := time.Until(caller.Expires()); left != 90*time.Second {
			t.Errorf("token lives %v, want exactly 90s", left)
		}
	})
}

func TestAStartedIssuerServesAVerifier(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			issuer, err := identitytest.Start(identitytest.Config{Algorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			defer issuer.Close()
			verifier, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{issuer.IssuerConfig("dev")}})
			if err != nil {
				t.Fatal(err)
			}
			defer verifier.Close()
			token, err := issuer.Mint(map[string]any{"sub": "carol"})
			if err != nil {
				t.Fatal(err)
			}
			caller, err := verifier.Verify(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if caller.Login() != "carol" || caller.Issuer() != issuer.URL() || caller.Bearer() != token {
				t.Errorf("caller is %v of %q", caller, caller.Issuer())
			}
		})
	}
}

func TestAnIssuerListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	if issuer, err := identitytest.Start(identitytest.Config{Address: "0.0.0.0:0"}); err == nil {
		_ = issuer.Close()
		t.Error("it listens on every interface")
	}
}
