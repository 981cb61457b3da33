package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"sallyport/httpapi"
	"sallyport/httpapi/firecrest"
	"sallyport/internal/private"
	"sallyport/policy"
)

// maxServiceToken bounds the file of a token, in bytes.
const maxServiceToken = 16 << 10

// operations are the names of all calls that a policy can be about, whether or not
// the configuration has them served.
func operations() []string { return slices.Concat(httpapi.Operations(), firecrest.Operations()) }

// powers are the calls by which callers run code of their own on a system, or get a login
// that does. Without a CA there are no certificates to be had.
func powers(f File) []policy.Power {
	return slices.DeleteFunc(slices.Concat(httpapi.Powers(), firecrest.Powers()), func(p policy.Power) bool {
		return p.Anywhere && !f.CA.Enabled
	})
}

// warnOfHollowRules names the rules that allow what needs a command on a node to callers
// who may run none. It is no mistake: such a rule may be for others too.
func warnOfHollowRules(f File, log *slog.Logger) error {
	p, err := policy.New(policyConfig(f))
	if err != nil {
		return err
	}
	for _, a := range p.Advise(firecrest.Commands()) {
		log.Warn("a rule of the policy allows what needs a command on the node to callers who may run none: it will be denied (commands_denied)",
			slog.String("rule", a.Rule), slog.String("callers like those of", a.Callers), slog.String("calls", strings.Join(a.Operations, " ")))
	}
	return nil
}

// policyConfig is the policy of a file but for the OpenFGA server.
func policyConfig(f File) policy.Config {
	cfg := policy.Config{
		AllowByDefault: f.Policy.Default == "allow", GroupsClaim: f.Policy.GroupsClaim, Operations: operations(), Powers: powers(f),
	}
	for _, s := range f.Systems {
		cfg.Systems = append(cfg.Systems, s.Name)
	}
	for _, r := range f.Policy.Rules {
		cfg.Rules = append(cfg.Rules, policy.Rule{
			Name: r.Name, Deny: r.Effect == "deny", Operations: r.Operations, Systems: r.Systems, Issuers: r.Issuers,
			Users: r.Users, Clients: r.Clients, Groups: r.Groups, Paths: r.Paths, When: r.When, Message: r.Message,
		})
	}
	return cfg
}

func openfgaConfig(s OpenFGASection) policy.OpenFGAConfig {
	return policy.OpenFGAConfig{
		URL: s.URL, Store: s.Store, Model: s.Model, Relation: s.Relation, UserType: s.UserType, ObjectType: s.ObjectType,
		ServiceType: s.ServiceType, Service: s.Service, ServiceRelation: s.ServiceRelation, CertificateRelation: s.CertificateRelation,
		Timeout: s.Timeout, Remember: s.Remember,
	}
}

// checkPolicy compiles every rule.
func (d *decoder) checkPolicy(f *File) {
	aliases := map[string]bool{}
	for _, s := range f.Issuers {
		aliases[s.Alias] = true
	}
	for i, r := range f.Policy.Rules {
		for _, alias := range r.Issuers {
			if !aliases[alias] {
				d.fail(fmt.Sprintf("policy.rules[%d].issuers", i), "%q is the alias of no [[issuers]] table", alias)
			}
		}
	}
	_, err := policy.New(policyConfig(*f))
	for _, e := range leaves(err) {
		if m, ok := errors.AsType[*policy.RuleError](e); ok {
			d.fail(fmt.Sprintf("policy.rules[%d].%s", m.Index, m.Field), "%s", m.Detail)
			continue
		}
		d.fail("policy", "%v", e)
	}
	if f.Policy.OpenFGA.URL == "" {
		return
	}
	if _, err := policy.NewOpenFGA(openfgaConfig(f.Policy.OpenFGA)); err != nil {
		d.fail("policy.openfga", "%v", err)
	}
}

// leaves are the errors that were joined.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// openPolicy makes the policy; nil if the file has none.
func (d *daemon) openPolicy(f File) (*policy.Policy, error) {
	if len(f.Policy.Rules) == 0 && f.Policy.OpenFGA.URL == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	cfg := policyConfig(f)
	if f.Policy.OpenFGA.URL != "" {
		relations, err := openOpenFGA(f.Policy.OpenFGA)
		if err != nil {
			return nil, err
		}
		d.closers = append(d.closers, relations.Close)
		cfg.Relations = relations
	}
	return policy.New(cfg)
}

// probePolicy says in the log what the policy cannot do. It has the OpenFGA server asked once what it will be asked, so that a model
// which lacks something is told in the log before somebody is refused. The service starts
// all the same: login nodes need its files.
func (d *daemon) probePolicy(p *parts) {
	if p.policy == nil {
		return
	}
	if err := warnOfHollowRules(p.file, p.log); err != nil { // it was compiled before
		p.log.Error("the policy cannot be read", slog.Any("error", err))
	}
	d.background(func(ctx context.Context) {
		if err := p.policy.Probe(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("policy.openfga cannot decide, so that calls are refused (policy_unavailable); docs/policy.md has the model that it needs", slog.Any("error", err))
		}
	})
}

// checkOpenFGA reads the token; nothing is sent.
func checkOpenFGA(f File) error {
	if f.Policy.OpenFGA.URL == "" {
		return nil
	}
	relations, err := openOpenFGA(f.Policy.OpenFGA)
	if err != nil {
		return err
	}
	return relations.Close()
}

func openOpenFGA(s OpenFGASection) (*policy.OpenFGA, error) {
	cfg := openfgaConfig(s)
	if s.TokenFile != "" {
		token, err := private.ReadFile(s.TokenFile, maxServiceToken)
		if err != nil {
			return nil, fmt.Errorf("policy.openfga.token_file: %w", err)
		}
		cfg.Token = string(bytes.TrimSpace(token))
	}
	return policy.NewOpenFGA(cfg)
}
