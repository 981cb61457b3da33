package policy_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/fgaserver"
	"sallyport/policy"
)

const store = "01JQ3V00000000000000000000"

func newOpenFGA(t *testing.T, cfg policy.OpenFGAConfig) *policy.OpenFGA {
	t.Helper()
	o, err := policy.NewOpenFGA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func TestARealServerDecides(t *testing.T) {
	s, err := fgaserver.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	cfg := policy.OpenFGAConfig{URL: s.URL + "/", Store: s.Store, Model: s.Model, Token: fgaserver.Token, Timeout: 5 * time.Second}
	p := newPolicy(t, policy.Config{
		Relations: newOpenFGA(t, cfg),
		Rules:     []policy.Rule{{Name: "no-exec", Deny: true, Operations: []string{"exec"}}, {Name: "rest"}},
	})
	want := func(why, operation, system, denies string) {
		t.Helper()
		if got := decision(t, p, alice, policy.Act{Operation: operation, System: system}); got != denies {
			t.Errorf("%s: denied by %q, want %q", why, got, denies)
		}
	}
	want("no relation", "compute.list", "daint", "openfga")
	if err := s.Grant(t.Context(), "alice", "daint"); err != nil {
		t.Fatal(err)
	}
	want("a relation", "compute.list", "daint", "")
	want("a relation to another system", "compute.list", "eiger", "openfga")
	want("a rule denies first", "exec", "daint", "no-exec")
	want("no system", "compute.list", "", "openfga")
	want("an unknown system", "compute.list", "dain", "openfga")
	want("a system in another case", "compute.list", "Daint", "openfga")
	want("a certificate", "certificates.issue", "", "openfga")
	for _, relation := range []string{"member", "certificate_holder"} {
		if err := s.Relate(t.Context(), "alice", relation); err != nil {
			t.Fatal(err)
		}
		want("no system, and "+relation, "compute.list", "", "")
		want("a certificate, and "+relation, "certificates.issue", "", map[string]string{"member": "openfga"}[relation])
		want("another system, and "+relation, "compute.list", "eiger", "openfga")
	}
	if err := s.Unrelate(t.Context(), "alice", "member"); err != nil {
		t.Fatal(err)
	}
	want("no system, and a certificate alone", "compute.list", "", "openfga")
	want("a certificate, and no member", "certificates.issue", "", "")
	if err := s.Revoke(t.Context(), "alice", "daint"); err != nil {
		t.Fatal(err)
	}
	want("a relation that was taken away", "compute.list", "daint", "openfga")

	for name, wrong := range map[string]policy.OpenFGAConfig{
		"token":    {URL: s.URL, Store: s.Store, Token: "another"},
		"store":    {URL: s.URL, Store: store, Token: fgaserver.Token},
		"relation": {URL: s.URL, Store: s.Store, Token: fgaserver.Token, Relation: "owner"},
		"type":     {URL: s.URL, Store: s.Store, Token: fgaserver.Token, ObjectType: "vcluster"},
	} {
		if allowed, err := newOpenFGA(t, wrong).Check(t.Context(), "alice", "daint"); allowed || err == nil || strings.Contains(err.Error(), wrong.Token) {
			t.Errorf("wrong %s: %v, %v", name, allowed, err)
		}
	}
	if err := newOpenFGA(t, cfg).Probe(t.Context(), []string{"daint"}); err != nil {
		t.Errorf("a whole model: %v", err)
	}
	old := cfg
	if old.Model, err = s.Define(t.Context(), fgaserver.OldModel); err != nil {
		t.Fatal(err)
	}
	before := newOpenFGA(t, old)
	if err := before.Probe(t.Context(), []string{"daint"}); err == nil || !strings.Contains(err.Error(), `"certificate_holder" to "service:sallyport"`) || strings.Contains(err.Error(), `"system:daint"`) {
		t.Errorf("a model without the service: %v", err)
	}
	if _, err := newPolicy(t, policy.Config{Relations: before}).Explain(t.Context(), alice, policy.Act{Operation: "certificates.issue"}); !errors.Is(err, policy.ErrUnavailable) {
		t.Errorf("a question that the model does not know: %v", err)
	}
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	cfg.Timeout = 100 * time.Millisecond
	p = newPolicy(t, policy.Config{Relations: newOpenFGA(t, cfg)})
	if _, err := p.Explain(t.Context(), alice, policy.Act{Operation: "exec", System: "daint"}); !errors.Is(err, policy.ErrUnavailable) {
		t.Errorf("a server that does not answer: %v", err)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
}

// Only a plain yes is a yes.
func TestWhateverElseAServerAnswersIsNoYes(t *testing.T) {
	check := func(answer func(http.ResponseWriter)) (bool, error) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
		defer server.Close()
		o := newOpenFGA(t, policy.OpenFGAConfig{URL: server.URL, Store: store, Timeout: 5 * time.Second})
		return o.Check(t.Context(), "alice", "daint")
	}
	text := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		fails  bool
	}{
		"no":               {text(200, `{"allowed":false}`), false},
		"nothing":          {text(200, ``), true},
		"an empty object":  {text(200, `{}`), true},
		"null":             {text(200, `{"allowed":null}`), true},
		"a string":         {text(200, `{"allowed":"true"}`), true},
		"a number":         {text(200, `{"allowed":1}`), true},
		"an array":         {text(200, `[true]`), true},
		"HTML":             {text(200, `<html>allowed</html>`), true},
		"yes, and more":    {text(200, `{"allowed":true} {"allowed":false}`), true},
		"yes with a 201":   {text(201, `{"allowed":true}`), true},
		"yes with a 403":   {text(403, `{"allowed":true}`), true},
		"yes with a 500":   {text(500, `{"allowed":true}`), true},
		"too much":         {text(200, `{"allowed":true,"x":"`+strings.Repeat("x", 1<<20)+`"}`), true},
		"a redirect":       {func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(307) }, true},
		"a cut connection": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, true},
	} {
		if allowed, err := check(c.answer); allowed || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v", name, allowed, err)
		}
	}
	if allowed, err := check(text(200, `{"allowed":true,"resolution":""}`)); !allowed || err != nil {
		t.Errorf("yes: %v, %v", allowed, err)
	}
}

