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
// do on a node all that the node allows him, whatever is denied of files and jobs. Paths
// and other parameters are no part of a decision: which folders an API touches is the
// configuration's matter, and what is in them the node's.
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

// An Act is what a caller asks for.
type Act struct {
	// Operation is one of [Config.Operations].
	Operation string
	// System is empty if the operation is for none.
	System string
	// Method is that of HTTP, Address where the request comes from, as an IP address.
	Method, Address string
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
// [ErrUnavailable] if the OpenFGA server was needed and gave no decision.
func (p *Policy) Authorize(ctx context.Context, id identity.Identity, act Act) error {
	return p.authorize(ctx, CallerOf(id), act)
}

func (p *Policy) authorize(ctx context.Context, caller Caller, act Act) error {
	if err := p.decide(caller, act); err != nil {
		return err
	}
	allowed, err := p.related(ctx, caller.User, act)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !allowed {
		return &DeniedError{Rule: "openfga"}
	}
	return nil
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

// decide goes by the rules alone.
func (p *Policy) decide(caller Caller, act Act) error {
	in := &input{caller: caller, act: act, groupsPath: p.groups}
	for _, r := range p.rules {
		switch step := r.judge(in); {
		case step.Err != nil:
			return &DeniedError{Rule: r.Name, Err: step.Err}
		case step.Matched && r.Deny:
			return &DeniedError{Rule: r.Name, Message: r.Message}
		case step.Matched:
			return nil
		}
	}
	if len(p.rules) == 0 || p.allow {
		return nil
	}
	return &DeniedError{Rule: "default"}
}

// A Step is what became of one rule.
type Step struct {
	Rule    string
	Deny    bool
	Matched bool
	// Differs is what did not match: "operation", "system", "issuer", "user", "client",
	// "group" or "when".
	Differs string
	// Err is why the expression could not be evaluated.
	Err error
}

// Explain returns what becomes of each rule until one decides, and what Authorize would
// return.
func (p *Policy) Explain(ctx context.Context, caller Caller, act Act) ([]Step, error) {
	var steps []Step
	in := &input{caller: caller, act: act, groupsPath: p.groups}
	for _, r := range p.rules {
		step := r.judge(in)
		steps = append(steps, step)
		if step.Matched || step.Err != nil {
			break
		}
	}
	return steps, p.authorize(ctx, caller, act)
}
