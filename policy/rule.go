package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A RuleError is a mistake in a rule.
type RuleError struct {
	// Index is the rule's place in [Config.Rules], from 0.
	Index int
	// Field is "name", "operations", "systems", "paths" or "when".
	Field string
	// Detail says what is wrong; for an expression with its line and column.
	Detail string
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("policy: rule %d: %s: %s", e.Index+1, e.Field, e.Detail)
}

// A rule is a Rule that was checked.
type rule struct {
	Rule
	when condition
}

// New checks cfg. Its error joins a [*RuleError] for each mistake.
func New(cfg Config) (*Policy, error) {
	env, err := newEnvironment()
	if err != nil {
		return nil, err
	}
	claim := cfg.GroupsClaim
	if claim == "" {
		claim = "groups"
	}
	p := &Policy{
		allow: cfg.AllowByDefault, groups: strings.Split(claim, "."), systems: cfg.Systems, powers: slices.Clone(cfg.Powers),
		relations: cfg.Relations,
	}
	var mistakes []error
	seen := map[string]bool{"default": true, "openfga": true}
	for i, r := range cfg.Rules {
		refuse := func(field, format string, args ...any) {
			mistakes = append(mistakes, &RuleError{Index: i, Field: field, Detail: fmt.Sprintf(format, args...)})
		}
		if r.Name == "" || seen[r.Name] {
			refuse("name", "%q is empty, or that of another rule, or \"default\" or \"openfga\"", r.Name)
		}
		seen[r.Name] = true
		for _, name := range r.Operations {
			if !slices.ContainsFunc(cfg.Operations, func(known string) bool { return covers(name, known) }) {
				refuse("operations", "%q is no operation; \"sallyport policy operations\" lists them", name)
			}
		}
		for _, name := range r.Systems {
			if !slices.Contains(cfg.Systems, name) {
				refuse("systems", "%q is no system; there are: %s", name, cmp.Or(strings.Join(cfg.Systems, ", "), "none"))
			}
		}
		for _, folder := range r.Paths {
			if !cleanPath(folder) {
				refuse("paths", "%q is no absolute path without \"..\", \"*\" and a slash at its end; all below a folder belongs to it", folder)
			}
		}
		when, detail := compile(env, r.When)
		if detail != "" {
			refuse("when", "%s", detail)
		}
		p.rules = append(p.rules, rule{Rule: r, when: when})
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	return p, nil
}

// covers says whether the pattern of a rule, a name or a kind with ".*", means name.
func covers(pattern, name string) bool {
	if kind, ok := strings.CutSuffix(pattern, "*"); ok && (kind == "" || strings.HasSuffix(kind, ".")) {
		return strings.HasPrefix(name, kind)
	}
	return pattern == name
}

// judge says whether a rule matches.
func (r rule) judge(in *input) Step {
	step := Step{Rule: r.Name, Deny: r.Deny}
	lists := []struct {
		of   string
		list []string
		has  func(string) bool
	}{
		{"operation", r.Operations, func(s string) bool { return covers(s, in.act.Operation) }},
		{"system", r.Systems, func(s string) bool { return s == in.act.System }},
		{"issuer", r.Issuers, func(s string) bool { return s == in.caller.Issuer }},
		{"user", r.Users, func(s string) bool { return s == in.caller.User }},
		{"client", r.Clients, func(s string) bool { return s == in.caller.Client }},
		{"group", r.Groups, func(s string) bool { return slices.Contains(in.groups(), s) }},
	}
	for _, l := range lists {
		if len(l.list) > 0 && !slices.ContainsFunc(l.list, l.has) {
			step.Differs = l.of
			return step
		}
	}
	if len(r.Paths) > 0 {
		about := func(prefix string) bool { return in.path.reaches(prefix, r.Deny && in.act.Tree) }
		switch {
		case in.act.Pending:
			step.Pending = true
		case in.path.Real == "" || !slices.ContainsFunc(r.Paths, about):
			step.Differs = "path"
			return step
		}
	}
	r.when.judge(in, &step)
	return step
}
