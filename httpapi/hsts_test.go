package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestAnAnswerOverTLSAsksForNothingElseEver(t *testing.T) {
	t.Parallel()
	for _, hsts := range []time.Duration{0, 90 * time.Minute} {
		s := newService(t, func(c *Config) { c.HSTS = hsts })
		server := httptest.NewTLSServer(s.api.Handler())
		defer server.Close()
		want := map[time.Duration]string{0: "", 90 * time.Minute: "max-age=5400"}[hsts]
		for path, status := range map[string]int{
			"/livez": http.StatusOK, "/v1/whoami": http.StatusUnauthorized, "/nowhere": http.StatusNotFound, "/docs": http.StatusOK,
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			if got := answer.Header.Get("Strict-Transport-Security"); answer.StatusCode != status || got != want {
				t.Errorf("%s: %d, Strict-Transport-Security %q, want %q", path, answer.StatusCode, got, want)
			}
			for _, name := range []string{"Server", "Set-Cookie", "X-Powered-By"} {
				if answer.Header.Get(name) != "" {
					t.Errorf("%s has the header %s", path, name)
				}
			}
		}
	}
}
