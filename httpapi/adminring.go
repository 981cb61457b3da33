package httpapi

import (
	"context"
	"net/http"
	"slices"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor"
)

// maxActBody bounds the body of an administrative act, in bytes.
const maxActBody = 64 << 10

// ringRoutes are those of the CA's keys.
func (a *API) ringRoutes() []route {
	routes := []route{
		{http.MethodGet, "/v1/admin/ca", a.ringStatus},
		{http.MethodPost, "/v1/admin/ca/probe", a.ringProbe},
	}
	routes = append(routes, a.manifestRoutes()...)
	if a.cfg.Refusals != nil {
		routes = append(routes, route{http.MethodPost, "/v1/admin/ca/refusals", a.ringRefusals})
	}
	for _, step := range []string{
		ca.StepStage, ca.StepPublish, ca.StepActivate, ca.StepRetire, ca.StepAbandon, ca.StepRollback, ca.StepCompromise,
	} {
		routes = append(routes, route{http.MethodPost, "/v1/admin/ca/" + step, a.ringStep(step)})
	}
	return routes
}

// ringStatus is GET /v1/admin/ca.
func (a *API) ringStatus(w http.ResponseWriter, r *http.Request) error {
	status, err := a.cfg.Ring.RingStatus(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, status)
	return nil
}

// ringProbe is POST /v1/admin/ca/probe: it asks all nodes, and answers when each
// has answered or had its time.
func (a *API) ringProbe(w http.ResponseWriter, r *http.Request) error {
	nodes, err := a.cfg.Ring.Probe(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, nodes)
	return nil
}

// ringRefusals is POST /v1/admin/ca/refusals: {"system", "accounts", "reason"}.
func (a *API) ringRefusals(w http.ResponseWriter, r *http.Request) error {
	body, err := a.readObject(w, r, maxActBody)
	if err != nil {
		return err
	}
	system, accounts, reason := body.text("system"), body.texts("accounts"), body.text("reason")
	if err := body.finish(); err != nil {
		return err
	}
	answers, err := a.cfg.Refusals.ProbeRefusals(r.Context(), actorOf(r.Context(), reason), system, accounts)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, answers)
	return nil
}

// ringStep is POST /v1/admin/ca/{step}; see [ca.Act] for the fields of its body.
func (a *API) ringStep(step string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := a.readObject(w, r, maxActBody)
		if err != nil {
			return err
		}
		act := ca.Act{
			Step: step, Key: body.text("key"), Name: body.text("name"), Standby: body.flag("standby"),
			AllowFile: body.flag("allow_file_key"), Except: body.texts("except"), DryRun: body.flag("dry_run"),
			Actor: actorOf(r.Context(), body.text("reason")),
		}
		act.Generation = uint64(body.count("generation")) //nolint:gosec // count takes none below 0
		if err := body.finish(); err != nil {
			return err
		}
		status, err := a.cfg.Ring.Act(r.Context(), act)
		if err != nil {
			return err
		}
		if step == ca.StepCompromise && !act.DryRun {
			status.Closed = a.closeDistrusted(status)
		}
		writeJSON(w, http.StatusOK, status)
		return nil
	}
}

// closeDistrusted ends what certificates of a compromised key have opened: sshd
// would let it live on.
func (a *API) closeDistrusted(status ca.RingStatus) int {
	if a.cfg.Sessions == nil {
		return 0
	}
	distrusted := make(map[string]bool)
	for _, k := range status.Keys {
		distrusted[k.Fingerprint] = k.State == ca.KeyCompromised
	}
	return a.cfg.Sessions.CloseWhere(func(s executor.Session) bool {
		return slices.ContainsFunc(s.Certificates, func(c *ssh.Certificate) bool {
			return c != nil && distrusted[ssh.FingerprintSHA256(c.SignatureKey)]
		})
	})
}

// actorOf is the peer of the admin socket, whom fromPeer has admitted.
func actorOf(ctx context.Context, reason string) ca.Actor {
	p, _ := ctx.Value(peerKey{}).(peer)
	return ca.Actor{UID: p.uid, Reason: reason}
}
