package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/policy"
)

var powers = []policy.Power{
	{Operation: "exec", Method: "POST"}, {Operation: "compute.submit", Method: "POST", Detailed: true}, {Operation: "certificates.issue", Method: "POST", Anywhere: true},
}

// One power is enough, on its system; certificates are good on all.
func TestWhoHasNoPowerMayRunNoCommands(t *testing.T) {
	ls := policy.Act{Operation: "filesystem.ls", System: "daint", Pending: true}
	for name, c := range map[string]struct {
		rules []policy.Rule
		allow bool
		act   policy.Act
		may   bool
	}{
		"no rules":                   {nil, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, true},
		"all denied":                 {[]policy.Rule{{Name: "a", Deny: true}}, true, policy.Act{Operation: "filesystem.ls", System: "daint"}, false},
		"nothing by default":         {[]policy.Rule{{Name: "a", Operations: []string{"filesystem.*"}}}, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, false},
		"one, of this system":        {[]policy.Rule{{Name: "a", Operations: []string{"exec"}, Systems: []string{"daint"}}}, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, true},
		"one, of another system":     {[]policy.Rule{{Name: "a", Operations: []string{"exec"}, Systems: []string{"eiger"}}}, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, false},
		"by a kind":                  {[]policy.Rule{{Name: "a", Operations: []string{"compute.*"}}}, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, true},
		"a certificate":              {[]policy.Rule{{Name: "a", Operations: []string{"certificates.issue"}}}, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, true},
		"a certificate, of a system": {[]policy.Rule{{Name: "a", Operations: []string{"certificates.issue"}, Systems: []string{"daint"}}}, false, policy.Act{Operation: "filesystem.ls", System: "daint"}, false},
		"by the method of the power": {[]policy.Rule{{Name: "a", When: `method == "POST"`}}, false, policy.Act{Operation: "filesystem.ls", System: "daint", Method: "GET"}, true},
		"by the address":             {[]policy.Rule{{Name: "a", When: `address == "192.0.2.1"`}}, false, policy.Act{Operation: "filesystem.ls", System: "daint", Address: "192.0.2.2"}, false},
		"a rule that fails":          {[]policy.Rule{{Name: "a", When: `claims.nothing == "x"`}}, true, policy.Act{Operation: "filesystem.ls", System: "daint"}, false},
		"no system":                  {[]policy.Rule{{Name: "a", Operations: []string{"exec"}}}, false, policy.Act{Operation: "filesystem.ls"}, false},
		"jobs below a folder":        {[]policy.Rule{{Name: "a", Operations: []string{"compute.submit"}, Paths: []string{"/scratch"}}}, false, ls, true},
		"jobs of an account":         {[]policy.Rule{{Name: "a", Operations: []string{"compute.submit"}, When: `job.account == "training"`}}, false, ls, true},
		"jobs of an account, after a denial": {[]policy.Rule{
			{Name: "a", Deny: true, Operations: []string{"compute.submit"}, When: `job.account != "training"`}, {Name: "b", Operations: []string{"compute.submit"}},
		}, false, ls, true},
		"jobs except below a folder":     {[]policy.Rule{{Name: "a", Deny: true, Paths: []string{"/etc"}}, {Name: "b", Operations: []string{"compute.*"}}}, false, ls, true},
		"jobs of a script, of others":    {[]policy.Rule{{Name: "a", Operations: []string{"compute.submit"}, When: `user == "bob" && job.script_path == "/opt/run"`}}, false, ls, false},
		"jobs, denied whatever they are": {[]policy.Rule{{Name: "a", Deny: true, Operations: []string{"compute.submit"}}, {Name: "b", Paths: []string{"/scratch"}}}, false, ls, false},
		"jobs of another system":         {[]policy.Rule{{Name: "a", Systems: []string{"eiger"}, Operations: []string{"compute.submit"}, Paths: []string{"/scratch"}}}, false, ls, false},
		"commands below a folder":        {[]policy.Rule{{Name: "a", Operations: []string{"exec", "certificates.*", "filesystem.*"}, Paths: []string{"/scratch"}}}, false, ls, false},
		"commands by a path":             {[]policy.Rule{{Name: "a", Operations: []string{"exec", "filesystem.*"}, When: `path.startsWith("/scratch")`}}, false, ls, false},
		"commands except of a path": {[]policy.Rule{
			{Name: "a", Deny: true, Operations: []string{"exec"}, When: `!path.startsWith("/scratch")`}, {Name: "b", Operations: []string{"exec", "filesystem.*"}},
		}, false, ls, false},
		"certificates of a job": {[]policy.Rule{{Name: "a", Operations: []string{"certificates.issue"}, When: `job.account == "training"`}}, false, ls, false},
		"the power itself":      {[]policy.Rule{{Name: "a", Deny: true}}, false, policy.Act{Operation: "compute.submit", System: "daint"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPolicy(t, policy.Config{Rules: c.rules, AllowByDefault: c.allow, Powers: powers})
			if may, err := p.CallerMayRunCommands(t.Context(), alice, c.act); err != nil || may != c.may {
				t.Errorf("%v, %v, want %v", may, err, c.may)
			}
		})
	}
}

