package httpapi

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/identity"
)

// other is a mounted API with errors of its own form.
type other struct{}

func (other) Prefixes() []string { return []string{"/other"} }

func (other) Find(r *http.Request) Call {
	serve := func(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
		switch r.URL.Path {
		case "/other/panic":
			panic("lost")
		case "/other/half":
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
			return errors.New("disk is gone")
		case "/other/read":
			n, err := io.Copy(io.Discard, StreamBody(w, r, 10))
			if err == nil && n != int64(len("12345")) {
				err = errors.New("short")
			}
			return err
		case "/other/whole":
			_, err := ReadBody(w, r, 10)
			return err
		}
		_, _ = io.WriteString(w, "for "+caller.Login())
		return nil
	}
	return Call{Route: "/other/{any}", Public: r.URL.Path == "/other/public", Serve: serve}
}

func (other) Fail(w http.ResponseWriter, _ *http.Request, caller identity.Identity, refusal Refusal) string {
	w.WriteHeader(refusal.Status)
	_, _ = io.WriteString(w, "other: "+refusal.Code+" for "+caller.Login())
	return "other_" + refusal.Code
}

// mounted serves it without the check against the API document, which knows
// nothing of it.
func mounted(t *testing.T) *service {
	t.Helper()
	s := newService(t, func(c *Config) { c.Mounts = []Mounted{other{}} })
	server := httptest.NewServer(s.api.Handler())
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func TestAMountedAPIPassesWhatEveryRequestPassesAndWritesItsOwnErrors(t *testing.T) {
	t.Parallel()
	s := mounted(t)
	for _, c := range []struct {
		path, token, body string
		status            int
		want              string
	}{
		{"/other/x", good, "", 200, "for alice"},
		{"/OTHER/x", good, "", 200, "for alice"},
		{"/other/public", "", "", 200, "for "},
		{"/other/x", "", "", 401, "other: token_missing for "},
		{"/other/x", "tok.expired", "", 401, "other: token_expired for "},
		{"/other/panic", good, "", 500, "other: internal for alice"},
		{"/other/read", good, "12345", 200, ""},
		{"/other/read", good, "123456789012", 413, "other: body_too_large for alice"},
		{"/other/whole", good, "123456789012", 413, "other: body_too_large for alice"},
	} {
		a := s.do("POST", c.path, c.body, "Authorization", bearerOf(c.token))
		if a.status != c.status || a.body != c.want || a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d %q, want %d %q", c.path, a.status, a.body, c.status, c.want)
		}
		if (a.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", c.path, a.header.Get("WWW-Authenticate"))
		}
	}
	if log := s.log.String(); !strings.Contains(log, `"route":"/other/{any}"`) || !strings.Contains(log, `"code":"other_token_expired"`) {
		t.Errorf("log:\n%s", s.log.String())
	}
	// What is not below a prefix is not the mounted API's.
	s.do("GET", "/others/x", "").wantProblem(t, 404, "route_unknown")
}

func bearerOf(token string) string {
	if token == "" {
		return ""
	}
	return "Bearer " + token
}

func TestAnAnswerOfAMountedAPIThatFailsHalfWayIsCut(t *testing.T) {
	t.Parallel()
	s := mounted(t)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/other/half", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+good)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("half an answer looks whole")
	}
	if !strings.Contains(s.log.String(), "disk is gone") {
		t.Errorf("log:\n%s", s.log.String())
	}
}

func TestPrefixesOfMountsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Mounts: []Mounted{other{}, other{}}})
	if err == nil || !strings.Contains(err.Error(), `mounts: prefix "/other" is malformed or taken`) {
		t.Errorf("got %v", err)
	}
}
