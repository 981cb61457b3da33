package identity

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	maxSubjectBytes = 255 // OpenID Connect Core §2
	maxNameBytes    = 255 // of jti, azp, client_id and a scope
)

// latestDate is the end of the year 9999: later dates do not fit into RFC 3339,
// and so not into audit records.
const latestDate jwt.NumericDate = 253402300799

// claims is a verified payload: the registered claims, and all of them by name.
type claims struct {
	jwt.Claims
	all map[string]any
}

func parseClaims(payload []byte) (*claims, error) {
	c := &claims{}
	if json.Unmarshal(payload, &c.Claims) != nil || json.Unmarshal(payload, &c.all) != nil {
		return nil, reject("a registered claim is malformed")
	}
	return c, nil
}

// subject is the "sub" claim, or "" if it is not an acceptable one.
func (c *claims) subject() string {
	if len(c.Subject) > maxSubjectBytes || strings.ContainsFunc(c.Subject, unicode.IsControl) {
		return ""
	}
	return c.Subject
}

// lookup follows a path through nested objects. Nothing is found behind
// anything but an object.
func (c *claims) lookup(path []string) any {
	var at any = c.all
	for _, name := range path {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[name]
	}
	return at
}

// text returns a claim that must be a short printable string if it is there.
func (c *claims) text(name string) (string, error) {
	value, ok := c.all[name]
	if !ok || value == nil {
		return "", nil
	}
	s, ok := value.(string)
	if !ok || len(s) > maxNameBytes || strings.ContainsFunc(s, unicode.IsControl) {
		return "", reject("claim %q is not a printable string of at most %d bytes", name, maxNameBytes)
	}
	return s, nil
}

// scopes returns the values of "scope" (RFC 8693 §4.2) and "scp", each either a
// string with spaces or an array of strings.
func (c *claims) scopes() []string {
	var scopes []string
	for _, name := range []string{"scope", "scp"} {
		switch value := c.all[name].(type) {
		case string:
			scopes = append(scopes, strings.Fields(value)...)
		case []any:
			for _, member := range value {
				if s, ok := member.(string); ok {
					scopes = append(scopes, s)
				}
			}
		}
	}
	return scopes
}

// matches compares a claim with a configured value: see
// [IssuerConfig.RequiredClaims].
func matches(claim any, want string) bool {
	switch value := claim.(type) {
	case string:
		return value == want
	case bool:
		return strconv.FormatBool(value) == want
	case []any:
		return slices.Contains(value, any(want))
	}
	return false
}

// admit applies the issuer's rules to a token whose signature is good. Refusals
// that any token of the kind would meet come first (401), then expiry (401), then what this caller
// lacks (403), so that "expired" is only said of a token that was acceptable.
func (iss *issuer) admit(t *token, c *claims, now time.Time) (Identity, error) {
	if err := c.checkKind(); err != nil {
		return Identity{}, err
	}
	client, err := iss.checkOrigin(t, c)
	if err != nil {
		return Identity{}, err
	}
	tokenID, err := c.text("jti")
	if err != nil {
		return Identity{}, err
	}
	if err := iss.checkTimes(c, now); err != nil {
		return Identity{}, err
	}
	scopes := c.scopes()
	if err := iss.checkGrants(c, scopes); err != nil {
		return Identity{}, err
	}
	bound, err := c.binding()
	if err == nil {
		err = iss.demands(bound)
	}
	if err != nil {
		return Identity{}, err
	}
	login, err := iss.login(c)
	if err != nil {
		return Identity{}, err
	}
	return Identity{
		issuer: iss.cfg.URL, alias: iss.cfg.Alias, subject: c.Subject, login: login, client: client,
		scopes: scopes, tokenID: tokenID, expires: c.Expiry.Time(), issuedAt: c.IssuedAt.Time(),
		binding: bound, claims: c.all,
	}, nil
}

