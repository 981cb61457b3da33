package httpapi

import (
	"net/http"
	"time"

	"sallyport/identity"
)

// whoamiAnswer is what the token says. It never has the token.
type whoamiAnswer struct {
	Issuer      string    `json:"issuer"`
	IssuerAlias string    `json:"issuer_alias"`
	Subject     string    `json:"subject"`
	Login       string    `json:"login"`
	Client      string    `json:"client"`
	Scopes      []string  `json:"scopes"`
	IssuedAt    time.Time `json:"issued_at"`
	Expires     time.Time `json:"expires"`
	Binding     string    `json:"token_binding"` // what it is bound to, and was proved with this request
	TokenSHA256 string    `json:"token_sha256"`  // of what the issuer signed, its first 16 digits, as in the audit log
}

// whoami is GET /v1/whoami.
func (a *API) whoami(w http.ResponseWriter, _ *http.Request, caller identity.Identity) error {
	writeJSON(w, http.StatusOK, whoamiAnswer{
		Issuer: caller.Issuer(), IssuerAlias: caller.Alias(),
		Subject: caller.Subject(), Login: caller.Login(),
		Client: caller.Client(), Scopes: append([]string{}, caller.Scopes()...),
		IssuedAt: caller.IssuedAt().UTC(), Expires: caller.Expires().UTC(),
		Binding:     caller.Binding(),
		TokenSHA256: caller.TokenDigest(),
	})
	return nil
}

// healthAnswer is "ok", or what keeps the service from it.
type healthAnswer struct {
	Status string        `json:"status"`
	Checks []checkAnswer `json:"checks,omitempty"`
}

type checkAnswer struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Error is internal text; it is shown on the admin listener only.
	Error string `json:"error,omitempty"`
}

// livez is GET /livez: the process answers.
func (a *API) livez(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, healthAnswer{Status: "ok"})
	return nil
}

// readyz is GET /readyz: the service can do its work. It does not say what is
// missing, because everyone may ask.
func (a *API) readyz(w http.ResponseWriter, r *http.Request) error {
	if _, ready := a.ready(r.Context()); !ready {
		return errNotReady
	}
	writeJSON(w, http.StatusOK, healthAnswer{Status: "ok"})
	return nil
}

// adminReadyz is GET /readyz?verbose on the admin listener.
func (a *API) adminReadyz(w http.ResponseWriter, r *http.Request) error {
	checks, ready := a.ready(r.Context())
	answer, status := healthAnswer{Status: "ok"}, http.StatusOK
	if !ready {
		answer.Status, status = "not_ready", http.StatusServiceUnavailable
	}
	if r.URL.Query().Has("verbose") {
		answer.Checks = checks
	}
	writeJSON(w, status, answer)
	return nil
}
