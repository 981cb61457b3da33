// Package policy decides what a caller whose token is good may ask for: by rules in
// order, of which the first that matches counts, and by an OpenFGA server where a
// site has one.
//
// Guarantees. What no rule matches is denied once there is a rule. An expression that
// fails, for want of a claim or because it costs too much, denies; so does a server
// that does not answer, or answers anything but a plain yes. Every rule is checked
// before the first decision, with the column of each mistake.
//
// Threats. A provider writes the claims of a token, and lets users write some of them:
// they are bounded, and expressions are evaluated at a bounded cost. Nothing of the
// token but the login goes to the OpenFGA server.
//
// Caveats. A policy is about requests. Who may run commands, or has a certificate, may
// do on a node all that the node allows them, whatever is denied of files and jobs. Rules see
// the paths that a call names and the parameters of the job that it submits; not what a
// job does, which may submit others.
package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/identity"
)

var (
	// ErrDenied is wrapped by every [*DeniedError].
	ErrDenied = errors.New("policy does not allow it")
	// ErrUnavailable says that no decision could be had. Nothing is allowed then.
	ErrUnavailable = errors.New("no decision could be had")
)

// certificates begins the names of operations that give certificates. Those are good on
// every system, so that they have a relation of their own.
const certificates = "certificates."

// A DeniedError says which rule denied a request.
type DeniedError struct {
	// Rule is the name of the rule, or "default", or "openfga".
	Rule string
	// Message is the rule's text for the caller; it may be empty.
	Message string
	// Err is why the rule could not be evaluated; nil if it could. It is for logs.
	Err error
}

func (e *DeniedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%v: rule %q failed: %v", ErrDenied, e.Rule, e.Err)
	}
	return fmt.Sprintf("%v: rule %q", ErrDenied, e.Rule)
}

// Unwrap returns ErrDenied.
func (e *DeniedError) Unwrap() error { return ErrDenied }

// A Rule allows or denies what it matches. An empty list matches anything; a list
// matches if one of its members does.
type Rule struct {
	// Name is for logs and audit records. It must be unique.
	Name string
	// Deny makes the rule deny; otherwise it allows.
	Deny bool
	// Operations are names such as "compute.submit", or "compute.*" for all of a kind.
	Operations []string
	// Systems are names of systems. A request that is for none matches no such list.
	Systems []string
	// Issuers are aliases of issuers, Users logins, Clients those of "azp" or
	// "client_id", Groups members of the configured claim.
	Issuers, Users, Clients, Groups []string
	// Paths are folders, absolute and clean, as the node resolves them or as the
	// configuration has file systems begin. A call matches if its path is one of them or below.
	Paths []string
	// When is a CEL expression that must be true; see docs/policy.md. Empty is true.
	When string
	// Message is told to who is denied.
	Message string
}

// Config is a whole policy.
type Config struct {
	Rules []Rule
	// AllowByDefault allows what no rule matches.
	AllowByDefault bool
	// GroupsClaim is the claim with the caller's groups, a list of strings or one
	// string; dots go into nested claims. Empty means "groups".
	GroupsClaim string
	// Operations and Systems are all that exist. Rules may name no others.
	Operations, Systems []string
	// Powers are the operations of which one is enough to run commands.
	Powers []Power
	// Relations, if set, is asked about each request that the rules allow.
	Relations *OpenFGA
}

// A Policy decides. It is safe for concurrent use.
type Policy struct {
	rules     []rule
	allow     bool
	groups    []string // path of the claim
	systems   []string
	powers    []Power
	relations *OpenFGA
}

// A Caller is what rules are about.
type Caller struct {
	// User is the login, Issuer the alias of the token's issuer, Client "azp" or
	// "client_id".
	User, Issuer, Subject, Client string
	Scopes                        []string
	// Claims are those of the token, as [identity.Identity.Claims] has them.
	Claims map[string]any
}

// CallerOf is the caller that a token proved.
func CallerOf(id identity.Identity) Caller {
	return Caller{
		User: id.Login(), Issuer: id.Alias(), Subject: id.Subject(), Client: id.Client(), Scopes: id.Scopes(), Claims: id.Claims(),
	}
}

