package httpapi

import (
	"errors"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"sallyport/ca"
)

// The bounds of the ledger list, in certificates.
const (
	defaultListLimit = 100
	maxListLimit     = 10000
)

// adminRoutes are served over the admin socket only.
func (a *API) adminRoutes() []route {
	routes := []route{
		{http.MethodGet, "/livez", a.livez},
		{http.MethodGet, "/readyz", a.adminReadyz},
		{http.MethodGet, "/v1/admin/status", a.status},
		{http.MethodGet, "/debug/pprof/", plain(pprof.Index)},
		{http.MethodGet, "/debug/pprof/profile", plain(pprof.Profile)},
		{http.MethodGet, "/debug/pprof/trace", plain(pprof.Trace)},
		{http.MethodGet, "/debug/pprof/{name}", plain(pprof.Index)},
	}
	if a.cfg.Metrics != nil {
		routes = append(routes, route{http.MethodGet, "/metrics", plain(a.cfg.Metrics.ServeHTTP)})
	}
	if a.cfg.Ring != nil {
		routes = append(routes, a.ringRoutes()...)
	}
	if a.cfg.Ledger != nil {
		routes = append(routes,
			route{http.MethodGet, "/v1/admin/certificates", a.certificates},
			route{http.MethodGet, "/v1/admin/certificates/{serial}", a.certificate})
	}
	if a.cfg.Revocations != nil {
		routes = append(routes, a.revocationRoutes()...)
	}
	if a.cfg.Approvals != nil {
		routes = append(routes, a.approvalAdminRoutes()...)
	}
	if a.cfg.Certificates != nil {
		routes = append(routes, route{http.MethodGet, "/v1/admin/revoked-keys", a.revokedKeys})
	}
	if a.cfg.Snapshots != nil {
		routes = append(routes, route{http.MethodPost, "/v1/admin/snapshot", a.snapshot})
	}
	return routes
}

// plain makes a handler of one that writes its own errors. The process's command
// line (/debug/pprof/cmdline) is left out, since it is of no use for profiling.
func plain(h http.HandlerFunc) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		h(w, r)
		return nil
	}
}

// statusAnswer is the state of the process.
type statusAnswer struct {
	Version       string         `json:"version"`
	StartedAt     time.Time      `json:"started_at"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	Ready         bool           `json:"ready"`
	Draining      bool           `json:"draining"`
	InFlight      int            `json:"in_flight"`
	MaxInFlight   int            `json:"max_in_flight"`
	Places        Places         `json:"places"`
	Checks        []checkAnswer  `json:"checks"`
	Parts         map[string]any `json:"parts"`
}

// status is GET /v1/admin/status.
func (a *API) status(w http.ResponseWriter, r *http.Request) error {
	checks, ready := a.ready(r.Context())
	parts := make(map[string]any, len(a.cfg.Status))
	for name, value := range a.cfg.Status {
		parts[name] = value()
	}
	load := a.Load()
	writeJSON(w, http.StatusOK, statusAnswer{
		Version: a.cfg.Version, StartedAt: a.started.UTC(), UptimeSeconds: int64(time.Since(a.started).Seconds()),
		Ready: ready, Draining: a.draining.Load(),
		InFlight: load.InFlight, MaxInFlight: load.MaxInFlight, Places: load.Places, Checks: checks, Parts: parts,
	})
	return nil
}

// Load is a snapshot of what requests hold.
type Load struct {
	// InFlight and MaxInFlight count requests of callers.
	InFlight, MaxInFlight int
	// Places count those of requests without a good token, by lane.
	Places Places
	// Callers is how many callers have one in flight.
	Callers int
	// OutputBytes is what answers hold of commands' output, of MaxOutputBytes.
	OutputBytes, MaxOutputBytes int64
}

// Load returns a snapshot.
func (a *API) Load() Load {
	free, callers := a.callers.state()
	left, _ := a.memory.state()
	return Load{
		InFlight: a.cfg.MaxInFlight - int(free), MaxInFlight: a.cfg.MaxInFlight, Callers: callers, Places: a.places(),
		OutputBytes: a.cfg.OutputMemory - left, MaxOutputBytes: a.cfg.OutputMemory,
	}
}

// ledgerAnswer is a part of the ledger.
type ledgerAnswer struct {
	Certificates []ca.Issued `json:"certificates"`
	// More says that the limit cut the list.
	More bool `json:"more"`
	// Damaged counts rows that could not be read.
	Damaged int `json:"damaged"`
}

// certificates is GET /v1/admin/certificates?login=&valid&limit=: the ledger by
// ascending serial, which is random.
func (a *API) certificates(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	limit := defaultListLimit
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxListLimit {
			return &requestError{err: errFieldInvalid, field: "limit", detail: "The limit must be a whole number from 1 to " + strconv.Itoa(maxListLimit) + "."}
		}
		limit = n
	}
	answer, now := ledgerAnswer{Certificates: []ca.Issued{}}, time.Now()
	for row, err := range a.cfg.Ledger.Ledger(r.Context()) {
		switch {
		case errors.Is(err, ca.ErrUnavailable):
			return err
		case err != nil:
			answer.Damaged++
		case query.Has("login") && row.Login != query.Get("login"),
			query.Has("valid") && now.After(row.ValidBefore):
		case len(answer.Certificates) == limit:
			answer.More = true
			writeJSON(w, http.StatusOK, answer)
			return nil
		default:
			answer.Certificates = append(answer.Certificates, row)
		}
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// certificate is GET /v1/admin/certificates/{serial}.
func (a *API) certificate(w http.ResponseWriter, r *http.Request) error {
	serial, err := strconv.ParseUint(pathValue(r, "serial"), 10, 64)
	if err != nil {
		return &requestError{err: errFieldInvalid, field: "serial", detail: "The serial must be a decimal number."}
	}
	row, err := a.cfg.Ledger.Lookup(r.Context(), serial)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}
