package identity_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/identity"
	"sallyport/internal/idp"
)

// The tests of this file use identity providers that others wrote, so that a
// misunderstanding of ours about tokens cannot hide on both sides.

type startProvider func(ctx context.Context, dir string, logins ...string) (*idp.Provider, error)

func realProviders() map[string]startProvider {
	return map[string]startProvider{"dex": idp.StartDex, "oidc-provider": idp.StartOIDCProvider}
}

func realProvider(t *testing.T, start startProvider) *idp.Provider {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // a first build takes minutes on a small machine
	defer cancel()
	provider, err := start(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() })
	return provider
}

func providerToken(t *testing.T, provider *idp.Provider, login string) string {
	t.Helper()
	token, err := provider.Token(t.Context(), login)
	if err != nil {
		t.Fatalf("%v; its log:\n%s", err, provider.Log())
	}
	return token
}

func TestTokensOfRealProvidersNameTheirLogin(t *testing.T) {
	t.Parallel()
	for name, start := range realProviders() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := realProvider(t, start)
			verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{provider.IssuerConfig("site")}})
			token := providerToken(t, provider, "bob")
			caller, err := verifier.Verify(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if caller.Login() != "bob" || caller.Alias() != "site" || caller.Issuer() != provider.URL() || caller.Subject() == "" {
				t.Errorf("caller is %v of issuer %q", caller, caller.Issuer())
			}
			if left := time.Until(caller.Expires()); left < 8*time.Minute || left > 11*time.Minute {
				t.Errorf("token has %v left, want about 10 minutes", left)
			}
			if err := verifier.Ready(t.Context()); err != nil {
				t.Errorf("not ready: %v", err)
			}

			elsewhere := provider.IssuerConfig("site")
			elsewhere.Audiences = []string{"someone-else"}
			other := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{elsewhere}})
			if _, err := other.Verify(t.Context(), token); !errors.Is(err, identity.ErrInvalidToken) {
				t.Errorf("a token for another audience gives %v", err)
			}
			forged := token[:strings.LastIndex(token, ".")+1] + strings.Repeat("A", 342)
			if _, err := verifier.Verify(t.Context(), forged); !errors.Is(err, identity.ErrInvalidToken) {
				t.Errorf("a forged signature gives %v", err)
			}
		})
	}
}

func TestAnAccessTokenTypeKeepsOtherTokensOfARealProviderOut(t *testing.T) {
	t.Parallel()
	provider := realProvider(t, idp.StartDex) // its tokens have no type
	rule := provider.IssuerConfig("site")
	rule.Type = "at+jwt"
	verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{rule}})
	if _, err := verifier.Verify(t.Context(), providerToken(t, provider, "alice")); !errors.Is(err, identity.ErrInvalidToken) {
		t.Errorf("a token without the type gives %v", err)
	}
}

func TestARotationAtARealProviderNeedsNoRestart(t *testing.T) {
	t.Parallel()
	for name, start := range realProviders() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := realProvider(t, start)
			verifier := newVerifier(t, identity.Config{Issuers: []identity.IssuerConfig{provider.IssuerConfig("site")}})
			retired := providerToken(t, provider, "alice")
			for range 2 { // the second time from the cache
				if _, err := verifier.Verify(t.Context(), retired); err != nil {
					t.Fatal(err)
				}
			}
			provider.Stop()
			if _, err := verifier.Verify(t.Context(), retired); err != nil {
				t.Errorf("while the provider is down, a good token gives %v", err)
			}
			if err := provider.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := verifier.Verify(t.Context(), providerToken(t, provider, "alice")); err != nil {
				t.Errorf("a token of the new key gives %v", err)
			}
			if _, err := verifier.Verify(t.Context(), retired); !errors.Is(err, identity.ErrInvalidToken) {
				t.Errorf("a token of the retired key gives %v", err)
			}
		})
	}
}
