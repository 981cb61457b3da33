package executor

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"

	"sallyport/identity"
	"sallyport/store/audit"
)

// An announcer records the start of a command that is about to be sent over a
// connection. It does not wait for the record.
type announcer func(*connection) *announcement

// An announcement is the record of a start, which is made while the node opens a
// session for the command.
type announcement struct {
	executor *Executor
	start    Start
	event    audit.Event
	recorded chan error // gets one value
}

func (e *Executor) announcer(ctx context.Context, s *system, caller identity.Identity, prep prepared) announcer {
	return func(conn *connection) *announcement {
		a := &announcement{
			executor: e, recorded: make(chan error, 1),
			start: Start{
				ID: strings.ToLower(rand.Text()), System: s.Name, Node: conn.node,
				User: conn.user, CertificateSerial: conn.serial,
			},
		}
		a.event = e.startEvent(caller, a.start, prep)
		e.background.Go(func() { a.recorded <- e.audit.Record(ctx, a.event) })
		return a
	}
}

// withdraw records that nothing was sent: there was no session for it.
func (a *announcement) withdraw(ctx context.Context) {
	if a == nil {
		return
	}
	e := a.executor
	e.background.Go(func() {
		if <-a.recorded != nil {
			return // it is not on record
		}
		ev := a.event
		ev.Action, ev.Outcome, ev.Reason = audit.ExecEnd, audit.Failure, "no session"
		ev.Detail = endDetail(a.event)
		if err := e.audit.Record(context.WithoutCancel(ctx), ev); err != nil {
			e.log.ErrorContext(ctx, "end of a command is not in the audit log",
				slog.String("exec_id", a.start.ID), slog.Any("error", err))
		}
	})
}
