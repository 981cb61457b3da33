package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"sallyport/ca"
	"sallyport/ca/approval"
	"sallyport/ca/revocation"
	"sallyport/executor"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"
)

// What this package itself refuses; a [requestError] adds which field and why.
var (
	errBodyMalformed = errors.New("body is not one JSON object")
	errFieldInvalid  = errors.New("a field is not acceptable")
	errBodyTooLarge  = errors.New("body is too large")
	errBodyTimeout   = errors.New("body did not arrive in time")
	errMediaType     = errors.New("media type of the body is not supported")
	errNotAcceptable = errors.New("no media type that the client accepts")
	errTokenMissing  = errors.New("no bearer token")
	errRouteUnknown  = errors.New("no such route")
	errMethod        = errors.New("method is not allowed here")
	errOverloaded    = errors.New("too many requests in flight")
	errCallerBusy    = errors.New("too many requests of this caller in flight")
	errNotReady      = errors.New("not ready")
	errPeerRefused   = errors.New("peer of the admin socket is neither root nor the daemon's user")
	errClientGone    = errors.New("client is gone")
	errInternal      = errors.New("internal error")
)

// codePolicy is for a code of package ca that has no row of its own.
const codePolicy = "policy_refused"

// A kind is what clients learn about an error: nothing of the error's own text.
type kind struct {
	status int
	// code is stable; programs branch on it.
	code          string
	title, detail string
	// retry is the Retry-After header in seconds; 0 means no header.
	retry int
}

