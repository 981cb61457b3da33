package httpapi

import (
	"context"
	"net/http"

	"sallyport/ca/approval"
	"sallyport/identity"
)

// Approvals are the acts of administrators that wait for a second person; see
// [approval.Gate].
type Approvals interface {
	Approve(ctx context.Context, by approval.Person, id string) (approval.Proposal, error)
	Reject(ctx context.Context, by approval.Person, id string) (approval.Proposal, error)
	List(ctx context.Context) ([]approval.Proposal, error)
}

const (
	opProposals = "approvals.list"
	opApprove   = "approvals.decide"
)

// approvalAdminRoutes are for who reaches the admin socket.
func (a *API) approvalAdminRoutes() []route {
	byPeer := func(decide func(ctx context.Context, by approval.Person, id string) (approval.Proposal, error)) handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			return a.decide(w, r, approval.Person{UID: actorOf(r.Context(), "").UID}, decide)
		}
	}
	return []route{
		{http.MethodGet, "/v1/admin/approvals", a.proposals},
		{http.MethodPost, "/v1/admin/approvals/{id}/approve", byPeer(a.cfg.Approvals.Approve)},
		{http.MethodPost, "/v1/admin/approvals/{id}/reject", byPeer(a.cfg.Approvals.Reject)},
	}
}

// approvalRoutes are for callers whose token has the administrators' role.
func (a *API) approvalRoutes() []route {
	if a.cfg.Approvals == nil || a.cfg.Approvers == nil {
		return nil
	}
	byToken := func(decide func(ctx context.Context, by approval.Person, id string) (approval.Proposal, error)) handler {
		return a.forCaller(opApprove, a.forApprover(opApprove, func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
			return a.decide(w, r, approval.Person{UID: -1, Issuer: caller.Issuer(), Subject: caller.Subject(), Login: caller.Login()}, decide)
		}))
	}
	list := func(w http.ResponseWriter, r *http.Request, _ identity.Identity) error { return a.proposals(w, r) }
	return []route{
		{http.MethodGet, "/v1/approvals", a.forCaller(opProposals, a.forApprover(opProposals, list))},
		{http.MethodPost, "/v1/approvals/{id}/approve", byToken(a.cfg.Approvals.Approve)},
		{http.MethodPost, "/v1/approvals/{id}/reject", byToken(a.cfg.Approvals.Reject)},
	}
}

// forApprover refuses callers without the role, whatever the policy allows them.
func (a *API) forApprover(operation string, h callerHandler) callerHandler {
	return func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
		if err := a.authorizeBy(r.Context(), a.cfg.Approvers, caller, actOf(r, operation)); err != nil {
			return err
		}
		return h(w, r, caller)
	}
}

// proposals are those that stand.
func (a *API) proposals(w http.ResponseWriter, r *http.Request) error {
	list, err := a.cfg.Approvals.List(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"proposals": list})
	return nil
}

func (a *API) decide(w http.ResponseWriter, r *http.Request, by approval.Person,
	decide func(ctx context.Context, by approval.Person, id string) (approval.Proposal, error),
) error {
	p, err := decide(r.Context(), by, pathValue(r, "id"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, p)
	return nil
}
