package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"sallyport/executor"
	"sallyport/identity"
)

// A Mounted API is served below prefixes of its own, in the form that its clients
// know. Its requests pass what every request passes: request ids and the log line,
// the bounds on requests in flight, the token, the deadlines of bodies and writes.
type Mounted interface {
	// Prefixes are the first segments of its paths, such as "/status", in lower case;
	// requests match them in any case.
	Prefixes() []string
	// Find returns the call that a request asks for. It MUST look at nothing but
	// method and path, since nobody has been authenticated yet.
	Find(r *http.Request) Call
	// Fail answers a request with an error: one of this package's, or one that a Call
	// returned. The caller is the zero Identity if the token was refused or not looked
	// at. The headers that every error has are set already. It returns the code for the
	// log: that of refusal, or one of its own.
	Fail(w http.ResponseWriter, r *http.Request, caller identity.Identity, refusal Refusal) (code string)
}

// A Call is one call of a mounted API.
type Call struct {
	// Route is the template of the path, for the log.
	Route string
	// Operation is the name by which a policy knows the call, System the system that it
	// is for, or "".
	Operation, System string
	// Command says that the call cannot do without a command on a node: it is not served
	// to who may run none.
	Command bool
	// Detailed calls tell the policy of the paths and the job that they name, by [Tell], before
	// anything is done about those.
	Detailed bool
	// Public calls are served without a token, as the zero Identity.
	Public bool
	// Serve answers. An error before the first byte of the answer goes to Fail; one
	// that comes later cuts the connection, so that nobody takes a part for the whole.
	Serve func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error
}

// A Refusal is an error with what clients of this package's own API are told.
type Refusal struct {
	Err    error
	Status int
	// Code is stable; see the table of errors in docs/api.md.
	Code string
	// Detail is a text for clients, without anything internal.
	Detail string
	// RetryAfter is 0 if there is no reason to try again.
	RetryAfter time.Duration
}

func refusalOf(p problem, err error) Refusal {
	return Refusal{Err: err, Status: p.Status, Code: p.Code, Detail: p.Detail, RetryAfter: time.Duration(p.retry) * time.Second}
}

var mountPrefix = regexp.MustCompile(`\A/[a-z0-9]+\z`)

func checkMounts(mounts []Mounted) error {
	var errs []error
	seen := map[string]bool{"/v1": true, "/livez": true, "/readyz": true, "/docs": true}
	for _, m := range mounts {
		for _, prefix := range m.Prefixes() {
			if !mountPrefix.MatchString(prefix) || seen[prefix] {
				errs = append(errs, fmt.Errorf("mounts: prefix %q is malformed or taken", prefix))
			}
			seen[prefix] = true
		}
	}
	return errors.Join(errs...)
}

// withMounts serves what lies below the prefixes of mounted APIs; next serves the
// rest.
func (a *API) withMounts(next http.Handler) http.Handler {
	mounts := make(map[string]Mounted)
	for _, m := range a.cfg.Mounts {
		for _, prefix := range m.Prefixes() {
			mounts[prefix] = m
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m, ok := mounts[firstSegment(r.URL.Path)]; ok {
			a.serveMount(w, r, m)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// firstSegment is the path up to its second slash, in lower case.
func firstSegment(path string) string {
	if path == "" {
		return ""
	}
	segment, _, _ := strings.Cut(path[1:], "/")
	return "/" + strings.ToLower(segment)
}

func (a *API) serveMount(w http.ResponseWriter, r *http.Request, m Mounted) {
	x, call := exchangeFrom(r.Context()), m.Find(r)
	x.mount, x.route, x.system, x.detailed = m, call.Route, call.System, call.Detailed
	h := a.forCaller(call.Operation, func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
		if call.Command && caller.Narrow() {
			return executor.ErrCommandsDenied
		}
		return call.Serve(w, r, caller)
	})
	if call.Public {
		h = a.in(a.lanes.public, func(w http.ResponseWriter, r *http.Request) error { return call.Serve(w, r, identity.Identity{}) })
	}
	err := h(w, r)
	if err == nil {
		return
	}
	if sent, ok := w.(*response); ok && sent.status != 0 {
		noteError(r.Context(), err)
		panic(http.ErrAbortHandler) // net/http then cuts the connection
	}
	a.fail(w, r, err)
}
