package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"sallyport/identity"
)

// A handler answers a request, or returns an error before the first byte of the
// answer; the router turns the error into a problem document.
type handler func(w http.ResponseWriter, r *http.Request) error

// A callerHandler can only be reached with a verified token.
type callerHandler func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error

// A route is one call.
type route struct {
	method, path string
	serve        handler
}

// newRouter is the only place that knows the router library. What the library
// does not do is done here: a 404 and a 405 with Allow as problem documents, HEAD
// wherever there is GET, escaped slashes in names, no redirect to a "clean" path.
func newRouter(a *API, routes []route) http.Handler {
	paths := make(map[string]map[string]handler)
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = make(map[string]handler)
		}
		paths[rt.path][rt.method] = rt.serve
		if rt.method == http.MethodGet {
			paths[rt.path][http.MethodHead] = rt.serve
		}
	}
	m := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		m.Handle(path, a.methods(path, paths[path]))
	}
	m.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, errRouteUnknown)
	})
	return m
}

// methods serves one path by method.
func (a *API) methods(path string, handlers map[string]handler) http.Handler {
	allow := slices.Sorted(maps.Keys(handlers))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeFrom(r.Context())
		x.route, x.system = path, pathValue(r, "system")
		h, ok := handlers[r.Method]
		if !ok {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			a.fail(w, r, &requestError{err: errMethod, allowed: allow})
			return
		}
		if err := h(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// pathValue is a variable of the path, unescaped. The library matches the escaped
// path and leaves its variables so.
func pathValue(r *http.Request, name string) string {
	value, err := url.PathUnescape(mux.Vars(r)[name])
	if err != nil { // net/url has parsed it before
		return ""
	}
	return value
}
