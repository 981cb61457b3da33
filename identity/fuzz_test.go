package identity_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sallyport/identity"
)

// seeds are the checked-in inputs of a fuzz target, besides those under
// testdata/fuzz. A target without any would pass without testing anything.
func seeds(f *testing.F, folder string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*"))
	if err != nil {
		f.Fatal(err)
	}
	if len(files) == 0 {
		f.Fatalf("testdata/%s holds no seed", folder)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

// fuzzKey makes the same key in every run, so that a seed with a good signature
// can be checked in.
func fuzzKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte("a key that signs nothing of use."))
}

var acceptable = regexp.MustCompile(`\A[a-z_][a-z0-9_.-]{0,31}\z`)

// checkOutcome holds for any token: an error of the package and nobody, or an
// identity that keeps every promise of the type.
func checkOutcome(t *testing.T, token string, caller identity.Identity, err error) {
	t.Helper()
	if err != nil {
		known := slices.ContainsFunc([]error{identity.ErrInvalidToken, identity.ErrScope, identity.ErrNoLogin, identity.ErrUnavailable},
			func(want error) bool { return errors.Is(err, want) })
		if !known {
			t.Errorf("error %v is none of the package's", err)
		}
		if caller.Valid() || caller.Login() != "" {
			t.Errorf("error %v comes with %v", err, caller)
		}
		if len(err.Error()) > 1024 || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
			t.Errorf("error is not fit for a log: %q", err)
		}
		return
	}
	switch {
	case !caller.Valid() || caller.Issuer() != forgedIssuer || caller.Alias() != "forge":
		t.Errorf("identity %v is not of the issuer", caller)
	case !acceptable.MatchString(caller.Login()) || slices.Contains(identity.DefaultReserved(), caller.Login()):
		t.Errorf("login %q is not acceptable", caller.Login())
	case len(caller.Subject()) > 255 || strings.ContainsAny(caller.Subject(), "\n\r\x00\x1b"):
		t.Errorf("subject is %q", caller.Subject())
	case time.Until(caller.Expires()) < 9*time.Second || caller.Expires().Year() > 9999:
		t.Errorf("it expires at %v", caller.Expires())
	case caller.Bearer() != token || strings.Contains(caller.String(), token):
		t.Error("the token is lost or shown")
	}
}

// FuzzToken gives the verifier any bytes as a token.
func FuzzToken(f *testing.F) {
	seeds(f, "tokens")
	verifier := verifierWith(f, documentOf(f, publicMember(f, "k1", fuzzKey().Public(), nil)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		caller, err := verifier.Verify(context.Background(), string(raw))
		checkOutcome(t, string(raw), caller, err)
	})
}

// FuzzClaims gives it any bytes as the payload of a token with a good signature.
func FuzzClaims(f *testing.F) {
	seeds(f, "claims")
	verifier := verifierWith(f, documentOf(f, publicMember(f, "k1", fuzzKey().Public(), nil)))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: fuzzKey(), KeyID: "k1"}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		jws, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		caller, err := verifier.Verify(context.Background(), token)
		checkOutcome(t, token, caller, err)
	})
}

// FuzzKeySet gives it any bytes as the issuer's keys: the token of a key that
// is not among them stays refused.
func FuzzKeySet(f *testing.F) {
	seeds(f, "keysets")
	stranger := newStranger(f)
	token := stranger.token(f, goodHeader, stranger.claims(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}))
	f.Fuzz(func(t *testing.T, document []byte) {
		verifier, err := identity.New(identity.Config{
			Issuers: []identity.IssuerConfig{{
				Alias: "forge", URL: forgedIssuer, Audiences: []string{"sallyport"}, JWKSURL: forgedIssuer + "/keys",
			}},
			HTTPClient: &http.Client{Transport: webOf(func(*http.Request) (int, http.Header, []byte) { return http.StatusOK, nil, document })},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer verifier.Close()
		caller, err := verifier.Verify(context.Background(), token)
		if err == nil {
			t.Fatalf("a stranger's token gives %v", caller)
		}
		checkOutcome(t, token, caller, err)
	})
}

// FuzzLogin checks the promise of LoginRule.Pattern, whatever the pattern says.
func FuzzLogin(f *testing.F) {
	seeds(f, "logins")
	for _, login := range hostileLogins() {
		f.Add([]byte(login))
	}
	strict, err := identity.LoginRule{}.Compile()
	if err != nil {
		f.Fatal(err)
	}
	lax, err := identity.LoginRule{Pattern: `(?s).*`, Reserved: []string{}}.Compile()
	if err != nil {
		f.Fatal(err)
	}
	floor := regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}\z`)
	f.Fuzz(func(t *testing.T, raw []byte) {
		login := string(raw)
		if err := strict.Check(login); err == nil && (!acceptable.MatchString(login) || slices.Contains(identity.DefaultReserved(), login)) {
			t.Errorf("%q passes the default rule", login)
		}
		if err := lax.Check(login); err == nil && (!floor.MatchString(login) || strings.EqualFold(login, "root")) {
			t.Errorf("%q passes the laxest rule", login)
		} else if err != nil && !errors.Is(err, identity.ErrNoLogin) {
			t.Errorf("error is %v", err)
		}
	})
}
