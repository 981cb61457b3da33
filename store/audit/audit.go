// Package audit records who did what, before it happens.
//
// An audit record is not a log line: a log handler may drop its error, whereas
// [Recorder.Record] returns it, so that an act whose record cannot be made
// durable does not happen. [Log] writes JSON Lines whose records are chained by
// SHA-256, and [Verify] finds any line that was changed, removed or moved, and an
// end that is missing. Field names follow the Elastic Common Schema; what it has
// no name for stands under "sallyport.".
//
// Guarantee: an event is durable before Record returns. A head file names the last
// line as it was at most 50 ms ago, and always one that is durable. Every line up
// to the head must be perfect; anything wrong with one is tampering or a broken
// disk, and [Open] refuses to go on. What lies after the head are the events of the
// last 50 ms before a crash, and perhaps a line that a crash has torn, which was
// never acknowledged, so nothing was done on its strength: whole lines are kept,
// and the torn rest is removed and reported.
//
// Caveat: whoever can change the folder and crash the machine as well can take the
// last 50 ms away unseen. The chain has no key. Whoever may write the folder can compute a new
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

// RecordLater records the end of an act that was done already, which nobody has to
// wait for, and calls done once with the outcome, perhaps from another goroutine,
// which done must not hold up. A recorder that has a method RecordLater, as [Log]
// has, need not make the caller wait; any other does.
func RecordLater(ctx context.Context, r Recorder, e Event, done func(error)) {
	later, ok := r.(interface {
		RecordLater(ctx context.Context, e Event, done func(error))
	})
	if !ok {
		done(r.Record(ctx, e))
		return
	}
	later.RecordLater(ctx, e, done)
}

// ErrUnavailable is wrapped by every error of [Log.Record]: the event is not
// durable, and the act must not happen.
var ErrUnavailable = errors.New("audit log is not writable")

// Action names what an event is about (ECS event.action).
type Action string

// The actions that Sallyport records.
const (
	TokenRefused       Action = "token.refused"
	CallDenied         Action = "call.denied"
	CertificateIntent  Action = "certificate.intent"
	CertificateIssued  Action = "certificate.issued"
	CertificateRefused Action = "certificate.refused"
	HostRefused        Action = "host.refused"
	ExecStart          Action = "exec.start"
	ExecEnd            Action = "exec.end"
	FileStart          Action = "file.start"
	FileEnd            Action = "file.end"
	FileRead           Action = "file.read"
	AdminAct           Action = "admin.act"
	// Checkpointed is the log's own: a signature of its hash; see [Signer].
	Checkpointed Action = "audit.checkpoint"
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
	// ID is 1 to 64 characters of [A-Za-z0-9._-] (ECS http.request.id). It is ours:
	// whoever answers the request made it by [NewRequestID], so that no two requests
	// share it.
	ID string
	// ClientID is the id that the client gave its request, as [CleanRequestID] passes
	// it, or empty. Any number of requests may have it.
	ClientID string
	// SourceIP is the client's address (ECS source.ip).
	SourceIP string
	// Traceparent is the client's, as [CleanTraceparent] passes it; events have its
	// trace id (ECS trace.id).
	Traceparent string
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
