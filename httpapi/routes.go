package httpapi

import (
	"net/http"

	"sallyport/identity"
	"sallyport/policy"
)

// Operations are the names by which a policy knows the calls that need a token.
// Certificates in the formats of other services count as certificates.
func Operations() []string {
	return []string{opWhoami, opSystems, opSystem, opExec, opIssue, opProposals, opApprove}
}

// Powers are those of them by which callers run code of their own.
func Powers() []policy.Power {
	return []policy.Power{{Operation: opExec, Method: http.MethodPost}, {Operation: opIssue, Method: http.MethodPost, Anywhere: true}}
}

const (
	opWhoami  = "whoami"
	opSystems = "systems.list"
	opSystem  = "systems.show"
	opExec    = "exec"
	opIssue   = "certificates.issue"
)

// publicRoutes are the calls for which there is a dependency.
func (a *API) publicRoutes() []route {
	routes := []route{
		{http.MethodGet, "/livez", a.in(a.lanes.public, a.livez)},
		{http.MethodGet, "/readyz", a.in(a.lanes.public, a.readyz)},
		{http.MethodGet, "/v1/whoami", a.forCaller(opWhoami, asJSON(a.whoami))},
	}
	if a.cfg.Commands != nil {
		routes = append(routes,
			route{http.MethodPost, "/v1/systems/{system}/exec", a.forCaller(opExec, a.exec)},
			route{http.MethodGet, "/v1/systems", a.forCaller(opSystems, asJSON(a.systems))},
			route{http.MethodGet, "/v1/systems/{system}", a.forCaller(opSystem, asJSON(a.system))})
	}
	if a.cfg.Certificates != nil {
		routes = append(routes,
			route{http.MethodPost, "/v1/certificates", a.forCaller(opIssue, asJSON(a.issue))},
			route{http.MethodGet, "/v1/ca/trusted-user-ca-keys", a.in(a.lanes.nodes, a.trustedKeys)},
			route{http.MethodGet, "/v1/ca/revoked-keys", a.in(a.lanes.nodes, a.revokedKeys)})
	}
	if a.cfg.Distribution != nil {
		routes = append(routes,
			route{http.MethodGet, "/v1/ca/manifest", a.in(a.lanes.nodes, a.manifest)},
			route{http.MethodGet, "/v1/ca/manifest.sig", a.in(a.lanes.nodes, a.manifestSignature)})
	}
	routes = append(routes, a.approvalRoutes()...)
	return append(routes, a.compatRoutes()...)
}

// forCaller is how every call that needs a token is served.
func (a *API) forCaller(operation string, h callerHandler) handler {
	return a.authenticated(operation, h)
}

// asJSON refuses a client that does not want what the call answers.
func asJSON(h callerHandler) callerHandler {
	return func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
		if _, err := negotiate(r, mediaJSON); err != nil {
			return err
		}
		return h(w, r, caller)
	}
}
