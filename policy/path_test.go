package policy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"sallyport/policy"
)

func paths(names ...string) (list []policy.Path) {
	for _, name := range names {
		list = append(list, policy.Path{Real: name})
	}
	return list
}

func TestRulesAreWrittenForPathsAndJobs(t *testing.T) {
	job := policy.Job{Account: "proj", Partition: "long", Environment: []string{"A", "B"}, ScriptBytes: 3, Open: []string{"reservation"}}
	for name, c := range map[string]struct {
		rule    policy.Rule
		act     policy.Act
		allowed bool
	}{
		"folder":                {policy.Rule{Paths: []string{"/scratch"}}, policy.Act{Paths: paths("/scratch")}, true},
		"below":                 {policy.Rule{Paths: []string{"/home", "/scratch"}}, policy.Act{Paths: paths("/scratch/a/b")}, true},
		"by components":         {policy.Rule{Paths: []string{"/home/a"}}, policy.Act{Paths: paths("/home/al")}, false},
		"above":                 {policy.Rule{Paths: []string{"/scratch/a"}}, policy.Act{Paths: paths("/scratch"), Tree: true}, false},
		"root":                  {policy.Rule{Paths: []string{"/"}}, policy.Act{Paths: paths("/x")}, true},
		"no path":               {policy.Rule{Paths: []string{"/"}}, policy.Act{}, false},
		"both":                  {policy.Rule{Paths: []string{"/a"}}, policy.Act{Paths: paths("/a/x", "/a/y")}, true},
		"one of two":            {policy.Rule{Paths: []string{"/a"}}, policy.Act{Paths: paths("/a/x", "/b/y")}, false},
		"the other of two":      {policy.Rule{Paths: []string{"/a"}}, policy.Act{Paths: paths("/b/x", "/a/y")}, false},
		"another name":          {policy.Rule{Paths: []string{"/home"}}, policy.Act{Paths: []policy.Path{{Real: "/lustre/home/a", Names: []string{"/home/a"}}}}, true},
		"expression":            {policy.Rule{When: `path.startsWith("/scratch/" + account + "/")`}, policy.Act{Paths: paths("/scratch/alice/x")}, true},
		"another's":             {policy.Rule{When: `path.startsWith("/scratch/" + account + "/")`}, policy.Act{Paths: paths("/scratch/bob/x")}, false},
		"target":                {policy.Rule{When: `target == "/b" && size(paths) == 2 && "/a" in paths && !tree`}, policy.Act{Paths: paths("/a", "/b")}, true},
		"absent":                {policy.Rule{When: `path == "" && target == "" && paths == [] && job.account == "" && job.environment == [] && job.script_bytes == 0`}, policy.Act{}, true},
		"job":                   {policy.Rule{When: `job.account == "proj" && job.partition != "debug" && "A" in job.environment && job.script_bytes < 10`}, policy.Act{Job: job}, true},
		"another project":       {policy.Rule{When: `job.account == "other"`}, policy.Act{Job: job}, false},
		"what the script says":  {policy.Rule{When: `job.reservation == ""`}, policy.Act{Job: job}, false},
		"either is enough":      {policy.Rule{When: `job.reservation == "" || job.account == "proj"`}, policy.Act{Job: job}, true},
		"not what others leave": {policy.Rule{When: `job.account == "proj"`}, policy.Act{Job: policy.Job{Open: []string{"account"}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Name, c.act.Operation = "r", "filesystem.ls"
			p := newPolicy(t, policy.Config{Rules: []policy.Rule{c.rule}})
			if got := decision(t, p, alice, c.act); (got == "") != c.allowed {
				t.Errorf("%q", got)
			}
		})
	}
}

// A rule that denies a folder denies what would reach into it from above.
func TestATreeIsDeniedForWhatIsInIt(t *testing.T) {
	p := newPolicy(t, policy.Config{AllowByDefault: true, Rules: []policy.Rule{{Name: "secret", Deny: true, Paths: []string{"/scratch/secret"}}}})
	for _, c := range []struct {
		path string
		tree bool
		want string
	}{
		{"/scratch", false, ""},
		{"/scratch", true, "secret"},
		{"/", true, "secret"},
		{"/scratch/secret/x", false, "secret"},
		{"/scratch/secrets", true, ""},
		{"/scratch/other", true, ""},
	} {
		if got := decision(t, p, alice, policy.Act{Operation: "filesystem.ls", Paths: paths(c.path), Tree: c.tree}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// deferred is "allow", "deny" or "wait".
func deferred(t *testing.T, p *policy.Policy, act policy.Act) string {
	t.Helper()
	switch _, err := p.Explain(t.Context(), alice, act); {
	case err == nil:
		return "allow"
	case errors.Is(err, policy.ErrPending):
		return "wait"
	case errors.Is(err, policy.ErrDenied):
		return "deny"
	default:
		t.Fatal(err)
		return ""
	}
}

func TestWhatDependsOnAPathWaitsForIt(t *testing.T) {
	allow, deny := func(r policy.Rule) policy.Rule { return r }, func(r policy.Rule) policy.Rule { r.Deny = true; return r }
	byPath, byJob, all := policy.Rule{Paths: []string{"/a"}}, policy.Rule{When: `job.account == "x"`}, policy.Rule{}
	for name, c := range map[string]struct {
		rules     []policy.Rule
		byDefault bool
		want      string
	}{
		"allowed for a path":                 {[]policy.Rule{allow(byPath)}, false, "wait"},
		"allowed for a job":                  {[]policy.Rule{allow(byJob)}, false, "wait"},
		"denied for a path, else by default": {[]policy.Rule{deny(byPath)}, false, "deny"},
		"denied for a path, else allowed":    {[]policy.Rule{deny(byPath), allow(all)}, false, "wait"},
		"denied for a path, else in any way": {[]policy.Rule{deny(byPath), deny(all), allow(all)}, false, "deny"},
		"denied for a path, allowed after":   {[]policy.Rule{deny(byPath)}, true, "wait"},
		"denied before":                      {[]policy.Rule{deny(all), allow(byPath)}, true, "deny"},
		"allowed before":                     {[]policy.Rule{allow(all), deny(byPath)}, false, "allow"},
		"another user's rule":                {[]policy.Rule{{Users: []string{"bob"}, Paths: []string{"/a"}}, allow(all)}, false, "allow"},
		"false whatever the path":            {[]policy.Rule{{When: `user == "bob" && path == "/a"`}}, false, "deny"},
		"true whatever the path":             {[]policy.Rule{deny(policy.Rule{When: `user == "alice" || path == "/a"`}), allow(all)}, false, "deny"},
		"a list and a false expression":      {[]policy.Rule{{Paths: []string{"/a"}, When: `user == "bob"`}}, false, "deny"},
		"an error":                           {[]policy.Rule{{When: `claims.none == "x"`}}, true, "deny"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.rules {
				c.rules[i].Name = fmt.Sprint(i)
			}
			p := newPolicy(t, policy.Config{Rules: c.rules, AllowByDefault: c.byDefault})
			if got := deferred(t, p, policy.Act{Operation: "filesystem.ls", Pending: true}); got != c.want {
				t.Errorf("%q", got)
			}
		})
	}
}

// What is decided at once is what is decided in the end, whatever paths and jobs come.
func TestAnEarlyDecisionIsTheLastOne(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	whens := []string{
		"", "", `path == "/a"`, `path.startsWith("/b")`, `job.account == "x"`, `user == "alice"`, `user == "bob"`, `tree`, `target != ""`,
		`user == "bob" || path == "/a"`, `user == "alice" && job.account != "x"`, `paths.exists(p, p == "/b")`, `claims.none == path`, `size(job.environment) > 0`,
	}
	acts := []policy.Act{
		{},
		{Paths: paths("/a")},
		{Paths: paths("/b/c")},
		{Paths: paths("/a", "/b")},
		{Paths: paths("/"), Tree: true},
		{Job: policy.Job{Account: "x", Environment: []string{"E"}}},
		{Job: policy.Job{Open: []string{"account"}}},
		{Paths: paths("/b"), Job: policy.Job{Account: "y"}},
	}
	for range 2000 {
		var rules []policy.Rule
		for i := range 1 + r.IntN(4) {
			rule := policy.Rule{Name: fmt.Sprint(i), Deny: r.IntN(2) == 0, When: whens[r.IntN(len(whens))]}
			if r.IntN(3) == 0 {
				rule.Paths = []string{[]string{"/a", "/b", "/b/c/d"}[r.IntN(3)]}
			}
			rules = append(rules, rule)
		}
		p := newPolicy(t, policy.Config{Rules: rules, AllowByDefault: r.IntN(2) == 0})
		early := deferred(t, p, policy.Act{Operation: "filesystem.ls", Pending: true})
		for _, act := range acts {
			act.Operation = "filesystem.ls"
			if last := deferred(t, p, act); early != "wait" && early != last || last == "wait" {
				t.Fatalf("seed %d: %+v: early %s, then %s for %+v", seed, rules, early, last, act)
			}
		}
	}
}

func TestARuleOfNoPathIsRefused(t *testing.T) {
	for _, bad := range []string{"", "scratch", "/scratch/", "/a/../b", "/scratch/**", "/a//b"} {
		_, err := policy.New(policy.Config{Rules: []policy.Rule{{Name: "r", Paths: []string{bad}}}})
		if e, ok := errors.AsType[*policy.RuleError](err); !ok || e.Field != "paths" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	_, err := policy.New(policy.Config{Rules: []policy.Rule{{Name: "r", When: `job.acount == "x"`}}})
	if e, ok := errors.AsType[*policy.RuleError](err); !ok || e.Field != "when" {
		t.Errorf("%v", err)
	}
}
