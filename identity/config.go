package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// MaxTokenBytes is the size of the largest token that is looked at. A longer
// one is refused before any of it is parsed.
const MaxTokenBytes = 16 << 10

// DefaultCacheSize is how many verified tokens are remembered when
// [Config.CacheSize] is 0.
const DefaultCacheSize = 10_000

// A Config says whose tokens are accepted.
type Config struct {
	// Issuers are the identity providers, at least one. Their URLs and aliases
	// must be distinct.
	Issuers []IssuerConfig
	// HTTPClient fetches discovery documents and keys. Its redirect policy is
	// replaced by a stricter one. Nil means a client of the package's own, which
	// honours the proxy environment and demands TLS 1.2.
	HTTPClient *http.Client
	// Logger hears about key changes and outages. Nil discards.
	Logger *slog.Logger
	// KeepClaims has identities keep all claims of their tokens, for a policy over them:
	// some kilobytes for each.
	KeepClaims bool
	// ProofMaxAge is how old a DPoP proof may be, beyond the leeway of the issuer.
	// Default: 1 min; at most 10.
	ProofMaxAge time.Duration
	// ProofNonces demands of each DPoP proof a nonce of [Verifier.Nonce].
	ProofNonces bool
	// CacheSize bounds the verified tokens that are remembered. 0 means
	// [DefaultCacheSize]; a negative value switches the cache off.
	CacheSize int
}

// An IssuerConfig is the rule for the tokens of one identity provider. The zero
// value of a field means the default that its comment names.
type IssuerConfig struct {
	// Alias is a short name for audit records and certificate key IDs:
	// [a-z0-9-], 1 to 16 bytes. Required.
	Alias string
	// URL is the issuer identifier. The "iss" claim must equal it byte for byte
	// (RFC 8414 §2, OpenID Connect Core §3.1.3.7). Required.
	URL string
	// Audiences lists acceptable "aud" values; a token must name at least one.
	// Required: a token without an audience, or made for someone else, is refused.
	Audiences []string
	// Algorithms lists acceptable signature algorithms. Default: RS256, PS256,
	// ES256, ES384, EdDSA. "none" and the HMAC algorithms are a mistake.
	Algorithms []string

	// JWKSURL is where the keys are, for issuers without discovery. Default: the
	// "jwks_uri" of the discovery document.
	JWKSURL string
	// JWKSFile is a file with the keys, for issuers that cannot be reached. It
	// must be readable at the start and is read again every RefreshInterval.
	JWKSFile string
	// AllowHTTP permits http:// URLs for this issuer. Whoever can answer in the
	// place of such a server decides who everybody is: development only.
	AllowHTTP bool
	// RefreshInterval is the age at which keys are fetched again, which is also
	// how long a key that the issuer withdrew may still count. Default: 5 min,
	// for a file 10 s.
	RefreshInterval time.Duration
	// MinRefreshInterval is the least time between two fetches that tokens with
	// unknown keys cause. Default: 30 s.
	MinRefreshInterval time.Duration
	// MaxStale is how long keys are used while the issuer cannot be reached;
	// after that its tokens give [ErrUnavailable]. Default: 1 h.
	MaxStale time.Duration

	// Type is the required "typ" header, such as "at+jwt" for access tokens after
	// RFC 9068. Default: a token may say "JWT", "at+jwt" or nothing; any other
	// type, such as "logout+jwt", is refused. In any case a token is refused that has
	// the claim "events", or a "typ" claim other than Bearer, JWT or at+jwt.
	Type string
	// Binding is what tokens must be bound to. What a token is bound to ("cnf") must
	// always be proved, and a "cnf" that is not understood refuses it. Default:
	// [BindingAny].
	Binding Binding
	// RequiredScopes must all be in the "scope" or "scp" claim.
	RequiredScopes []string
	// RequiredClaims maps dotted claim paths (see LoginClaim) to the value that
	// must be there: a string, a boolean written "true" or "false", or an array
	// of strings that contains the value.
	RequiredClaims map[string]string
	// AllowedClients lists the clients whose tokens are accepted, after "azp" and
	// "client_id". Each of the two that the token has must be listed, and it must
	// have one. Default: any client.
	AllowedClients []string
	// MinLifetime is the life that a token must have left. Default: 10 s.
	MinLifetime time.Duration
	// MaxLifetime bounds "exp" minus "iat". Default: no bound.
	MaxLifetime time.Duration
	// Leeway is how far the issuer's clock may be ahead of ours when "iat" and
	// "nbf" are judged. It does not prolong "exp". Default: 30 s; at most 5 min.
	Leeway time.Duration

	// LoginClaim is the dotted path of the claim with the login name, such as
	// "ext.hpc.account"; a dot inside a name is written `\.`. It must be a claim
	// that users cannot set for themselves at the provider. Default:
	// "preferred_username".
	LoginClaim string
	// Login says which names are acceptable.
	Login LoginRule
}

const (
	defaultRefreshInterval     = 5 * time.Minute
	defaultFileRefreshInterval = 10 * time.Second
	defaultMinRefreshInterval  = 30 * time.Second
	defaultMaxStale            = time.Hour
	defaultMinLifetime         = 10 * time.Second
	defaultLeeway              = 30 * time.Second
	maxLeeway                  = 5 * time.Minute
	defaultLoginClaim          = "preferred_username"
)

