package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// IssuerSection configures one identity provider.
type IssuerSection struct {
	// Short name, part of key IDs and audit records.
	Alias string `key:"alias" check:"alias" example:"centre"`
	// The issuer, exactly as in the "iss" claim. Its TLS certificate is checked
	// against the system's CAs, or those that SSL_CERT_FILE names.
	URL string `key:"url" check:"url" example:"https://idp.example.org/realms/hpc"`
	// Whose account names this issuer's are. Each issuer has names of its own, and yet a
	// node knows one account of a name: with several issuers a login of one is the same
	// account as that login of any other, whoever they are. So each of them must say
	// that it shares its names with the others, by the same word here.
	LoginNamespace string `key:"login_namespace" check:"alias" example:"centre"`
	// Aliases and URLs that this issuer had before: people who were revoked under one of
	// them are people of this issuer ('sallyport revoke --subject').
	FormerNames []string `key:"former_names" example:"old-centre"`
	// A token must name one of these in "aud".
	Audiences []string `key:"audiences" example:"sallyport"`
	// Signature algorithms that are accepted.
	Algorithms []string `key:"algorithms" default:"RS256,PS256,ES256,ES384,EdDSA" check:"RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA"`
	// Where the keys are. By default OpenID Connect discovery finds them.
	JWKSURL  string `key:"jwks_url" check:"url" example:"https://idp.example.org/realms/hpc/certs"`
	JWKSFile string `key:"jwks_file" example:"/etc/sallyport/jwks.json"`
	// Required "typ" header of the token, "at+jwt" for RFC 9068; empty accepts
	// "JWT", "at+jwt" and none.
	Type string `key:"type" example:"at+jwt"`
	// What tokens must be bound to, so that a stolen one is of no use: "dpop" (a key
	// that each request proves, RFC 9449), "mtls" (the client's certificate, RFC 8705),
	// "either" of the two. With "any" bearer tokens are good as well; what a token is
	// bound to is always proved.
	TokenBinding string `key:"token_binding" default:"any" check:"any|dpop|mtls|either"`
	// Scopes that a token must have, all of them.
	RequiredScopes []string `key:"required_scopes" example:"ssh"`
	// Claims that a token must have with just these values.
	RequiredClaims map[string]string `key:"required_claims" example:"{ department = \"physics\" }"`
	// Clients ("azp" or "client_id") whose tokens are accepted; empty means any.
	AllowedClients []string `key:"allowed_clients" example:"hpc-portal"`
	// The claim that holds the account name; dots go into nested claims.
	LoginClaim string `key:"login_claim" default:"preferred_username"`
	// Account names that are accepted: a regular expression for the whole name.
	LoginPattern string `key:"login_pattern" default:"[a-z_][a-z0-9_.-]{0,31}" check:"regexp"`
	// Account names that are never accepted, beside root and the system
	// accounts of Debian and Red Hat.
	DenyLogins []string `key:"deny_logins" example:"slurm"`
	// A token with less life than this left is refused.
	MinLifetime time.Duration `key:"min_lifetime" default:"10s" check:"1s..1h"`
	// A token that was issued for longer than this is refused; 0s means any.
	MaxLifetime time.Duration `key:"max_lifetime" default:"0s" check:"0s..8760h"`
	// Allowed difference between the provider's clock and ours.
	Leeway time.Duration `key:"leeway" default:"30s" check:"1s..5m"`
	// Age after which keys are fetched again.
	RefreshInterval time.Duration `key:"refresh_interval" default:"5m" check:"10s..24h"`
	// Least time between two fetches that unknown key ids cause.
	MinRefreshInterval time.Duration `key:"min_refresh_interval" default:"30s" check:"1s..1h"`
	// How long the last good keys serve while the provider cannot be reached.
	MaxStale time.Duration `key:"max_stale" default:"1h" check:"1m..720h"`
	// Allow http:// for this issuer. For development only: whoever sits on the
	// path can make tokens for anybody.
	AllowHTTP bool `key:"allow_http" default:"false"`
}

func (d *decoder) checkIssuers(issuers []IssuerSection) {
	if len(issuers) == 0 {
		d.fail("issuers", "at least one [[issuers]] table is needed, with alias, url and audiences")
	}
	aliases, urls := map[string]bool{}, map[string]bool{}
	for i, s := range issuers {
		at := func(key string) string { return fmt.Sprintf("issuers[%d].%s", i, key) }
		d.require(at("alias"), s.Alias)
		d.require(at("url"), s.URL)
		d.once(aliases, at("alias"), s.Alias)
		if same := plainURL(s.URL); s.URL != "" && urls[same] {
			d.fail(at("url"), "%q stands twice: they are one issuer, for all that they differ in a last slash or in capitals; keep one [[issuers]] table", s.URL)
		} else {
			urls[same] = true
		}
		d.requireList(at("audiences"), s.Audiences, "a token made for another service must not be accepted here")
		if s.JWKSURL != "" && s.JWKSFile != "" {
			d.fail(at("jwks_file"), "excludes jwks_url: keep one of them")
		}
	}
	d.checkNamespaces(issuers)
	d.checkFormerNames(issuers)
}

// plainURL is a URL as people read it.
func plainURL(url string) string {
	plain := strings.TrimRight(strings.ToLower(url), "/")
	plain = strings.Replace(plain, ":443/", "/", 1)
	return strings.TrimSuffix(plain, ":443")
}

// checkNamespaces refuses several issuers whose account names nobody has said to be the
// same people's. That patterns of logins exclude each other cannot be shown, and a node
// knows one account of a name.
func (d *decoder) checkNamespaces(issuers []IssuerSection) {
	if len(issuers) < 2 {
		return
	}
	for i, s := range issuers {
		table := fmt.Sprintf("issuers[%d]", i)
		key := table + ".login_namespace"
		const remedy = `if a name is one person's at all issuers, set the same login_namespace in each [[issuers]] table, as in login_namespace = "centre"; ` +
			"if not, serve the issuers by installations with a CA and nodes of their own"
		switch first := issuers[0].LoginNamespace; {
		case d.mistaken(key):
		case s.LoginNamespace == "":
			d.failIn(table, key, "is missing: there are %d issuers, and on a node a login of issuer %q is the same account as that login of another, whoever they are; %s",
				len(issuers), s.Alias, remedy)
		case first != "" && s.LoginNamespace != first:
			d.fail(key, "%q is not %q, that of %q: on a node a login of both is the same account, whoever they are; %s", s.LoginNamespace, first, issuers[0].Alias, remedy)
		}
	}
}

// checkFormerNames refuses names that would be of two issuers.
func (d *decoder) checkFormerNames(issuers []IssuerSection) {
	taken := map[string]int{}
	for i, s := range issuers {
		taken[s.Alias], taken[s.URL] = i, i
	}
	for i, s := range issuers {
		for j, name := range s.FormerNames {
			key := fmt.Sprintf("issuers[%d].former_names", i)
			if other, ok := taken[name]; ok && other != i {
				d.fail(key, "%q is a name of issuer %q: revocations under it would be of two people", name, issuers[other].Alias)
			} else if name == "" || slices.Contains(s.FormerNames[:j], name) {
				d.fail(key, "%q is empty, or stands twice", name)
			}
			taken[name] = i
		}
	}
}

// failIn is fail for a key that is missing: the line is that of its table.
func (d *decoder) failIn(table, key, format string, args ...any) {
	d.fail(key, format, args...)
	if m := &d.mistakes[len(d.mistakes)-1]; m.line == 0 && d.from[key] == "" {
		m.line = d.lines[table]
	}
}
