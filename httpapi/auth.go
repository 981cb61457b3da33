package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/identity"
	"sallyport/store/audit"
)

// authenticated verifies the caller's token from the header alone. The body is
// not touched before: net/http answers "Expect: 100-continue" only when a handler
// reads, and a body that nobody asked for is cut off with its connection.
func (a *API) authenticated(h callerHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		raw, err := bearer(r.Header)
		caller, err := a.admit(r, raw, err)
		if err != nil {
			return err
		}
		if !a.callers.take(keyOf(caller), 1) {
			return errCallerBusy
		}
		defer a.callers.give(keyOf(caller), 1)
		return h(w, r, caller)
	}
}

// admit verifies a token, unless it could not be found, and records a refusal.
func (a *API) admit(r *http.Request, raw string, err error) (identity.Identity, error) {
	var caller identity.Identity
	if err == nil {
		caller, err = a.cfg.Tokens.Verify(r.Context(), raw)
	}
	if err == nil && !caller.Valid() {
		err = identity.ErrInvalidToken
	}
	if err == nil {
		exchangeFrom(r.Context()).caller = caller
		return caller, nil
	}
	if kindOf(err).status < http.StatusInternalServerError {
		a.refusals.record(r.Context(), err)
	}
	return identity.Identity{}, err
}

// bearer takes the token from the one Authorization header (RFC 6750 §2.1). The
// query and form variants of RFC 6750 are not supported: they end in logs.
func bearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return "", errTokenMissing
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errTokenMissing
	}
	token = strings.Trim(token, " ")
	switch {
	case len(values) > 1:
		return "", fmt.Errorf("%w: more than one Authorization header", identity.ErrInvalidToken)
	case token == "":
		return "", errTokenMissing
	}
	return token, nil
}

// challenge adds WWW-Authenticate (RFC 6750 §3): without an error code when no
// token was sent, as the RFC wants it.
func challenge(h http.Header, p problem, err error) {
	const realm = `Bearer realm="sallyport"`
	switch {
	case errors.Is(err, errTokenMissing):
		h.Set("WWW-Authenticate", realm)
	case errors.Is(err, identity.ErrScope):
		h.Set("WWW-Authenticate", realm+`, error="insufficient_scope"`)
	case p.Status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", realm+`, error="invalid_token", error_description="`+p.Title+`"`)
	}
}

// The refused tokens that are recorded, per minute. Each record costs an fsync and
// half a kilobyte for ever, and anyone can send bad tokens: 120 a minute are 90 MB
// a day. Tokens of the issuers' own making are recorded apart, so that a flood of
// the others cannot hide them.
const (
	maxUnverifiedRefusals = 120
	maxVerifiedRefusals   = 1200
)

// refusals records refused tokens; above the bounds it counts them instead, and
// the next record of the kind carries the count.
type refusals struct {
	audit audit.Recorder
	log   *slog.Logger

	mu                   sync.Mutex // guards what follows
	unverified, verified quota
}

// A quota is what was recorded of one kind in the current minute.
type quota struct {
	minute               time.Time
	recorded, suppressed int
}

func (f *refusals) record(ctx context.Context, cause error) {
	e := audit.Event{Action: audit.TokenRefused, Outcome: audit.Failure, Reason: oneLine(cause.Error())}
	refusal, verified := errors.AsType[*identity.RefusalError](cause)
	if verified {
		e.Issuer, e.Subject = refusal.Issuer, refusal.Subject
	}
	suppressed, ok := f.admit(verified, time.Now())
	if !ok {
		return
	}
	if suppressed > 0 {
		e.Detail = map[string]string{"suppressed": strconv.Itoa(suppressed)}
	}
	// The token is refused whether or not this can be recorded, and the record
	// must not depend on whether the client waits for it.
	if err := f.audit.Record(context.WithoutCancel(ctx), e); err != nil {
		f.log.LogAttrs(ctx, slog.LevelError, "refused token was not recorded",
			slog.String("request_id", audit.RequestFrom(ctx).ID), slog.Any("error", err))
	}
}

// admit says whether to record now, and how many were left out before.
func (f *refusals) admit(verified bool, now time.Time) (suppressed int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, most := &f.unverified, maxUnverifiedRefusals
	if verified {
		q, most = &f.verified, maxVerifiedRefusals
	}
	if minute := now.Truncate(time.Minute); !minute.Equal(q.minute) {
		q.minute, q.recorded = minute, 0
	}
	if q.recorded >= most {
		q.suppressed++
		return 0, false
	}
	q.recorded++
	suppressed, q.suppressed = q.suppressed, 0
	return suppressed, true
}

// oneLine bounds an internal reason for the audit log.
func oneLine(s string) string {
	s = strings.ReplaceAll(s, "\n", ": ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
