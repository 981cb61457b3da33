package httpapi

import (
	"context"
	"errors"
	"net/http"

	"sallyport/executor"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"
)

// authenticated verifies the caller's token from the header alone. The body is
// not touched before: net/http answers "Expect: 100-continue" only when a handler
// reads, and a body that nobody asked for is cut off with its connection.
func (a *API) authenticated(operation string, h callerHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		shown, err := a.presented(r)
		if shown.DPoP {
			a.tellNonce(w.Header())
		}
		caller, err := a.admit(r, operation, shown, err)
		if err != nil {
			return err
		}
		err = h(w, r, caller)
		if errors.Is(err, executor.ErrCommandsDenied) {
			a.recordDenied(r.Context(), caller, actOf(r, operation), err)
		}
		return err
	}
}

// admit verifies what was shown, unless no token could be found, and records a refusal. Whose
// access was revoked goes no further. A known caller's request has one of the caller's
// places from then on; it counts against the rates, and the policy is asked.
func (a *API) admit(r *http.Request, operation string, shown identity.Presentation, err error) (identity.Identity, error) {
	var caller identity.Identity
	if err == nil {
		caller, err = a.verify(r, shown)
	}
	if err == nil && !caller.Valid() {
		err = identity.ErrInvalidToken
	}
	if err == nil {
		exchangeFrom(r.Context()).caller = caller
		if err := a.atGate(r.Context(), operation, caller); err != nil {
			return caller, err
		}
		a.vouch(r, caller)
		if err := a.enter(r, caller); err != nil {
			return caller, err
		}
		if err := a.rates.take(caller); err != nil {
			return caller, err
		}
		return a.authorize(r, operation, caller)
	}
	if kindOf(err).status < http.StatusInternalServerError {
		a.refusals.record(r.Context(), err)
	}
	return identity.Identity{}, err
}

// authorize asks the policy about the call, and records what is denied. The caller that it
// returns is narrower if the policy lets them run no commands: what serves the call goes
// by that.
func (a *API) authorize(r *http.Request, operation string, caller identity.Identity) (identity.Identity, error) {
	if a.cfg.Policy == nil {
		return caller, nil
	}
	act := actOf(r, operation)
	act.Pending = exchangeFrom(r.Context()).detailed
	err := a.authorizeBy(r.Context(), a.cfg.Policy, caller, act)
	if errors.Is(err, policy.ErrPending) {
		exchangeFrom(r.Context()).waiting = func(ctx context.Context, told policy.Act) error {
			full := act
			full.Pending, full.Paths, full.Tree, full.Job = false, told.Paths, told.Tree, told.Job
			return a.authorizeBy(ctx, a.cfg.Policy, caller, full)
		}
		err = nil
	}
	if err != nil {
		return caller, err
	}
	exchangeFrom(r.Context()).listed = func(ctx context.Context, system string) (bool, error) {
		of := act
		of.System = system
		err := a.cfg.Policy.Authorize(ctx, caller, of)
		if errors.Is(err, policy.ErrDenied) {
			return false, nil
		}
		return err == nil, err
	}
	may, err := a.cfg.Policy.MayRunCommands(r.Context(), caller, act)
	if !may {
		caller = caller.Narrowed()
	}
	return caller, err
}

// Waiting says whether the policy's decision about the call of ctx depends on the paths and the
// job that it names. Nothing may be done for it until [Tell] has returned nil.
func Waiting(ctx context.Context) bool { return exchangeFrom(ctx).waiting != nil }

// Tell tells the policy of the paths and the job of the call of ctx, and returns what becomes of
// the call. It may be asked about more paths than once.
func Tell(ctx context.Context, told policy.Act) error {
	ask := exchangeFrom(ctx).waiting
	if ask == nil {
		return nil
	}
	return ask(ctx, told)
}

// Listed says whether the call of ctx, which shows several systems, may show one: the
// policy is asked about it again with the system. What it denies is left out in silence.
func Listed(ctx context.Context, system string) (bool, error) {
	if ask := exchangeFrom(ctx).listed; ask != nil {
		return ask(ctx, system)
	}
	return true, nil
}

// authorizeBy asks a policy, and records what is denied.
func (a *API) authorizeBy(ctx context.Context, policies Authorizer, caller identity.Identity, act policy.Act) error {
	err := policies.Authorize(ctx, caller, act)
	if denied, ok := errors.AsType[*policy.DeniedError](err); ok {
		a.recordDenied(ctx, caller, act, denied)
		err = &requestError{err: denied, detail: denied.Message}
	}
	return err
}

// actOf is what a request asks for. A HEAD is served as the GET that it is without its
// body, and no rule can tell them apart.
func actOf(r *http.Request, operation string) policy.Act {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	return policy.Act{
		Operation: operation, System: exchangeFrom(r.Context()).system,
		Method: method, Address: audit.RequestFrom(r.Context()).SourceIP,
	}
}

func (a *API) recordDenied(ctx context.Context, caller identity.Identity, act policy.Act, cause error) {
	act.System = a.knownSystem(caller, act.System)
	a.refusals.recordDenied(ctx, caller, act, cause)
}

// knownSystem is the name if there is such a system for the caller, else "": records are
// counted by it, and a client can invent any number of names.
func (a *API) knownSystem(caller identity.Identity, name string) string {
	if a.cfg.Commands == nil || name == "" {
		return ""
	}
	info, err := a.cfg.Commands.System(caller, name)
	if err != nil {
		return ""
	}
	return info.Name
}
