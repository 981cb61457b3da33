package policy

import (
	"context"
	"errors"

	"sallyport/identity"
)

// A Power is an operation by which callers run code of their own on a system, or get a
// login that does. Who has none of them may run no commands.
type Power struct {
	// Operation is one of [Config.Operations], Method the one of its requests.
	Operation, Method string
	// Anywhere says that it is for no system, and so counts on all of them.
	Anywhere bool
	// Detailed says that its calls tell the policy of paths and job. Rules see neither of
	// other calls, so that those have no paths, and not any paths.
	Detailed bool
}

// MayRunCommands says whether the caller may run commands on the system of a call which
// [Policy.Authorize] has allowed just now. If that is not known the error is
// [ErrUnavailable]. A call that is for no system runs none, unless it is a power.
//
// Whom the rules allow a power for some paths or some jobs may run commands, whatever those
// are: a job does what its script says, wherever it starts.
func (p *Policy) MayRunCommands(ctx context.Context, id identity.Identity, act Act) (bool, error) {
	return p.mayRunCommands(ctx, CallerOf(id), act)
}

// CallerMayRunCommands is MayRunCommands for a caller who might come.
func (p *Policy) CallerMayRunCommands(ctx context.Context, caller Caller, act Act) (bool, error) {
	return p.mayRunCommands(ctx, caller, act)
}

func (p *Policy) mayRunCommands(ctx context.Context, caller Caller, act Act) (bool, error) {
	for _, power := range p.powers {
		if power.Operation == act.Operation {
			return true, nil
		}
	}
	for _, power := range p.powers {
		ask := Act{Operation: power.Operation, Method: power.Method, Address: act.Address, Pending: power.Detailed}
		var err error
		switch {
		case power.Anywhere:
			err = p.authorize(ctx, caller, ask)
		case act.System == "":
			continue
		default: // the relation to the system was found for the call itself
			ask.System = act.System
			err = p.decide(caller, ask)
		}
		if err == nil || errors.Is(err, ErrPending) {
			return true, nil
		}
		if !errors.Is(err, ErrDenied) {
			return false, err
		}
	}
	return false, nil
}
