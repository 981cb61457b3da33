package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/identity"
)

// Run runs a command as the caller on a node of a system and returns how it
// ended.
//
// A non-zero exit, an end by a signal and an end by the timeout are Results. The
// errors that say that the command was not started are ErrUnknownSystem,
// ErrInvalidCommand (as *CommandError), ErrBusy, ErrUnavailable, ErrHostKey,
// ErrLoginRefused, ErrNoCredential, ErrCommandsDenied, ErrRevoked of a Config.Gate,
// identity.ErrNoLogin, identity.ErrInvalidToken
// for the zero Identity, and those of the audit recorder. ErrOutcomeUnknown says
// that it was, and that its end was not reported. When ctx ends, when a writer or
// Stdin fails, or when Close or CloseWhere has to end the command, the command is
// terminated as if its time were over and the error is that of ctx, the stream,
// ErrClosed or ErrRevoked;
// then Result.Node is empty if it was not started.
//
// Run returns when the command has ended and no write to Stdout or Stderr is
// under way. A Read of Stdin may still be.
func (e *Executor) Run(ctx context.Context, caller identity.Identity, system string, cmd Command) (Result, error) {
	leave, err := e.enter()
	if err != nil {
		return Result{}, err
	}
	defer leave()
	s, err := e.permitted(caller, system)
	if err != nil {
		return Result{}, err
	}
	if caller.Narrow() {
		return Result{}, ErrCommandsDenied
	}
	prep, err := s.prepare(cmd, e.maxOutput)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.running, func() { cancel(ErrClosed) })() //nolint:contextcheck // Close ends every Run, whatever its context
	live := &liveRun{system: s.Name, caller: caller, end: cancel}
	defer e.track(live)()
	return e.execute(ctx, s, live, cmd, prep)
}

// gone is the error of a Run whose context has ended.
func gone(ctx context.Context) error {
	for _, ours := range []error{ErrClosed, ErrRevoked} {
		if errors.Is(context.Cause(ctx), ours) {
			return ours
		}
	}
	return ctx.Err()
}

// execute finds a session, has the start recorded, and runs the command.
func (e *Executor) execute(ctx context.Context, s *system, live *liveRun, cmd Command, prep prepared) (Result, error) {
	opened, err := e.open(ctx, s, live.caller, s.warm(cmd), e.announcer(ctx, s, live.caller, prep))
	if err != nil {
		return Result{}, err
	}
	live.conn.Store(opened.lease.Conn())
	e.countSession(opened)
	p, said := e.newProcess(opened, cmd, prep), opened.announced
	if err := <-said.recorded; err != nil {
		p.shut()
		p.release(false)
		return Result{}, err
	}

	result, why := p.see(ctx, s, said.start, prep, func() {
		if cmd.Started != nil {
			cmd.Started(said.start)
		}
	})
	e.auditEnd(ctx, said.event, result, p, why)
	return result, p.verdict(why)
}

// see sends the command and sees it to its end, by itself or by force. It returns
// why it had to be ended.
func (p *process) see(ctx context.Context, s *system, start Start, prep prepared, started func()) (Result, error) {
	began := time.Now()
	why := p.run(ctx, prep, started)
	switch {
	case errors.Is(why, errRefused):
		p.shut()
	case errors.Is(why, ErrRevoked):
		p.terminate(0)
	case why != nil:
		p.terminate(s.Grace)
	}
	p.release(!errors.Is(why, errRefused))
	result := p.result(start, time.Since(began))
	result.TimedOut = errors.Is(why, errTimeout)
	return result, why
}

// result collects what is known. It must follow release.
func (p *process) result(start Start, duration time.Duration) Result {
	r := Result{
		Start: start, ExitCode: -1, Duration: duration,
		Stdout: p.stdout.output(), Stderr: p.stderr.output(),
		Truncated: p.stdout.truncated || p.stderr.truncated,
	}
	if p.ended() {
		r.ExitCode, r.Signal = p.ending.code, p.ending.signal
	}
	return r
}

// verdict turns the reason why a command had to be ended into the error of Run.
func (p *process) verdict(why error) error {
	node := p.lease.Conn().node
	switch {
	case errors.Is(why, errRefused):
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, node, why)
	case p.ended() && (why == nil || errors.Is(why, errTimeout)):
		return nil
	case ours(why):
		return why
	case why == nil:
		return fmt.Errorf("%w: %s reported no end", ErrOutcomeUnknown, node)
	default:
		return fmt.Errorf("%w: %s: %w", ErrOutcomeUnknown, node, why)
	}
}

// ours says whether it was this side that ended the command.
func ours(why error) bool {
	for _, reason := range []error{errOutput, errInput, ErrClosed, ErrRevoked, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(why, reason) {
			return true
		}
	}
	return false
}
