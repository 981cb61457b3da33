package identity_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// FuzzProof gives the verifier any bytes as a DPoP proof, and any as the payload of one
// with a good signature: neither is ever taken, since no payload of a corpus has the
// digest of a token that is made anew.
func FuzzProof(f *testing.F) {
	seeds(f, "proofs")
	issuer, prover := newIssuer(f, identitytest.Config{}), newProver(f, "EdDSA")
	verifier := verifierOf(f, issuer)
	token := mint(f, issuer, map[string]any{"cnf": prover.Confirmation()})
	f.Fuzz(func(t *testing.T, raw []byte) {
		signed, err := prover.Sign(raw, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, proof := range []string{string(raw), signed} {
			caller, err := verifier.VerifyPresented(context.Background(), shown(token, proof))
			switch {
			case !errors.Is(err, identity.ErrProof) || caller.Valid():
				t.Errorf("%v, %v", caller, err)
			case len(err.Error()) > 1024 || strings.ContainsAny(err.Error(), "\n\r\x00\x1b"):
				t.Errorf("error is not fit for a log: %q", err)
			}
		}
	})
}

// FuzzAddress looks for two URLs that are taken for one although a parser that others
// wrote finds another host or scheme in them.
func FuzzAddress(f *testing.F) {
	seeds(f, "addresses")
	issuer, prover := newIssuer(f, identitytest.Config{}), newProver(f, "EdDSA")
	verifier := verifierOf(f, issuer)
	token := mint(f, issuer, map[string]any{"cnf": prover.Confirmation()})
	f.Fuzz(func(t *testing.T, raw []byte) {
		address := string(raw)
		_, err := verifier.VerifyPresented(context.Background(), shown(token, prove(t, prover, token, map[string]any{"htu": address})))
		if err != nil {
			if !errors.Is(err, identity.ErrProof) {
				t.Errorf("%q: %v", address, err)
			}
			return
		}
		u, err := url.Parse(address)
		if err != nil || !strings.EqualFold(u.Hostname(), "api.example.org") || u.Scheme != "https" || u.User != nil || u.Port() != "" && u.Port() != "443" {
			t.Errorf("%q is taken for %q", address, here)
		}
	})
}