func TestAYesIsRememberedForAWhileAndAskedOnceForAll(t *testing.T) {
	var asked atomic.Int64
	gate := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-gate
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "" || r.URL.Path != "/stores/"+store+"/check" {
			t.Errorf("asked %s with a token", r.URL.Path)
		}
		if strings.Contains(string(body), `"user:alice"`) {
			_, _ = io.WriteString(w, `{"allowed":true}`)
			return
		}
		_, _ = io.WriteString(w, `{"allowed":false}`)
	}))
	t.Cleanup(server.Close)
	o := newOpenFGA(t, policy.OpenFGAConfig{URL: server.URL, Store: store, Timeout: 10 * time.Second, Remember: 300 * time.Millisecond})
	check := func(user string) bool {
		allowed, err := o.Check(t.Context(), user, "daint")
		if err != nil {
			t.Error(err)
		}
		return allowed
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { check("alice") })
	}
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	all.Wait()
	first := asked.Load()
	if first > 5 { // those that came after the answer and before it was noted
		t.Errorf("50 callers at once asked %d times", first)
	}
	for check("alice") && asked.Load() == first { // until it is forgotten
		time.Sleep(10 * time.Millisecond)
	}
	for range 2 {
		if check("bob") {
			t.Error("bob is allowed")
		}
	}
	if n := asked.Load(); n != first+3 {
		t.Errorf("asked %d times, want %d: a no must not be remembered", n, first+3)
	}
}

func TestAServerMustBeNamedRight(t *testing.T) {
	for name, cfg := range map[string]policy.OpenFGAConfig{
		"url": {URL: "fga.example.org", Store: store}, "user in url": {URL: "https://a:b@fga", Store: store},
		"store": {URL: "https://fga", Store: "x/../y"}, "model": {URL: "https://fga", Store: store, Model: "latest"},
		"relation": {URL: "https://fga", Store: store, Relation: "a b"}, "type": {URL: "https://fga", Store: store, UserType: "user:x"},
		"service": {URL: "https://fga", Store: store, Service: "a:b"}, "certificate relation": {URL: "https://fga", Store: store, CertificateRelation: "*"},
		"time": {URL: "https://fga", Store: store, Remember: -1},
	} {
		if _, err := policy.NewOpenFGA(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