// kinds is the one table from errors to HTTP. The first row whose error is in the
// chain wins, so an error stands above those that it wraps; what no row knows is
// internal, the last row.
var kinds = []struct {
	err error
	kind
}{
	{errClientGone, kind{499, "client_gone", "Client is gone", "The client closed the connection before the answer was ready.", 0}},

	{errBodyMalformed, kind{http.StatusBadRequest, "body_malformed", "Body is malformed", "The body must be one JSON object in UTF-8 that names no key twice.", 0}},
	{errFieldInvalid, kind{http.StatusUnprocessableEntity, "field_invalid", "Field is not acceptable", "A field of the request is unknown, of the wrong type, or out of range.", 0}},
	{errBodyTooLarge, kind{http.StatusRequestEntityTooLarge, "body_too_large", "Body is too large", "The body exceeds the limit of this call.", 0}},
	{errBodyTimeout, kind{http.StatusRequestTimeout, "body_timeout", "Body did not arrive", "The body did not arrive in time, or the connection broke while it was sent.", 0}},
	{errMediaType, kind{http.StatusUnsupportedMediaType, "media_type_unsupported", "Media type is not supported", "Send the body as application/json in UTF-8, without a content encoding.", 0}},
	{errNotAcceptable, kind{http.StatusNotAcceptable, "not_acceptable", "No acceptable media type", "The Accept header admits none of the media types of this call.", 0}},
	{errRouteUnknown, kind{http.StatusNotFound, "route_unknown", "No such route", "There is nothing at this path. Paths are matched exactly, without redirects.", 0}},
	{errMethod, kind{http.StatusMethodNotAllowed, "method_not_allowed", "Method is not allowed", "The Allow header lists the methods of this path.", 0}},
	{errOverloaded, kind{http.StatusServiceUnavailable, "overloaded", "Too many requests", "Too many requests are in flight. Nothing was done; try again.", 1}},
	{errCallerBusy, kind{http.StatusTooManyRequests, "caller_overloaded", "Too many requests of yours", "Too many requests of this caller are in flight, or wait for a login node. Nothing was done; try again when some have ended.", 1}},
	{errRate, kind{http.StatusTooManyRequests, "rate_limited", "Rate is exceeded", "More requests came than the site's policy allows a caller, or his client, in the time. Nothing was done.", 1}},
	{errNotReady, kind{http.StatusServiceUnavailable, "not_ready", "Not ready", "The service is starting, draining, or missing something that it needs.", 5}},
	{errPeerRefused, kind{http.StatusForbidden, "peer_refused", "Peer is refused", "Only root and the user of the daemon may use the admin socket.", 0}},

	{errTokenMissing, kind{http.StatusUnauthorized, "token_missing", "Token is missing", "Send one access token in the header \"Authorization: Bearer <token>\".", 0}},
	{identity.ErrExpired, kind{http.StatusUnauthorized, "token_expired", "Token has expired", "The token has expired or is about to. Get a new one.", 0}},
	{identity.ErrNonce, kind{http.StatusUnauthorized, "proof_nonce_missing", "Proof lacks a nonce", "The DPoP proof must hold the value of the answer's DPoP-Nonce header. Make a new proof with it and send the request again.", 0}},
	{identity.ErrProof, kind{http.StatusUnauthorized, "proof_invalid", "Proof is not valid", "The token is bound to a key, and the request needs one DPoP proof of it: new, for this method, address and token. The log of the service has the reason under the request id.", 0}},
	{identity.ErrBinding, kind{http.StatusUnauthorized, "token_binding", "Token is not bound as it has to be", "A token that is bound to a key is sent as \"Authorization: DPoP <token>\" with a proof, one that is bound to a certificate over a TLS connection with it, one that is not bound as \"Bearer\"; and the site may want bound tokens alone.", 0}},
	{identity.ErrInvalidToken, kind{http.StatusUnauthorized, "token_invalid", "Token is not valid", "The token is not acceptable. The log of the service has the reason under the request id.", 0}},
	{identity.ErrScope, kind{http.StatusForbidden, "scope_missing", "Scope is missing", "The token is good but lacks a scope or claim that this service requires.", 0}},
	{identity.ErrNoLogin, kind{http.StatusForbidden, "login_refused", "Login is refused", "The token is good but names no login that may be used here.", 0}},
	{policy.ErrDenied, kind{http.StatusForbidden, "policy_denied", "Denied by policy", "The site's policy does not allow the caller this call. The audit log of the service names the rule under the request id.", 0}},
	{policy.ErrUnavailable, kind{http.StatusServiceUnavailable, "policy_unavailable", "No decision could be had", "The site's policy could not be decided for this call, so nothing was done; try again.", 1}},
	{identity.ErrUnavailable, kind{http.StatusServiceUnavailable, "issuer_unavailable", "Issuer is not available", "The keys of the token's issuer cannot be had at the moment.", 5}},

	{audit.ErrShare, kind{http.StatusTooManyRequests, "audit_share", "Your part of the audit log is used up", "The act would write more into the audit log than one caller may in a minute. Nothing was done.", 1}},
	{ca.ErrPolicy, kind{http.StatusForbidden, ca.CodeRevoked, "Access was revoked", "The caller or the key was revoked. Only the site's administrators can lift that.", 0}},
	{revocation.ErrRevoked, kind{http.StatusForbidden, ca.CodeRevoked, "Access was revoked", "The caller or the key was revoked. Only the site's administrators can lift that.", 0}},
	{executor.ErrRevoked, kind{http.StatusForbidden, "access_revoked", "Access was revoked", "The caller's access was revoked. If the command had been started, it was ended.", 0}},
	{executor.ErrUnknownSystem, kind{http.StatusNotFound, "system_unknown", "No such system", "There is no system of this name, or it is not for this caller.", 0}},
	{executor.ErrInvalidCommand, kind{http.StatusUnprocessableEntity, "command_invalid", "Command is not acceptable", "The command cannot be run as it stands.", 0}},
	{executor.ErrOutcomeUnknown, kind{http.StatusBadGateway, "outcome_unknown", "Outcome is unknown", "The command was started and the connection was lost before its end was reported. It was not run again.", 0}},
	{executor.ErrHostKey, kind{http.StatusBadGateway, "host_key_refused", "Host key is not trusted", "The login node showed a host key that is not the expected one. Nothing was sent to it.", 0}},
	{executor.ErrLoginRefused, kind{http.StatusBadGateway, "node_login_refused", "Login node refused the login", "The login node did not accept the caller's credential. The command was not started.", 0}},
	{executor.ErrNoCredential, kind{http.StatusForbidden, "credential_refused", "No credential", "No credential could be had for the caller. The command was not started.", 0}},
	{executor.ErrCommandsDenied, kind{http.StatusForbidden, "commands_denied", "Commands are denied", "The site's policy lets the caller run no commands on this system, and this call needs one there. What goes over SFTP alone is offered: most calls for files, and no others. Nothing was started.", 0}},
	{executor.ErrWideCredential, kind{http.StatusForbidden, "credential_too_wide", "No login for files alone", "The site's policy lets the caller run no commands on this system, so that files are reached by a login that can do nothing else, and this service has none for the caller. Nothing was started.", 0}},
	{executor.ErrCallerBusy, kind{http.StatusTooManyRequests, "caller_overloaded", "Too many requests of yours", "Too many requests of this caller are in flight, or wait for a login node. Nothing was done; try again when some have ended.", 1}},
	{executor.ErrBusy, kind{http.StatusServiceUnavailable, "busy", "System is busy", "No session became free in time. The command was not started.", 1}},
	{executor.ErrClosed, kind{http.StatusServiceUnavailable, "shutting_down", "Service is shutting down", "The service is shutting down. If the command had been started, it was ended.", 5}},

	{audit.ErrUnavailable, kind{http.StatusServiceUnavailable, "audit_unavailable", "Audit log is not writable", "The act could not be recorded, so it was not done.", 5}},
	{ca.ErrPolicy, kind{http.StatusUnauthorized, ca.CodeIdentity, "Token has expired", "The token has expired since the request came in. Get a new one.", 0}},
	{ca.ErrPolicy, kind{http.StatusUnprocessableEntity, ca.CodePublicKey, "Public key is not allowed", "The public key is malformed, weak, or of a type that is not certified.", 0}},
	{ca.ErrPolicy, kind{http.StatusForbidden, ca.CodePrincipal, "Principal is not allowed", "A principal is malformed or not the caller's.", 0}},
	{ca.ErrPolicy, kind{http.StatusUnprocessableEntity, ca.CodeTTL, "Lifetime is not allowed", "The lifetime is negative or too short.", 0}},
	{ca.ErrPolicy, kind{http.StatusUnprocessableEntity, ca.CodeSourceAddress, "Source address is not allowed", "An address range is malformed or outside those of the profile.", 0}},
	{ca.ErrPolicy, kind{http.StatusUnprocessableEntity, ca.CodeForceCommand, "Forced command is not allowed", "The forced command is too long or not printable ASCII.", 0}},
	{ca.ErrPolicy, kind{http.StatusUnprocessableEntity, ca.CodeManifest, "Manifest is not acceptable", "The manifest is not of what is published now, or its signature does not count.", 0}},
	{revocation.ErrInvalid, kind{http.StatusUnprocessableEntity, "revocation_not_allowed", "Revocation is not acceptable", "The revocation is malformed, or would lock everybody out.", 0}},
	{revocation.ErrNotRevoked, kind{http.StatusNotFound, "not_revoked", "Not revoked", "There is no such revocation to lift.", 0}},
	{ca.ErrPolicy, kind{http.StatusForbidden, codePolicy, "Refused by policy", "The certificate profile does not allow this request.", 0}},
	{revocation.ErrUnavailable, kind{http.StatusServiceUnavailable, "revocations_unavailable", "Revocations are not available", "They can be neither read nor written at the moment. An act may stand already: repeat it.", 5}},
	{ca.ErrUnavailable, kind{http.StatusServiceUnavailable, "ca_unavailable", "Certificate authority is not available", "It can record or sign nothing at the moment, so nothing was issued.", 5}},
	{ca.ErrSigner, kind{http.StatusServiceUnavailable, "ca_unavailable", "Certificate authority is not available", "It can record or sign nothing at the moment, so nothing was issued.", 5}},
	{executor.ErrUnavailable, kind{http.StatusServiceUnavailable, "node_unavailable", "Login nodes are not available", "No login node of the system could be reached. The command was not started.", 5}},
	{ca.ErrStep, kind{http.StatusConflict, "step_refused", "Step is refused", "The step is not safe or not possible now. Nothing was changed.", 0}},
	{ca.ErrNotFound, kind{http.StatusNotFound, "serial_unknown", "No such certificate", "The ledger has no certificate with this serial number.", 0}},

	{approval.ErrHeld, kind{http.StatusConflict, "approval_required", "Another person must approve", "This takes two people. Nothing was done.", 0}},
	{approval.ErrUnknown, kind{http.StatusNotFound, "proposal_unknown", "No such proposal", "No such proposal stands: its time is over, its act was done, or there was none.", 0}},
	{approval.ErrSamePerson, kind{http.StatusForbidden, "approval_own", "Not your own proposal", "Who proposed an act cannot approve it.", 0}},
	{approval.ErrDecided, kind{http.StatusConflict, "proposal_decided", "Somebody else was quicker", "Somebody else approved or rejected the proposal, or its act was done. Look at what stands.", 0}},
	{approval.ErrFull, kind{http.StatusConflict, "proposals_full", "Too many proposals", "Too many proposals stand. Approve or reject some.", 0}},

	{context.DeadlineExceeded, kind{http.StatusGatewayTimeout, "timeout", "Time is over", "The answer did not come in time.", 0}},
	{errInternal, kind{http.StatusInternalServerError, "internal", "Internal error", "Something is wrong with the service. Its log has the reason under the request id.", 0}},
}

