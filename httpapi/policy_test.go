package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"

	"golang.org/x/crypto/ssh"
)

// asked notes what a policy was asked.
type asked struct {
	Authorizer
	mu   sync.Mutex
	acts []policy.Act
}

func (a *asked) Authorize(ctx context.Context, caller identity.Identity, act policy.Act) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acts = append(a.acts, act)
	return a.Authorizer.Authorize(ctx, caller, act)
}

func newTestPolicy(t *testing.T, rules ...policy.Rule) *policy.Policy {
	t.Helper()
	p, err := policy.New(policy.Config{Rules: rules, Operations: Operations(), Systems: []string{"daint"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every call that needs a token is asked about, by its name, before any work.
func TestNothingIsDoneThatThePolicyDenies(t *testing.T) {
	t.Parallel()
	asked := &asked{Authorizer: newTestPolicy(t, policy.Rule{Name: "closed", Deny: true, Message: "The site is closed."})}
	s := start(t, func(c *Config) {
		c.Policy = asked
		c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) {
			t.Error("a command was run")
			return executor.Result{}, nil
		}}
		c.Certificates = fakeCA{func(ca.Request) (*ssh.Certificate, error) {
			t.Error("a certificate was issued")
			return nil, ca.ErrUnavailable
		}}
	})
	for _, c := range []struct{ method, path, body, operation, system string }{
		{http.MethodGet, "/v1/whoami", "", "whoami", ""},
		{http.MethodGet, "/v1/systems", "", "systems.list", ""},
		{http.MethodGet, "/v1/systems/daint", "", "systems.show", "daint"},
		{http.MethodPost, execPath, `{"argv":["true"]}`, "exec", "daint"},
		{http.MethodPost, "/v1/certificates", `{"public_key":"x"}`, "certificates.issue", ""},
		{http.MethodPost, "/api/v1/ssh-keys", `{"username":"alice","duration":"1min"}`, "certificates.issue", ""},
		{http.MethodPost, "/demoCA/sign", `{"PublicKey":"x","OTT":"` + good + `"}`, "certificates.issue", ""},
		{http.MethodPost, "/demoCA/signJSON", `{"PublicKey":"x","OTT":"` + good + `"}`, "certificates.issue", ""},
	} {
		p := s.do(c.method, c.path, c.body).wantProblem(t, http.StatusForbidden, "policy_denied")
		if p.Detail != "The site is closed." {
			t.Errorf("%s: the caller is told %q", c.path, p.Detail)
		}
		act := asked.acts[len(asked.acts)-1]
		if act.Operation != c.operation || act.System != c.system || act.Method != c.method || act.Address != "127.0.0.1" {
			t.Errorf("%s %s: asked about %+v", c.method, c.path, act)
		}
	}
	if a := s.do(http.MethodGet, "/v1/ca/trusted-user-ca-keys", ""); a.status != http.StatusOK {
		t.Errorf("a call without a token: %d", a.status)
	}
	for _, e := range s.trail.all() {
		if e.Action != audit.CallDenied || e.Login != "alice" || !strings.Contains(e.Reason, `rule "closed"`) || e.Detail["operation"] == "" {
			t.Errorf("recorded %+v", e)
		}
	}
	if n := len(s.trail.all()); n != len(asked.acts) || n != 8 {
		t.Errorf("%d records of %d questions", n, len(asked.acts))
	}
}

func TestWhatThePolicyAllowsIsDone(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Policy = newTestPolicy(t, policy.Rule{Name: "commands", Operations: []string{"exec"}, Systems: []string{"daint"}})
	})
	if a := s.do(http.MethodPost, execPath, `{"argv":["true"]}`); a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.body)
	}
	s.do(http.MethodGet, "/v1/whoami", "").wantProblem(t, http.StatusForbidden, "policy_denied")
	s.do(http.MethodPost, "/v1/systems/eiger/exec", `{"argv":["true"]}`).wantProblem(t, http.StatusForbidden, "policy_denied")
	s.do(http.MethodGet, "/v1/systems/daint", "").wantProblem(t, http.StatusForbidden, "policy_denied")
	var systems []string
	for _, e := range s.trail.all() {
		systems = append(systems, e.System)
	}
	// What is recorded is counted by system, so a name that a client invents is not.
	if fmt.Sprint(systems) != "[  daint]" {
		t.Errorf("the records are of systems %q", systems)
	}
}

func TestAPolicyThatCannotDecideAllowsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Policy = undecided{} })
	p := s.do(http.MethodPost, execPath, `{"argv":["true"]}`).wantProblem(t, http.StatusServiceUnavailable, "policy_unavailable")
	if strings.Contains(p.Detail, "secret.example.org") {
		t.Errorf("the caller is told %q", p.Detail)
	}
}

type undecided struct{}

func (undecided) MayRunCommands(context.Context, identity.Identity, policy.Act) (bool, error) {
	return false, policy.ErrUnavailable
}

func (undecided) Authorize(context.Context, identity.Identity, policy.Act) error {
	return fmt.Errorf("%w: dial secret.example.org", policy.ErrUnavailable)
}