// Authorize is nil if the caller may do it; otherwise a [*DeniedError], or
// [ErrUnavailable] if the OpenFGA server was needed and gave no decision. An act that is pending
// may give [ErrPending].
func (p *Policy) Authorize(ctx context.Context, id identity.Identity, act Act) error {
	return p.authorize(ctx, CallerOf(id), act)
}

func (p *Policy) authorize(ctx context.Context, caller Caller, act Act) error {
	undecided := p.decide(caller, act)
	if undecided != nil && !errors.Is(undecided, ErrPending) {
		return undecided
	}
	allowed, err := p.related(ctx, caller.User, act)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !allowed {
		return &DeniedError{Rule: "openfga"}
	}
	return undecided
}

// related goes by the relations alone. What names no system that exists is no object of
// any, so it is refused unasked, in the same words as a system that the caller may not use.
func (p *Policy) related(ctx context.Context, login string, act Act) (bool, error) {
	switch {
	case p.relations == nil:
		return true, nil
	case act.System == "" && strings.HasPrefix(act.Operation, certificates):
		return p.relations.CheckCertificate(ctx, login)
	case act.System == "":
		return p.relations.CheckService(ctx, login)
	case !slices.Contains(p.systems, act.System):
		return false, nil
	}
	return p.relations.Check(ctx, login, act.System)
}

// Probe says what of the OpenFGA server's model keeps it from deciding; nil without one.
func (p *Policy) Probe(ctx context.Context) error {
	if p.relations == nil {
		return nil
	}
	return p.relations.Probe(ctx, p.systems)
}

// decide goes by the rules alone, once for each path of a call that has several.
func (p *Policy) decide(caller Caller, act Act) error {
	for i := range max(1, len(act.Paths)) {
		if err := p.decideOne(p.newInput(caller, act, i)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) newInput(caller Caller, act Act, index int) *input {
	in := &input{caller: caller, act: act, groupsPath: p.groups}
	if index < len(act.Paths) {
		in.path = act.Paths[index]
	}
	return in
}

// decideOne is three-valued while an act is pending: a rule may match, not match, or do so
// depending on what is not known. It denies at once only what is denied in every case.
func (p *Policy) decideOne(in *input) error {
	pending := false // a rule that denies may match
	for _, r := range p.rules {
		switch step := r.judge(in); {
		case step.Err != nil:
			return &DeniedError{Rule: r.Name, Err: step.Err}
		case step.Pending && r.Deny:
			pending = true
		case step.Pending:
			return ErrPending
		case step.Matched && r.Deny:
			return &DeniedError{Rule: r.Name, Message: r.Message}
		case step.Matched && pending:
			return ErrPending
		case step.Matched:
			return nil
		}
	}
	switch {
	case len(p.rules) > 0 && !p.allow:
		return &DeniedError{Rule: "default"}
	case pending:
		return ErrPending
	}
	return nil
}

// A Step is what became of one rule.
type Step struct {
	Rule    string
	Deny    bool
	Matched bool
	// Differs is what did not match: "operation", "system", "issuer", "user", "client",
	// "group", "path" or "when".
	Differs string
	// Pending says that it depends on paths or job parameters which are not known yet.
	Pending bool
	// Err is why the expression could not be evaluated.
	Err error
}

// Explain returns what becomes of each rule until one decides, for the first path that is not
// allowed or else the last, and what Authorize would return.
func (p *Policy) Explain(ctx context.Context, caller Caller, act Act) ([]Step, error) {
	var steps []Step
	for i := range max(1, len(act.Paths)) {
		in := p.newInput(caller, act, i)
		steps = nil
		for _, r := range p.rules {
			step := r.judge(in)
			steps = append(steps, step)
			if step.Matched || step.Err != nil {
				break
			}
		}
		if p.decideOne(in) != nil {
			break
		}
	}
	return steps, p.authorize(ctx, caller, act)
}
