package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

type seen struct {
	route, method, code string
	status              int
	bytes               int64
}

type observerOf struct{ list *[]seen }

func (o observerOf) Request(route, method string, status int, code string, bytes int64, _ time.Duration) {
	*o.list = append(*o.list, seen{route, method, code, status, bytes})
}

func TestTheObserverSeesTemplatesAndNothingThatAClientChose(t *testing.T) {
	t.Parallel()
	var list []seen
	s := newService(t, func(c *Config) { c.Observer = observerOf{&list} })
	for _, r := range []*http.Request{
		httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/systems/secret-name", nil),
		httptest.NewRequestWithContext(t.Context(), "INVENTED", "/nowhere/at/all", nil),
		httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/livez", nil),
	} {
		s.api.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}
	want := []seen{
		{route: "/v1/systems/{system}", method: "GET", code: "token_missing", status: 401},
		{route: "none", method: "other", code: "route_unknown", status: 404},
		{route: "/livez", method: "GET", status: 200},
	}
	if len(list) != len(want) {
		t.Fatalf("seen %+v", list)
	}
	for i := range want {
		if list[i].bytes == 0 {
			t.Errorf("%+v has no bytes", list[i])
		}
		if list[i].bytes = 0; list[i] != want[i] {
			t.Errorf("seen %+v, want %+v", list[i], want[i])
		}
	}
}

func TestATraceparentIsInTheLogAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	for _, traceparent := range []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-x\nforged=1"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/whoami", nil)
		r.Header["Traceparent"] = []string{traceparent}
		s.api.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}
	if got := strings.Count(s.log.String(), `"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"`); got != 1 {
		t.Errorf("the log has the trace id %d times:\n%s", got, s.log)
	}
	if strings.Contains(s.log.String(), "forged") {
		t.Errorf("the log has a forged traceparent:\n%s", s.log)
	}
}
