package httpapi

import (
	"context"

	"sallyport/identity"
	"sallyport/store/audit"
)

// A Gate knows whose access was revoked.
type Gate interface {
	// Admit returns an error that wraps [revocation.ErrRevoked] if the access of the
	// caller was revoked. It MUST answer from memory: it is asked once for each request,
	// whatever the call, after the token is verified and before anything is done.
	Admit(caller identity.Identity) error
}

// opTicket is what records call a call whose caller is known by a ticket.
const opTicket = "ticket"

// atGate refuses a caller whose access was revoked, and records it. There is no call that
// it lets pass: what cannot be forgotten for one call need not be thought of for the next.
func (a *API) atGate(ctx context.Context, operation string, caller identity.Identity) error {
	if a.cfg.Gate == nil {
		return nil
	}
	err := a.cfg.Gate.Admit(caller)
	if err != nil {
		a.refusals.recordRevoked(ctx, caller, operation, err)
	}
	return err
}

// recordRevoked records a call of somebody whose access was revoked.
func (f *refusals) recordRevoked(ctx context.Context, caller identity.Identity, operation string, cause error) {
	f.write(ctx, audit.Event{
		Action: audit.CallDenied, Outcome: audit.Failure, Reason: oneLine(cause.Error()),
		Issuer: caller.Alias(), Subject: caller.Subject(), Login: caller.Login(),
		Detail: map[string]string{"operation": operation},
	}, &f.revoked, maxVerifiedRefusals)
}