// What cannot be found out is no right.
func TestAPowerThatCannotBeDecidedIsNone(t *testing.T) {
	o := newOpenFGA(t, policy.OpenFGAConfig{URL: "http://127.0.0.1:1", Store: store})
	p := newPolicy(t, policy.Config{Relations: o, Powers: powers[2:]})
	if may, err := p.CallerMayRunCommands(t.Context(), alice, policy.Act{Operation: "filesystem.ls", System: "daint"}); may || !errors.Is(err, policy.ErrUnavailable) {
		t.Errorf("%v, %v", may, err)
	}
}

func TestARuleThatPromisesTooMuchIsNamed(t *testing.T) {
	commands := []string{"compute.list", "compute.submit", "exec"}
	for name, c := range map[string]struct {
		rules []policy.Rule
		want  string
	}{
		"no rules":          {nil, ""},
		"a power beside it": {[]policy.Rule{{Name: "a", Operations: []string{"compute.*"}}}, ""},
		"none":              {[]policy.Rule{{Name: "a", Operations: []string{"compute.list"}}}, "a for a: compute.list"},
		"denied before": {[]policy.Rule{
			{Name: "no", Deny: true, Operations: []string{"exec", "compute.submit", "certificates.issue"}, Groups: []string{"guests"}}, {Name: "all"},
		}, "all for no: compute.list"},
		"on one of two systems": {[]policy.Rule{
			{Name: "exec", Operations: []string{"exec"}, Systems: []string{"daint"}, Groups: []string{"g"}}, {Name: "list", Operations: []string{"compute.list"}, Groups: []string{"g"}},
		}, "list for exec: compute.list; list for list: compute.list"},
		"for others": {[]policy.Rule{
			{Name: "staff", Groups: []string{"staff"}}, {Name: "guests", Groups: []string{"guests"}, Operations: []string{"compute.list"}},
		}, "guests for guests: compute.list"},
		"jobs below a folder":     {[]policy.Rule{{Name: "a", Operations: []string{"compute.*"}, Paths: []string{"/scratch"}}}, ""},
		"commands below a folder": {[]policy.Rule{{Name: "a", Operations: []string{"exec", "compute.list"}, Paths: []string{"/scratch"}}}, "a for a: compute.list exec"},
		"a right that depends": {[]policy.Rule{
			{Name: "mfa", Operations: []string{"exec"}, When: `claims.acr == "mfa"`}, {Name: "list", Operations: []string{"compute.list"}},
		}, ""},
		"a denial that depends": {[]policy.Rule{
			{Name: "office", Deny: true, Operations: []string{"exec"}, When: `address == "192.0.2.1"`}, {Name: "list", Operations: []string{"compute.list", "exec"}},
		}, "list for office: compute.list"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPolicy(t, policy.Config{Rules: c.rules, Powers: powers})
			var got []string
			for _, a := range p.Advise(commands) {
				got = append(got, a.Rule+" for "+a.Callers+": "+strings.Join(a.Operations, " "))
			}
			slices.Sort(got)
			if text := strings.Join(got, "; "); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}
