package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/identity/identitytest"
	"sallyport/policy"
)

func newPolicy(t *testing.T, cfg policy.Config) *policy.Policy {
	t.Helper()
	cfg.Operations = []string{"exec", "compute.list", "compute.submit", "filesystem.ls", "certificates.issue"}
	cfg.Systems = []string{"daint", "eiger"}
	p, err := policy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var alice = policy.Caller{
	User: "alice", Issuer: "centre", Subject: "s-1", Client: "portal", Scopes: []string{"openid", "ssh"},
	Claims: map[string]any{
		"groups": []any{"staff", 7.0, "physics"}, "acr": "mfa", "level": 3.0,
		"realm": map[string]any{"roles": "admin"},
	},
}

// decision is "" for allowed, or the rule that denies.
func decision(t *testing.T, p *policy.Policy, caller policy.Caller, act policy.Act) string {
	t.Helper()
	_, err := p.Explain(t.Context(), caller, act)
	denied, ok := errors.AsType[*policy.DeniedError](err)
	switch {
	case ok && !errors.Is(err, policy.ErrDenied):
		t.Errorf("%v is not ErrDenied", err)
	case ok:
		return denied.Rule
	case err != nil:
		t.Fatal(err)
	}
	return ""
}

func TestEachListNarrowsARule(t *testing.T) {
	act := policy.Act{Operation: "compute.submit", System: "daint", Method: "POST", Address: "192.0.2.7"}
	for name, c := range map[string]struct {
		rule    policy.Rule
		matches bool
	}{
		"nothing":              {policy.Rule{}, true},
		"operation":            {policy.Rule{Operations: []string{"exec", "compute.submit"}}, true},
		"another operation":    {policy.Rule{Operations: []string{"compute.list"}}, false},
		"kind":                 {policy.Rule{Operations: []string{"compute.*"}}, true},
		"another kind":         {policy.Rule{Operations: []string{"filesystem.*"}}, false},
		"all":                  {policy.Rule{Operations: []string{"*"}}, true},
		"system":               {policy.Rule{Systems: []string{"daint"}}, true},
		"another system":       {policy.Rule{Systems: []string{"eiger"}}, false},
		"issuer":               {policy.Rule{Issuers: []string{"centre"}}, true},
		"another issuer":       {policy.Rule{Issuers: []string{"guests"}}, false},
		"user":                 {policy.Rule{Users: []string{"bob", "alice"}}, true},
		"another user":         {policy.Rule{Users: []string{"alic", "Alice", "alicea"}}, false},
		"client":               {policy.Rule{Clients: []string{"portal"}}, true},
		"another client":       {policy.Rule{Clients: []string{"cli"}}, false},
		"group":                {policy.Rule{Groups: []string{"physics"}}, true},
		"another group":        {policy.Rule{Groups: []string{"chemistry"}}, false},
		"one list of two":      {policy.Rule{Users: []string{"alice"}, Groups: []string{"chemistry"}}, false},
		"claim":                {policy.Rule{When: `claims.acr == "mfa"`}, true},
		"number":               {policy.Rule{When: `claims.level >= 3`}, true},
		"absent claim, asked":  {policy.Rule{When: `has(claims.department) && claims.department == "x"`}, false},
		"nested claim":         {policy.Rule{When: `claims.realm.roles == "admin"`}, true},
		"every variable":       {policy.Rule{When: `user == "alice" && issuer == "centre" && subject == "s-1" && client == "portal" && "ssh" in scopes && "staff" in groups && operation == "compute.submit" && system == "daint" && method == "POST" && address.startsWith("192.0.2.") && now > timestamp("2026-01-01T00:00:00Z")`}, true},
		"list and expression":  {policy.Rule{Users: []string{"alice"}, When: `client == "cli"`}, false},
		"regular expression":   {policy.Rule{When: `user.matches("^a[a-z]+$")`}, true},
		"groups that are none": {policy.Rule{When: `size(groups) == 2`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Name, c.rule.Deny = "it", true
			p := newPolicy(t, policy.Config{Rules: []policy.Rule{c.rule}, AllowByDefault: true})
			if denies := decision(t, p, alice, act) == "it"; denies != c.matches {
				steps, err := p.Explain(t.Context(), alice, act)
				t.Errorf("matches: %v, want %v: %+v %v", denies, c.matches, steps, err)
			}
		})
	}
}

func TestTheFirstRuleThatMatchesCountsAlone(t *testing.T) {
	p := newPolicy(t, policy.Config{Rules: []policy.Rule{
		{Name: "staff", Groups: []string{"staff"}, Operations: []string{"exec"}},
		{Name: "no-exec", Deny: true, Operations: []string{"exec"}, Message: "Ask for an account."},
		{Name: "look", Operations: []string{"compute.list"}},
	}})
	guest := policy.Caller{User: "bob"}
	for _, c := range []struct {
		caller    policy.Caller
		operation string
		want      string
	}{
		{alice, "exec", ""},
		{guest, "exec", "no-exec"},
		{guest, "compute.list", ""},
		{guest, "compute.submit", "default"},
		{alice, "", "default"},
	} {
		if got := decision(t, p, c.caller, policy.Act{Operation: c.operation}); got != c.want {
			t.Errorf("%s of %s: denied by %q, want %q", c.operation, c.caller.User, got, c.want)
		}
	}
	_, err := p.Explain(t.Context(), guest, policy.Act{Operation: "exec"})
	if denied, ok := errors.AsType[*policy.DeniedError](err); !ok || denied.Message != "Ask for an account." {
		t.Errorf("denied with %v", err)
	}
}

func TestWithoutRulesAllIsAllowed(t *testing.T) {
	if got := decision(t, newPolicy(t, policy.Config{}), alice, policy.Act{Operation: "exec"}); got != "" {
		t.Errorf("denied by %q", got)
	}
}

// Whatever keeps a rule from being evaluated denies, also if the rule would have
// denied, and if a later one would have allowed.
func TestAnExpressionThatFailsDenies(t *testing.T) {
	for name, when := range map[string]string{
		"absent claim":        `claims.department == "physics"`,
		"no object":           `claims.acr.level == 1`,
		"neither true nor no": `claims.acr`,
		"too dear":            `[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, [0,1,2,3,4,5,6,7,8,9].all(e, claims.level > -1)))))`,
		"division":            `1 / int(claims.level - 3.0) == 1`,
	} {
		for _, deny := range []bool{true, false} {
			p := newPolicy(t, policy.Config{AllowByDefault: true, Rules: []policy.Rule{
				{Name: "first", Deny: deny, When: when}, {Name: "all"},
			}})
			began := time.Now()
			if got := decision(t, p, alice, policy.Act{Operation: "exec"}); got != "first" {
				t.Errorf("%s (deny: %v): denied by %q", name, deny, got)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s took %s", name, took)
			}
		}
	}
}

func TestMistakesAreFoundBeforeTheFirstDecisionAllAtOnce(t *testing.T) {
	_, err := policy.New(policy.Config{
		Operations: []string{"exec", "compute.list"}, Systems: []string{"daint"},
		Rules: []policy.Rule{
			{Name: "a", When: `claims.x == "y" &&& true`},
			{Name: "a", When: `user`},
			{Name: "default", When: `usr == "alice"`},
			{Name: "b", Operations: []string{"exec.*", "com*", "excec"}},
			{Name: "c", Systems: []string{"dain"}, When: "user == 'a' ||\n  nobody == 'b'"},
			{When: `user.matches("(")`},
			{Name: "d", When: strings.Repeat("true && ", 600) + "true"},
		},
	})
	if err == nil {
		t.Fatal("all of it is taken")
	}
	for _, want := range []string{
		`rule 1: when: "claims.x == \"y\" &&& true": column 19: `,
		`rule 2: name: "a" is empty, or that of another`,
		`rule 2: when: "user": column 1: the expression must be true or false, and is a string`,
		`rule 3: name: "default"`,
		`rule 3: when: "usr == \"alice\"": column 1: undeclared reference to 'usr'`,
		`rule 4: operations: "exec.*" is no operation; `,
		`rule 4: operations: "com*"`, `rule 4: operations: "excec"`,
		`rule 5: systems: "dain" is no system; there are: daint`,
		`line 2, column 3: undeclared reference to 'nobody'`,
		`rule 6: name: ""`, `rule 6: when: `,
		`rule 7: when: has 4804 bytes, at most 4096 are allowed`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.HasPrefix(line, "policy: rule ") {
			t.Errorf("a mistake has more than a line: %q", line)
		}
	}
}

func TestGroupsComeFromTheConfiguredClaim(t *testing.T) {
	for path, want := range map[string]string{"realm.roles": "", "groups": "default", "realm": "default", "acr.x": "default", "nothing": "default"} {
		p := newPolicy(t, policy.Config{GroupsClaim: path, Rules: []policy.Rule{{Name: "admins", Groups: []string{"admin"}}}})
		if got := decision(t, p, alice, policy.Act{Operation: "exec"}); got != want {
			t.Errorf("%s: denied by %q, want %q", path, got, want)
		}
	}
}

func TestATokensOwnClaimsAreSeen(t *testing.T) {
	caller := identitytest.IdentityFrom(t, "centre", "s-1", "alice", time.Hour)
	p := newPolicy(t, policy.Config{Rules: []policy.Rule{
		{Name: "it", Users: []string{"alice"}, When: `claims.sub == "s-1" && claims.preferred_username == user && issuer == "centre"`},
	}})
	if err := p.Authorize(t.Context(), caller, policy.Act{Operation: "exec"}); err != nil {
		t.Error(err)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	p, err := policy.New(policy.Config{
		Operations: []string{"exec"}, Rules: []policy.Rule{
			{Name: "none", Users: []string{"bob"}},
			{Name: "it", Groups: []string{"staff"}, When: `claims.acr == "mfa" && "physics" in groups`},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Explain(b.Context(), alice, policy.Act{Operation: "exec"}); err != nil {
			b.Fatal(err)
		}
	}
}