// A requestError is one of this package's sentinels with what the client may
// know about it.
type requestError struct {
	err error
	// field is the name in the request, as the client wrote it.
	field string
	// detail replaces the table's text; it never quotes a value of the request.
	detail string
	// allowed lists what would have been accepted.
	allowed []string
}

func (e *requestError) Error() string {
	text := e.err.Error()
	if e.field != "" {
		text += ": " + e.field
	}
	if e.detail != "" {
		text += ": " + e.detail
	}
	return text
}

func (e *requestError) Unwrap() error { return e.err }

// A problem is the body of every error (RFC 9457).
type problem struct {
	Type      string   `json:"type"`
	Title     string   `json:"title"`
	Status    int      `json:"status"`
	Detail    string   `json:"detail"`
	Code      string   `json:"code"`
	RequestID string   `json:"request_id"`
	Field     string   `json:"field,omitempty"`
	Allowed   []string `json:"allowed,omitempty"`

	retry int
}

// problemOf is what the client is told about err.
func problemOf(ctx context.Context, err error) problem {
	k := kindOf(err)
	p := problem{
		Type:      "/docs#" + k.code,
		Title:     k.title,
		Status:    k.status,
		Detail:    k.detail,
		Code:      k.code,
		RequestID: audit.RequestFrom(ctx).ID,
		retry:     k.retry,
	}
	// These five types are the only errors with a text for clients.
	if e, ok := errors.AsType[*requestError](err); ok {
		p.Field, p.Allowed, p.Detail = e.field, e.allowed, cmp.Or(e.detail, k.detail)
	} else if e, ok := errors.AsType[*revocation.Error](err); ok {
		p.Field, p.Detail = e.Field, e.Detail
	} else if e, ok := errors.AsType[*executor.CommandError](err); ok {
		p.Field, p.Detail = e.Field, e.Detail
	} else if e, ok := errors.AsType[*ca.StepError](err); ok {
		p.Detail = e.Error()
	} else if e, ok := errors.AsType[*approval.HeldError](err); ok {
		p.Detail = e.Error()
	} else if e, ok := errors.AsType[*ca.RequestError](err); ok && e.Code == k.code {
		p.Field, p.Detail = e.Field, e.Detail
	}
	if busy, ok := errors.AsType[*executor.RetryError](err); ok && k.retry > 0 {
		p.retry = int(busy.RetryAfter.Seconds())
	}
	if e, ok := errors.AsType[*rateError](err); ok {
		p.retry = retryAfter(e.after)
	} else if e, ok := errors.AsType[*audit.ShareError](err); ok {
		p.retry = retryAfter(e.RetryAfter)
	}
	return p
}

// retryAfter is a wait in whole seconds, a minute at most.
func retryAfter(wait time.Duration) int { return min(int((wait+time.Second-1)/time.Second), 60) }

func kindOf(err error) kind {
	code := codePolicy
	if e, ok := errors.AsType[*ca.RequestError](err); ok {
		code = e.Code
	}
	for _, row := range kinds {
		if row.err == ca.ErrPolicy && row.code != code && row.code != codePolicy { //nolint:errorlint // compares rows
			continue
		}
		if errors.Is(err, row.err) {
			return row.kind
		}
	}
	return kinds[len(kinds)-1].kind
}
