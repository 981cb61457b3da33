// Package identity turns a token from a centre's identity provider into an
// [Identity].
//
// Only [Verifier.Verify] and [Verifier.VerifyPresented] make an Identity, so a function that takes one needs no
// check of its own: the type proves that issuer, audience, signature, lifetime
// and login name were verified, and so was the key that the token is bound to, if it is. The zero Identity is nobody; takers refuse it
// with [Identity.Valid].
package identity

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"
)

var (
	// ErrInvalidToken says that the token is not acceptable, for a reason that
	// an attacker need not learn. HTTP: 401.
	ErrInvalidToken = errors.New("token is not valid")
	// ErrExpired says that a token which is otherwise good has expired, or that
	// too little of its life is left. It wraps ErrInvalidToken. HTTP: 401.
	ErrExpired error = invalid("token has expired")
	// ErrBinding says that a good token is bound to a key or certificate and came
	// without it, or is not bound although its issuer's rule demands that. It wraps
	// ErrInvalidToken. HTTP: 401.
	ErrBinding error = invalid("token is not bound as it has to be")
	// ErrProof says that the DPoP proof of a good token is missing or wrong. It wraps
	// ErrInvalidToken. HTTP: 401.
	ErrProof error = invalid("DPoP proof is not valid")
	// ErrNonce says that the DPoP proof lacks a nonce of [Verifier.Nonce]. It wraps
	// ErrInvalidToken. HTTP: 401, and the client tries again.
	ErrNonce error = invalid("DPoP proof lacks a nonce of ours")
	// ErrScope says that a good token lacks a required scope or claim. HTTP: 403.
	ErrScope = errors.New("token lacks a required scope or claim")
	// ErrNoLogin says that a good token names no acceptable login: the claim is
	// missing, malformed, or reserved. HTTP: 403.
	ErrNoLogin = errors.New("token names no acceptable login")
	// ErrUnavailable says that the issuer's keys cannot be had, so that the
	// token can be neither accepted nor refused. HTTP: 503.
	ErrUnavailable = errors.New("keys of the token's issuer are not available")
)

// invalid is an error that wraps ErrInvalidToken and has a text of its own.
type invalid string

func (e invalid) Error() string { return string(e) }
func (invalid) Unwrap() error   { return ErrInvalidToken }

// An Identity is a caller whose token was verified.
type Identity struct {
	issuer   string
	alias    string
	subject  string
	login    string
	client   string
	scopes   []string
	tokenID  string
	digest   string
	bearer   string
	expires  time.Time
	issuedAt time.Time
	binding  binding
	claims   map[string]any
	narrow   bool
}

// Valid is false for the zero Identity, which is nobody.
func (i Identity) Valid() bool { return i.login != "" && i.subject != "" && i.issuer != "" }

// Issuer is the token's "iss" claim, exactly as configured.
func (i Identity) Issuer() string { return i.issuer }

// Alias is the configured short name of the issuer ([a-z0-9-], at most 16 bytes).
func (i Identity) Alias() string { return i.alias }

// Subject is the token's "sub" claim, at most 255 bytes (OpenID Connect Core §2).
func (i Identity) Subject() string { return i.subject }

// Login is the account name that the issuer's login claim maps to. It matches
// the login pattern and is not reserved.
func (i Identity) Login() string { return i.login }

// Client is the token's "azp" or "client_id" claim, or "".
func (i Identity) Client() string { return i.client }

// Scopes are the values of the token's "scope" or "scp" claim.
func (i Identity) Scopes() []string { return slices.Clone(i.scopes) }

// TokenID is the token's "jti" claim, or "".
func (i Identity) TokenID() string { return i.tokenID }

// TokenDigest names the token in audit records without giving it away; see the
// function [TokenDigest].
func (i Identity) TokenDigest() string { return i.digest }

// TokenDetail says by which token and through which client a caller acts, for the
// details of an audit record: token_sha256, jti, client, and token_binding (what they
// proved with it), as far as the token has them. The map is the taker's to change.
func (i Identity) TokenDetail() map[string]string {
	detail := map[string]string{"token_sha256": i.digest, "jti": i.tokenID, "client": i.client, "token_binding": i.Binding()}
	maps.DeleteFunc(detail, func(_, value string) bool { return value == "" })
	return detail
}

// Expires is the token's "exp" claim.
func (i Identity) Expires() time.Time { return i.expires }

// IssuedAt is the token's "iat" claim.
func (i Identity) IssuedAt() time.Time { return i.issuedAt }

// Claims are all claims of the token as JSON gives them: nil, bool, float64, string,
// []any and map[string]any. They are nil unless [Config.KeepClaims] is set; they are
// shared and MUST NOT be changed. A token's size bounds them, and nothing else has been
// checked of those that have no method here.
func (i Identity) Claims() map[string]any { return i.claims }

// Binding is what the token is bound to, and what the caller has proved: "dpop" (RFC
// 9449), "mtls" (RFC 8705), "dpop+mtls", or "". A bound token is of no use to anybody
// it is passed on to.
func (i Identity) Binding() string { return i.binding.String() }

// Bearer is the raw token, for credential providers that must pass it on. It
// must never be logged or shown.
func (i Identity) Bearer() string { return i.bearer }

// LogValue keeps the token out of logs (slog.LogValuer).
func (i Identity) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("issuer", i.alias),
		slog.String("subject", i.subject),
		slog.String("login", i.login),
		slog.String("token_sha256", i.digest),
	)
}

// String is for error texts; like LogValue it leaves the token out.
func (i Identity) String() string { return i.alias + ":" + i.subject + " as " + i.login }
