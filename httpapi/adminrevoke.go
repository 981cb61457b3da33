package httpapi

import (
	"context"
	"net/http"
	"time"

	"sallyport/ca"
	"sallyport/executor"
)

// A Revoker revokes certificates, people and keys; see [ca.Authority].
type Revoker interface {
	Revoke(ctx context.Context, actor ca.Actor, r ca.Revocation, cut func()) (ca.Revoked, error)
	Lift(ctx context.Context, actor ca.Actor, r ca.Revocation) (ca.Revoked, error)
	Revocations(ctx context.Context) ([]ca.Revocation, error)
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
		{http.MethodGet, "/v1/admin/revoked-keys", a.revokedKeys},
	}
}

// revokedAnswer is what came of a revocation.
type revokedAnswer struct {
	ca.Revoked
	// Connections were open and are closed, their commands ended.
	Connections int `json:"connections"`
	// CutMS is the time from the request to the last connection closed.
	CutMS float64 `json:"cut_ms"`
}

// revocations is GET /v1/admin/revocations: those that stand.
func (a *API) revocations(w http.ResponseWriter, r *http.Request) error {
	list, err := a.cfg.Revocations.Revocations(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []ca.Revocation{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"revocations": list})
	return nil
}

// revoke is POST /v1/admin/revocations.
func (a *API) revoke(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	revocation, actor, err := a.readRevocation(w, r)
	if err != nil {
		return err
	}
	var answer revokedAnswer
	answer.Revoked, err = a.cfg.Revocations.Revoke(r.Context(), actor, revocation, func() {
		if a.cfg.Sessions != nil {
			answer.Connections += a.cfg.Sessions.CloseWhere(func(s executor.Session) bool {
				return revocation.Covers(s.Issuer, s.Subject, s.Login, s.Certificates...)
			})
		}
		answer.CutMS = float64(time.Since(began).Microseconds()) / 1000
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// lift is POST /v1/admin/revocations/lift.
func (a *API) lift(w http.ResponseWriter, r *http.Request) error {
	revocation, actor, err := a.readRevocation(w, r)
	if err != nil {
		return err
	}
	lifted, err := a.cfg.Revocations.Lift(r.Context(), actor, revocation)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, lifted)
	return nil
}

func (a *API) readRevocation(w http.ResponseWriter, r *http.Request) (ca.Revocation, ca.Actor, error) {
	body, err := a.readObject(w, r, maxActBody)
	if err != nil {
		return ca.Revocation{}, ca.Actor{}, err
	}
	kind, value := body.text("kind"), body.text("value")
	actor := actorOf(r.Context(), body.text("reason"))
	if err := body.finish(); err != nil {
		return ca.Revocation{}, ca.Actor{}, err
	}
	revocation, err := ca.NewRevocation(ca.RevocationKind(kind), value)
	return revocation, actor, err
}
