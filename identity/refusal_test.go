package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/identity"
)

func TestARefusalAfterTheSignatureSaysWhoseTokenItWas(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t, func(rule *identity.IssuerConfig) {
		rule.RequiredScopes, rule.MaxLifetime = []string{"exec"}, time.Hour
	})
	now := time.Now().Unix()
	for name, test := range map[string]struct {
		claims  map[string]any
		want    error
		subject string
	}{
		"expired":            {map[string]any{"exp": now - 1, "scope": "exec"}, identity.ErrExpired, "s-1"},
		"too long a life":    {map[string]any{"exp": now + 7200, "scope": "exec"}, identity.ErrInvalidToken, "s-1"},
		"another audience":   {map[string]any{"aud": "other", "scope": "exec"}, identity.ErrInvalidToken, "s-1"},
		"no scope":           {nil, identity.ErrScope, "s-1"},
		"no login":           {map[string]any{"preferred_username": "root", "scope": "exec"}, identity.ErrNoLogin, "s-1"},
		"no subject":         {map[string]any{"sub": nil, "scope": "exec"}, identity.ErrInvalidToken, ""},
		"subject with lines": {map[string]any{"sub": "a\nb", "scope": "exec"}, identity.ErrInvalidToken, ""},
		"malformed claim":    {map[string]any{"exp": "soon", "scope": "exec"}, identity.ErrInvalidToken, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(test.claims)))
			refusal, ok := errors.AsType[*identity.RefusalError](err)
			if !ok || !errors.Is(err, test.want) {
				t.Fatalf("error is %v, want a refusal that is %q", err, test.want)
			}
			if refusal.Issuer != "forge" || refusal.Subject != test.subject {
				t.Errorf("refusal names %q of %q, want %q of forge", refusal.Subject, refusal.Issuer, test.subject)
			}
			if refusal.Error() != refusal.Err.Error() || err.Error() != `issuer "forge": `+refusal.Error() {
				t.Errorf("text is %q", err)
			}
		})
	}
}

func TestATokenThatAnybodyCouldHaveMadeIsNobodysRefusal(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	for name, token := range map[string]string{
		"signature of another": newStranger(t).token(t, goodHeader, f.claims(nil)),
		"unknown issuer":       f.token(t, goodHeader, f.claims(map[string]any{"iss": "https://evil.test"})),
		"no token":             strings.Repeat("x", 20),
	} {
		_, err := verifier.Verify(t.Context(), token)
		if refusal, ok := errors.AsType[*identity.RefusalError](err); ok || !errors.Is(err, identity.ErrInvalidToken) {
			t.Errorf("%s: %v names %+v", name, err, refusal)
		}
	}
}
