package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A body that nobody reads must not harm the next request of the connection.
func TestAnUnreadBodyDoesNotCancelTheNextRequest(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	large := strings.Repeat("x", 3000)
	post := func(path string, serve handler) route { return route{http.MethodPost, path, serve} }
	s.api.public = s.api.observe(s.api.lanes.public, newRouter(s.api, []route{
		post("/ignores", func(w http.ResponseWriter, _ *http.Request) error {
			writeJSON(w, http.StatusOK, large)
			return nil
		}),
		post("/works", func(w http.ResponseWriter, r *http.Request) error {
			if err := r.Context().Err(); err != nil {
				return err
			}
			writeJSON(w, http.StatusOK, "ok")
			return nil
		}),
	}))
	server := httptest.NewUnstartedServer(nil)
	server.Config = s.api.Server()
	server.Start()
	defer server.Close()
	url := server.URL
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for i := range 50 {
		for _, path := range []string{"/ignores", "/works"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("round %d: %s answers %d: %s", i, path, resp.StatusCode, body)
			}
		}
	}
}