// checkKind refuses tokens that are no bearer access tokens by what their payload
// says; providers that give all of their kinds the same "typ" header say it there.
func (c *claims) checkKind() error {
	switch {
	case c.all["events"] != nil: // RFC 8417, OpenID Connect Back-Channel Logout §2.4
		return reject("the token reports events, such as a logout")
	case c.all["typ"] == nil:
		return nil
	}
	typ, ok := c.all["typ"].(string) // Keycloak: Bearer, ID, Refresh, Offline, Logout
	if !ok || !slices.Contains([]string{"bearer", "jwt", "at+jwt"}, strings.ToLower(typ)) {
		return reject("claim typ is %q, want Bearer, JWT or at+jwt", clip(typ))
	}
	return nil
}

// checkOrigin judges what the token is and for whom: aud, sub, typ, client.
func (iss *issuer) checkOrigin(t *token, c *claims) (client string, err error) {
	switch {
	case !slices.ContainsFunc(iss.cfg.Audiences, c.Audience.Contains):
		return "", reject("aud %q names none of ours", clip(strings.Join(c.Audience, " ")))
	case c.subject() == "":
		return "", reject("sub is missing, longer than %d bytes, or not printable", maxSubjectBytes)
	case !slices.Contains(iss.types, t.typ):
		return "", reject("typ is %q, want one of %q", clip(t.typ), iss.types)
	}
	for _, name := range []string{"client_id", "azp"} {
		value, err := c.text(name)
		switch {
		case err != nil:
			return "", err
		case value == "":
			continue
		case len(iss.cfg.AllowedClients) > 0 && !slices.Contains(iss.cfg.AllowedClients, value):
			return "", reject("%s %q is not an allowed client", name, clip(value))
		}
		client = value
	}
	if client == "" && len(iss.cfg.AllowedClients) > 0 {
		return "", reject("the token names no client")
	}
	return client, nil
}

// checkTimes judges exp, iat and nbf (RFC 7519 §4.1). Exp and iat must be there.
func (iss *issuer) checkTimes(c *claims, now time.Time) error {
	for name, date := range map[string]*jwt.NumericDate{"exp": c.Expiry, "iat": c.IssuedAt, "nbf": c.NotBefore} {
		switch {
		case date == nil && name != "nbf":
			return reject("%s is missing", name)
		case date != nil && (*date < 0 || *date > latestDate):
			return reject("%s is not a date", name)
		}
	}
	expires, issued := c.Expiry.Time(), c.IssuedAt.Time()
	latest := now.Add(iss.cfg.Leeway)
	switch lifetime := expires.Sub(issued); {
	case issued.After(latest):
		return reject("iat is %v in the future", issued.Sub(now).Round(time.Second))
	case c.NotBefore.Time().After(latest):
		return reject("nbf is %v in the future", c.NotBefore.Time().Sub(now).Round(time.Second))
	case iss.cfg.MaxLifetime > 0 && lifetime > iss.cfg.MaxLifetime:
		return reject("lifetime is %v, at most %v is acceptable", lifetime, iss.cfg.MaxLifetime)
	case !iss.alive(expires, now):
		return fmt.Errorf("%w: %v left, want %v", ErrExpired, expires.Sub(now).Round(time.Second), iss.cfg.MinLifetime)
	}
	return nil
}

// alive says whether enough of a token's life is left.
func (iss *issuer) alive(expires, now time.Time) bool {
	return !now.Add(iss.cfg.MinLifetime).After(expires)
}

// checkGrants demands the configured scopes and claims.
func (iss *issuer) checkGrants(c *claims, scopes []string) error {
	for _, scope := range iss.cfg.RequiredScopes {
		if !slices.Contains(scopes, scope) {
			return fmt.Errorf("%w: scope %q", ErrScope, scope)
		}
	}
	for _, required := range iss.requiredClaims {
		if !matches(c.lookup(required.path), required.value) {
			return fmt.Errorf("%w: claim %q is not %q", ErrScope, strings.Join(required.path, "."), required.value)
		}
	}
	return nil
}

// login takes the account name from the token. It is used as it stands or not
// at all: to trim or to lower it would merge accounts.
func (iss *issuer) login(c *claims) (string, error) {
	login, ok := c.lookup(iss.loginPath).(string)
	if !ok {
		return "", fmt.Errorf("%w: claim %q is missing or not a string", ErrNoLogin, iss.cfg.LoginClaim)
	}
	if err := iss.logins.Check(login); err != nil {
		return "", err
	}
	return login, nil
}
