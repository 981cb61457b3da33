package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"sallyport/store/audit"
)

// An Actor is the administrator who acts.
type Actor struct {
	// UID is what the kernel says of who asks, Reason what they say, on one line.
	UID    int    `json:"uid"`
	Reason string `json:"reason"`
}

// maxReasonBytes bounds what an administrator may give as a reason.
const maxReasonBytes = 256

// Check refuses a reason that would not be one line of the audit log.
func (a Actor) Check() error {
	if len(a.Reason) > maxReasonBytes || strings.ContainsFunc(a.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return &Error{Field: "reason", Detail: fmt.Sprintf("is not one line of at most %d bytes", maxReasonBytes)}
	}
	return nil
}

// Event is the record of what is done about an act.
func (a Act) Event(did string, actor Actor, outcome audit.Outcome) audit.Event {
	e := audit.Event{
		Action: audit.AdminAct, Outcome: outcome,
		Detail: map[string]string{"act": did, "uid": strconv.Itoa(actor.UID), "revoked_" + string(a.Kind): a.Value},
	}
	if actor.Reason != "" {
		e.Detail["act_reason"] = actor.Reason
	}
	return e
}

// Done is what came of a revocation.
type Done struct {
	Act
	// Certificates counts those of our authority that were still valid; ListVersion is
	// the revocation list's from then on. Both are 0 where there is no authority.
	Certificates int    `json:"certificates"`
	ListVersion  uint64 `json:"list_version"`
}

// Timeout bounds what follows a recorded act, however impatient the caller is.
const Timeout = 2 * time.Minute

// Revoke makes an act stand in a process that has no certificate authority, in this
// order: the audit log has it; it stands, durably, and who asks is refused; cut, if not
// nil, ends what is open, twice, for what was opened meanwhile; the audit log has the
// outcome. It is safe to repeat, which an error should lead to.
func (r *Register) Revoke(ctx context.Context, actor Actor, a Act, cut func(Act)) (Done, error) {
	a, err := r.New(a.Kind, a.Value)
	if err == nil {
		err = actor.Check()
	}
	if err != nil {
		return Done{}, err
	}
	a.UID, a.Reason, a.At = actor.UID, actor.Reason, time.Now().UTC()
	err = r.Recorded(ctx, "revoke", actor, a, func(ctx context.Context, _ map[string]string) error {
		if err := r.Put(ctx, a); err != nil {
			return err
		}
		for range 2 {
			if cut != nil {
				cut(a)
			}
		}
		return nil
	})
	return Done{Act: a}, err
}

// Lift ends an act. The error wraps ErrNotRevoked if it does not stand.
func (r *Register) Lift(ctx context.Context, actor Actor, a Act) (Done, error) {
	a, err := r.ToLift(ctx, actor, a)
	if err != nil {
		return Done{}, err
	}
	err = r.Recorded(ctx, "revoke.lift", actor, a, func(ctx context.Context, _ map[string]string) error { return r.Drop(ctx, a) })
	return Done{Act: a}, err
}

// Revocations are all that stand, the oldest first.
func (r *Register) Revocations(ctx context.Context) ([]Act, error) {
	x, err := r.Reload(ctx)
	if err != nil {
		return nil, err
	}
	return x.Standing(time.Now()), nil
}

// Recorded does something about an act between two records: that it is meant, without
// which it is not done, and what came of it, to which do adds details. What was
// recorded is done even if ctx ends.
func (r *Register) Recorded(ctx context.Context, did string, actor Actor, a Act, do func(context.Context, map[string]string) error) error {
	if r.audit == nil {
		return fmt.Errorf("%w: there is no audit log", ErrUnavailable)
	}
	if err := r.audit.Record(ctx, a.Event(did, actor, audit.Unknown)); err != nil {
		return fmt.Errorf("%w: record: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	defer cancel()
	outcome := a.Event(did, actor, audit.Success)
	err := do(ctx, outcome.Detail)
	if err != nil {
		outcome.Outcome, outcome.Reason = audit.Failure, err.Error()
	}
	r.log.InfoContext(ctx, did, slog.String("kind", string(a.Kind)), slog.String("value", a.Value), slog.String("outcome", string(outcome.Outcome)))
	if failed := r.audit.Record(ctx, outcome); failed != nil {
		err = errors.Join(err, fmt.Errorf("%w: record: %w", ErrUnavailable, failed))
	}
	return err
}
