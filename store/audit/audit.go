// Package audit records who did what, before it happens.
//
// An audit record is not a log line: a log handler may drop its error, whereas
// [Recorder.Record] returns it, so that an act whose record cannot be made
// durable does not happen. [Log] writes JSON Lines whose records are chained by
// SHA-256, and [Verify] finds any line that was changed, removed or moved, and an
// end that is missing. Field names follow the Elastic Common Schema; what it has
// no name for stands under "sallyport.".
//
// Guarantee: a head file names the last acknowledged line, and it is written only
// after that line is durable. Every line up to the head must be perfect; anything
// wrong with one is tampering or a broken disk, and [Open] refuses to go on. What
// lies after the head was never acknowledged, so nothing was done on its
// strength: whole lines there are kept, and the torn rest that a crash can leave
// is removed and reported.
//
// Caveat: the chain has no key. Whoever may write the folder can compute a new
// chain, head included. Ship the lines elsewhere as they appear, or note
// [Report.HeadHash] elsewhere from time to time: it fixes everything before it.
package audit

import (
	"context"
	"errors"
)

// Recorder makes an event durable. When Record returns nil the event survives a
// crash of the machine; when it returns an error the caller MUST NOT act.
type Recorder interface {
	Record(ctx context.Context, e Event) error
}

// ErrUnavailable is wrapped by every error of [Log.Record]: the event is not
// durable, and the act must not happen.
var ErrUnavailable = errors.New("audit log is not writable")

// Action names what an event is about (ECS event.action).
type Action string

// The actions that Sallyport records.
const (
	TokenRefused       Action = "token.refused"
	CertificateIntent  Action = "certificate.intent"
	CertificateIssued  Action = "certificate.issued"
	CertificateRefused Action = "certificate.refused"
	HostRefused        Action = "host.refused"
	ExecStart          Action = "exec.start"
	ExecEnd            Action = "exec.end"
	AdminAct           Action = "admin.act"
)

// Outcome is how an act ended (ECS event.outcome).
type Outcome string

// The outcomes of ECS. Unknown is also the outcome of an intent.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Unknown Outcome = "unknown"
)

// An Event is what the caller knows; time, sequence, request id and source
// address are added by the recorder from the clock and the context. Empty fields
// are left out of the record. No field ever holds a token, a key or output of a
// command.
type Event struct {
	Action  Action
	Outcome Outcome
	// Reason says in a few words why an act failed (ECS event.reason).
	Reason string
	// Issuer is the short name of the identity provider, Subject the "sub" of
	// its token (ECS user.id), Login the account on the node (ECS user.name).
	Issuer, Subject, Login string
	// System and Node say where (Node is ECS destination.address).
	System, Node string
	// Detail holds what only some actions have: serial, key_id, exit_code, … Its
	// keys are snake_case; the record has them under "sallyport.".
	Detail map[string]string
}

// Request is what every event, log line and error of one request shares.
type Request struct {
	// ID is 1 to 64 characters of [A-Za-z0-9._-] (ECS http.request.id).
	ID string
	// SourceIP is the client's address (ECS source.ip).
	SourceIP string
}

type requestKey struct{}

// WithRequest returns a context that carries r to every event recorded under it.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the request that ctx carries, or the zero Request.
func RequestFrom(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}
