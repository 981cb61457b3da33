package httpapi

import (
	"context"
	"net/http"
	"time"

	"sallyport/ca"
	"sallyport/ca/revocation"
	"sallyport/executor"
)

// A Revoker revokes certificates, people, accounts and keys; see [ca.Authority], and
// [revocation.Register] where there is none. Revoke calls cut to have ended what is open,
// with the act in its one form.
type Revoker interface {
	Revoke(ctx context.Context, actor ca.Actor, act revocation.Act, cut func(revocation.Act)) (revocation.Done, error)
	Lift(ctx context.Context, actor ca.Actor, act revocation.Act) (revocation.Done, error)
	Revocations(ctx context.Context) ([]revocation.Act, error)
}

// A SessionCloser ends what is open; see [executor.Executor].
type SessionCloser interface {
	CloseWhere(match func(executor.Session) bool) int
}

// revocationRoutes are served over the admin socket only.
func (a *API) revocationRoutes() []route {
	return []route{
		{http.MethodGet, "/v1/admin/revocations", a.revocations},
		{http.MethodPost, "/v1/admin/revocations", a.revoke},
		{http.MethodPost, "/v1/admin/revocations/lift", a.lift},
	}
}

// revokedAnswer is what came of a revocation.
type revokedAnswer struct {
	revocation.Done
	// Connections were open and are closed, their commands ended.
	Connections int `json:"connections"`
	// CutMS is the time from the request to the last connection closed.
	CutMS float64 `json:"cut_ms"`
	// Unreached says where access may go on, a sentence each.
	Unreached []string `json:"unreached"`
}

// revocations is GET /v1/admin/revocations: those that stand.
func (a *API) revocations(w http.ResponseWriter, r *http.Request) error {
	list, err := a.cfg.Revocations.Revocations(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []revocation.Act{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"revocations": list})
	return nil
}

// revoke is POST /v1/admin/revocations.
func (a *API) revoke(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	act, actor, err := a.readRevocation(w, r)
	if err != nil {
		return err
	}
	answer := revokedAnswer{Unreached: []string{}}
	answer.Done, err = a.cfg.Revocations.Revoke(r.Context(), actor, act, func(act revocation.Act) {
		if a.cfg.Sessions != nil {
			answer.Connections += a.cfg.Sessions.CloseWhere(func(s executor.Session) bool { return act.Covers(UseOf(s)) })
		}
		answer.CutMS = float64(time.Since(began).Microseconds()) / 1000
	})
	if err != nil {
		return err
	}
	if a.cfg.Unreached != nil {
		answer.Unreached = append(answer.Unreached, a.cfg.Unreached(answer.Act)...)
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// UseOf is what a session is of, for what covers it.
func UseOf(s executor.Session) revocation.Use {
	u := revocation.Use{Issuer: s.Issuer, Subject: s.Subject, Accounts: []string{s.Login}}
	if s.Account != "" {
		u.Accounts = append(u.Accounts, s.Account)
	}
	if s.Key != "" {
		u.Keys = []string{s.Key}
	}
	for _, c := range s.Certificates {
		if c != nil {
			u.Grants = append(u.Grants, revocation.GrantOf(c))
		}
	}
	return u
}

// lift is POST /v1/admin/revocations/lift.
func (a *API) lift(w http.ResponseWriter, r *http.Request) error {
	act, actor, err := a.readRevocation(w, r)
	if err != nil {
		return err
	}
	lifted, err := a.cfg.Revocations.Lift(r.Context(), actor, act)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, lifted)
	return nil
}

// readRevocation takes an act as it was written; the [Revoker] checks it.
func (a *API) readRevocation(w http.ResponseWriter, r *http.Request) (revocation.Act, ca.Actor, error) {
	body, err := a.readObject(w, r, maxActBody)
	if err != nil {
		return revocation.Act{}, ca.Actor{}, err
	}
	act := revocation.Act{Kind: revocation.Kind(body.text("kind")), Value: body.text("value")}
	actor := actorOf(r.Context(), body.text("reason"))
	return act, actor, body.finish()
}