var (
	aliasPattern = regexp.MustCompile(`\A[a-z0-9-]{1,16}\z`)

	defaultAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA}

	// knownAlgorithms is all that can be configured, and all that is parsed:
	// asymmetric signatures only, so that a public key can never serve as an
	// HMAC secret (RFC 8725 §2.1).
	knownAlgorithms = []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
)

// withDefaults fills in what the configuration leaves open.
func (c IssuerConfig) withDefaults() IssuerConfig {
	if c.RefreshInterval == 0 {
		c.RefreshInterval = defaultRefreshInterval
		if c.JWKSFile != "" {
			c.RefreshInterval = defaultFileRefreshInterval
		}
	}
	setDefault(&c.MinRefreshInterval, defaultMinRefreshInterval)
	setDefault(&c.MaxStale, max(defaultMaxStale, c.RefreshInterval))
	setDefault(&c.MinLifetime, defaultMinLifetime)
	setDefault(&c.Leeway, defaultLeeway)
	if c.LoginClaim == "" {
		c.LoginClaim = defaultLoginClaim
	}
	return c
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// check finds every mistake in a configuration that has its defaults.
func (c IssuerConfig) check() error {
	var mistakes []error
	wrong := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf(format, args...))
	}
	if !aliasPattern.MatchString(c.Alias) {
		wrong("alias %q: want 1 to 16 of a-z, 0-9 and -", c.Alias)
	}
	if len(c.Audiences) == 0 {
		wrong("no audiences: without them any token of the issuer would do")
	}
	for name, list := range map[string][]string{
		"audiences": c.Audiences, "required scopes": c.RequiredScopes, "allowed clients": c.AllowedClients,
	} {
		if slices.Contains(list, "") {
			wrong("%s: an empty value", name)
		}
	}
	if c.JWKSURL != "" && c.JWKSFile != "" {
		wrong("both a JWKS URL and a JWKS file: choose one")
	}
	if err := checkURL(c.URL, c.AllowHTTP || c.JWKSURL != "" || c.JWKSFile != ""); err != nil {
		wrong("issuer URL: %w", err)
	} else if strings.Contains(c.URL, "?") {
		wrong("issuer URL: %q has a query", c.URL)
	}
	if c.JWKSURL != "" {
		if err := checkURL(c.JWKSURL, c.AllowHTTP); err != nil {
			wrong("JWKS URL: %w", err)
		}
	}
	if c.MaxStale < c.RefreshInterval {
		wrong("max stale %v is below the refresh interval %v", c.MaxStale, c.RefreshInterval)
	}
	if !c.Binding.known() {
		wrong("binding %q: want any, dpop, mtls or either", c.Binding)
	}
	if c.Leeway > maxLeeway {
		wrong("leeway %v is above %v", c.Leeway, maxLeeway)
	}
	if c.MaxLifetime != 0 && c.MaxLifetime < c.MinLifetime {
		wrong("max lifetime %v is below the min lifetime %v", c.MaxLifetime, c.MinLifetime)
	}
	return errors.Join(append(mistakes, c.checkDurations())...)
}

func (c IssuerConfig) checkDurations() error {
	var mistakes []error
	for name, d := range map[string]time.Duration{
		"refresh interval": c.RefreshInterval, "min refresh interval": c.MinRefreshInterval, "max stale": c.MaxStale,
		"min lifetime": c.MinLifetime, "max lifetime": c.MaxLifetime, "leeway": c.Leeway,
	} {
		if d < 0 {
			mistakes = append(mistakes, fmt.Errorf("%s %v is negative", name, d))
		}
	}
	return errors.Join(mistakes...)
}

// checkURL accepts an absolute https URL, and http where plain is true: for
// development, and for issuer identifiers that are compared but never fetched.
func checkURL(raw string, plain bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a URL", raw)
	case u.Scheme == "http" && !plain:
		return fmt.Errorf("%q is not https", raw)
	case (u.Scheme != "https" && u.Scheme != "http") || u.Host == "":
		return fmt.Errorf("%q is not an absolute https URL", raw)
	case u.User != nil:
		// The value is not quoted: it holds a password.
		return errors.New("a URL must not hold a user name or password")
	case strings.Contains(raw, "#"):
		return fmt.Errorf("%q has a fragment", raw)
	}
	return nil
}

// algorithms turns names into the allow-list of an issuer.
func algorithms(names []string) ([]jose.SignatureAlgorithm, error) {
	if len(names) == 0 {
		return defaultAlgorithms, nil
	}
	var allowed []jose.SignatureAlgorithm
	for _, name := range names {
		alg := jose.SignatureAlgorithm(name)
		if !slices.Contains(knownAlgorithms, alg) {
			return nil, fmt.Errorf("algorithm %q is not one of %v", name, knownAlgorithms)
		}
		allowed = append(allowed, alg)
	}
	return allowed, nil
}

// splitPath takes a dotted claim path apart: `a.b\.c` is "a", then "b.c".
func splitPath(path string) ([]string, error) {
	const dot = "\x00"
	if strings.Contains(path, dot) {
		return nil, fmt.Errorf("claim path %q holds a NUL byte", path)
	}
	names := strings.Split(strings.ReplaceAll(path, `\.`, dot), ".")
	for i, name := range names {
		if name == "" {
			return nil, fmt.Errorf("claim path %q has an empty part", path)
		}
		names[i] = strings.ReplaceAll(name, dot, ".")
	}
	return names, nil
}
