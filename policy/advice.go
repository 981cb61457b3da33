package policy

import (
	"maps"
	"slices"
)

// Bounds of what [Policy.Advise] tries, so that a start takes no longer for a long policy.
const (
	maxAdvised        = 64
	maxAdvisedSystems = 16
)

// Advice is about a rule that promises more than it can keep: it allows operations that
// need a command on a node to callers who may run none.
type Advice struct {
	// Rule is the one that allows, Callers the one whose lists describe such a caller.
	Rule, Callers string
	// Operations are those that will be denied all the same.
	Operations []string
}

// Advise looks for rules that allow some of these operations, which need a command on a
// node, in vain. It tries a caller like those of each rule, and cannot evaluate "when": an
// expression counts as true if that makes a caller's rights greater.
func (p *Policy) Advise(commands []string) (all []Advice) {
	for _, like := range p.rules[:min(len(p.rules), maxAdvised)] {
		hollow := make(map[string]map[string]bool) // operations by rule
		for _, system := range p.systems[:min(len(p.systems), maxAdvisedSystems)] {
			if p.hasPower(like, system) {
				continue
			}
			for _, name := range commands {
				if rule, ok := p.allows(like, Act{Operation: name, System: system, Pending: true}); ok {
					if hollow[rule] == nil {
						hollow[rule] = make(map[string]bool)
					}
					hollow[rule][name] = true
				}
			}
		}
		for _, rule := range slices.Sorted(maps.Keys(hollow)) {
			all = append(all, Advice{Rule: rule, Callers: like.Name, Operations: slices.Sorted(maps.Keys(hollow[rule]))})
		}
	}
	return all
}

// hasPower says whether a caller like those of a rule can run commands on a system.
func (p *Policy) hasPower(like rule, system string) bool {
	return slices.ContainsFunc(p.powers, func(power Power) bool {
		act := Act{Operation: power.Operation, System: system, Pending: power.Detailed}
		if power.Anywhere {
			act.System = ""
		}
		_, ok := p.allows(like, act)
		return ok
	})
}

// allows returns the rule that allows a call of a caller like those of another one; the
// name is "default" if none does and all is allowed that no rule matches.
func (p *Policy) allows(like rule, act Act) (string, bool) {
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	in := &input{
		caller: Caller{User: first(like.Users), Issuer: first(like.Issuers), Client: first(like.Clients)},
		act:    act, of: like.Groups, grouped: true,
	}
	for _, r := range p.rules {
		if len(r.Paths) > 0 && !act.Pending {
			continue // such calls have no paths
		}
		sure := r.when.program == nil && len(r.Paths) == 0 || r.Name == like.Name
		r.when, r.Paths = condition{}, nil
		if !r.judge(in).Matched || r.Deny && !sure {
			continue
		}
		return r.Name, !r.Deny
	}
	return "default", len(p.rules) == 0 || p.allow
}
