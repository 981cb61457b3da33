package firecrest_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"sallyport/httpapi/firecrest"
	"sallyport/policy"
)

// The rows about tokens of the contract's table of errors. Whatever is said, the token
// does not come back: FirecREST has a header with it.
func TestTokensAreRefusedInTheWordsOfFirecREST(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	mint := func(claims map[string]any) string {
		token, err := s.issuer.Mint(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := mint(map[string]any{"sub": "s", "preferred_username": "alice"})
	other := bare(t, nil)
	stranger, err := other.issuer.Mint(map[string]any{"sub": "s", "preferred_username": "alice"})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		authorization string
		status        int
		phrase        string
	}{
		"none":              {"", 401, "Not authenticated"},
		"another scheme":    {"Basic YTpi", 401, "Not authenticated"},
		"undecodable":       {"Bearer nonsense", 401, "Access token is invalid."},
		"changed":           {"Bearer " + good[:len(good)-4] + "AAAA", 401, "Access token is invalid."},
		"unknown issuer":    {"Bearer " + stranger, 401, "Access token is invalid."},
		"expired":           {"Bearer " + mint(map[string]any{"sub": "s", "preferred_username": "alice", "iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()}), 401, "Access token expired"},
		"expires too soon":  {"Bearer " + mint(map[string]any{"sub": "s", "preferred_username": "alice", "exp": time.Now().Add(2 * time.Second).Unix()}), 401, "Access token expired"},
		"no login":          {"Bearer " + mint(map[string]any{"sub": "s", "preferred_username": 7}), 403, ""},
		"a login of a node": {"Bearer " + mint(map[string]any{"sub": "s", "preferred_username": "root"}), 403, ""},
	} {
		for _, path := range []string{"/status/systems", "/status/clustera/nodes", "/filesystem/clustera/ops/ls?path=/x", "/compute/clustera/jobs"} {
			a := s.as("", "GET", path, "", "Authorization", row.authorization)
			f := a.fails(row.status, row.phrase)
			if f.User != nil || a.header.Get("F7T-AuthUsername") != "" || a.header.Get("Auth-Token") != "" {
				t.Errorf("%s: user %v, headers %v", name, f.User, a.header)
			}
			if (a.header.Get("WWW-Authenticate") == "") == (row.status == 401) {
				t.Errorf("%s: WWW-Authenticate is %q", name, a.header.Get("WWW-Authenticate"))
			}
		}
	}
}

// Contract: a limit of the accounting is 403, with what the scheduler says.
func TestALimitOfTheAccountingIsNotAFault(t *testing.T) {
	c := slurm(t)
	c.root("sacctmgr -i modify user carol set MaxSubmitJobs=0")
	defer c.root("sacctmgr -i modify user carol set MaxSubmitJobs=-1")
	f := c.as("carol", "POST", jobsPath, jsonOf(t, map[string]any{"job": map[string]any{
		"workingDirectory": c.node.Home("carol"), "script": "#!/bin/sh\n:\n",
	}})).fails(http.StatusForbidden, "accounting/QOS policy limit")
	if f.User == nil || *f.User != "carol" {
		t.Errorf("user %v", f.User)
	}
}

// Where FirecREST says 401 to whom OpenFGA denies, this says 403, and fails closed.
func TestWhatThePolicyDeniesIsForbidden(t *testing.T) {
	t.Parallel()
	p, err := policy.New(policy.Config{
		Operations: firecrest.Operations(), Systems: []string{"ClusterA"},
		Rules: []policy.Rule{
			{Name: "look", Operations: []string{"status.*"}},
			{Name: "no", Deny: true, Operations: []string{"compute.*"}, Systems: []string{"ClusterA"}, Message: "No jobs today."},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := serveWith(t, firecrest.Config{Commands: refusing{err: errors.New("it was run")}, Systems: []firecrest.System{{Name: "ClusterA", Scheduler: "slurm"}}}, p)
	if a := s.as("alice", "GET", "/status/systems", ""); a.status != http.StatusOK {
		t.Errorf("status of systems: %d", a.status)
	}
	f := s.as("alice", "DELETE", "/compute/CLUSTERA/jobs/7", "").fails(http.StatusForbidden, "No jobs today.")
	if f.User == nil || *f.User != "alice" {
		t.Errorf("user %v", f.User)
	}
	s.as("alice", "GET", "/filesystem/clustera/ops/ls?path=/x", "").fails(http.StatusForbidden, "policy")
	if a := s.as("", "GET", "/status/liveness", ""); a.status != http.StatusOK {
		t.Errorf("liveness: %d", a.status)
	}
}
