package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sallyport/httpapi/firecrest"
	"sallyport/policy"
)

const policyTestLong = `Explain what the policy of a configuration file decides about a call, rule by rule.
No service needs to run; an OpenFGA server that is configured is asked.

  sallyport policy test --operation exec --system daint --user alice --groups staff
  sallyport policy test --operation compute.submit --system daint --claims token.jwt --job-account proj
  sallyport policy test --operation transfer.cp --system daint --user alice --tree --path /home/alice/x --path /scratch/x

--claims takes the claims as JSON, or a whole token, whose signature is not checked:
the issuer that its "iss" names says where the login is. Flags overrule claims.
The exit code is 0 if the call is allowed and 1 if not.`

func newPolicy(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Explain who may ask for what", GroupID: "admin", Args: refuseUnknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{Use: "operations", Short: "List the calls that rules can name", Args: exactArgs()}
	list.RunE = func(*cobra.Command, []string) error {
		for _, name := range operations() {
			fmt.Fprintln(s.out, name)
		}
		return nil
	}
	cmd.AddCommand(newPolicyTest(s), list)
	return cmd
}

// A policyCase is a call that might come.
type policyCase struct {
	caller policy.Caller
	act    policy.Act
	groups []string
	claims string // file
	paths  []string
}

func newPolicyTest(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "test", Short: "Explain one decision", Args: exactArgs(), Long: policyTestLong}
	config, form := configFlag(cmd, s), outputFlag(cmd)
	var c policyCase
	flags := cmd.Flags()
	flags.StringVar(&c.act.Operation, "operation", "", `name of the call; "sallyport policy operations" lists them`)
	flags.StringVar(&c.act.System, "system", "", "name of the system, if the call is for one")
	flags.StringVar(&c.act.Method, "method", "POST", "method of the request")
	flags.StringVar(&c.act.Address, "address", "192.0.2.1", "IP address of the client")
	flags.StringVar(&c.caller.User, "user", "", "login of the caller")
	flags.StringVar(&c.caller.Issuer, "issuer", "", "alias of the token's issuer (default: the one that the claims name, or the first)")
	flags.StringVar(&c.caller.Subject, "subject", "", `"sub" of the token`)
	flags.StringVar(&c.caller.Client, "client", "", `"azp" or "client_id" of the token`)
	flags.StringSliceVar(&c.caller.Scopes, "scopes", nil, "scopes of the token, separated by commas")
	flags.StringSliceVar(&c.groups, "groups", nil, "members of policy.groups_claim, separated by commas")
	flags.StringSliceVar(&c.paths, "path", nil, "path that the call names, as the node resolves it; twice if it names two")
	flags.BoolVar(&c.act.Tree, "tree", false, "the call reaches what lies below its paths too, as a removal does")
	c.jobFlags(flags)
	flags.StringVar(&c.claims, "claims", "", `file with the claims in JSON, or with a token; "-" is standard input`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := loadConfig(*config, s.getenv)
		if err != nil {
			return err
		}
		if err := c.complete(s, f); err != nil {
			return err
		}
		c.jobOpen(flags)
		return c.explain(cmd.Context(), f, s.out, *form == "json")
	}
	return cmd
}

// A policyAnswer is what is printed as JSON.
type policyAnswer struct {
	Rules   []policyStep `json:"rules"`
	Allowed bool         `json:"allowed"`
	// Commands says whether the caller may run commands on the system; it is left out of
	// calls that are for none.
	Commands *bool `json:"commands,omitempty"`
	// DeniedBy is the rule, or "default", "openfga" or "commands", that denies.
	DeniedBy string `json:"denied_by,omitempty"`
	Message  string `json:"message,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

type policyStep struct {
	Rule   string `json:"rule"`
	Effect string `json:"effect"`
	Result string `json:"result"`
}

func (c *policyCase) explain(ctx context.Context, f File, out io.Writer, asJSON bool) error {
	var d daemon
	defer d.close() //nolint:errcheck // idle connections
	p, err := d.openPolicy(f)
	if err != nil {
		return err
	}
	answer := policyAnswer{Rules: []policyStep{}, Allowed: true}
	if p != nil {
		var steps []policy.Step
		steps, err = p.Explain(ctx, c.caller, c.act)
		for _, step := range steps {
			answer.Rules = append(answer.Rules, stepOf(step))
		}
		answer.decided(err)
		if err := c.explainCommands(ctx, p, &answer); err != nil {
			return err
		}
	}
	if asJSON {
		if err := printJSON(out, answer); err != nil {
			return err
		}
	} else if err := answer.print(out); err != nil {
		return err
	}
	if !answer.Allowed {
		return fmt.Errorf("%q would not be allowed", c.act.Operation)
	}
	return nil
}

// explainCommands adds what becomes of an allowed call of who may run no commands.
func (c *policyCase) explainCommands(ctx context.Context, p *policy.Policy, answer *policyAnswer) error {
	if !answer.Allowed || c.act.System == "" {
		return nil
	}
	may, err := p.CallerMayRunCommands(ctx, c.caller, c.act)
	if err != nil {
		return err
	}
	answer.Commands = &may
	if !may && slices.Contains(firecrest.Commands(), c.act.Operation) {
		answer.Allowed, answer.DeniedBy = false, "commands"
		answer.Reason = "it needs a command on the node, and the caller may run none (commands_denied)"
	}
	return nil
}

func stepOf(step policy.Step) policyStep {
	line := policyStep{Rule: step.Rule, Effect: "allow", Result: "another " + step.Differs}
	if step.Deny {
		line.Effect = "deny"
	}
	switch {
	case step.Err != nil:
		line.Result = "failed: " + step.Err.Error()
	case step.Matched:
		line.Result = "matches"
	case step.Differs == "when":
		line.Result = "when is false"
	}
	return line
}

func (a *policyAnswer) decided(err error) {
	if err == nil {
		return
	}
	a.Allowed, a.Reason = false, err.Error()
	if denied, ok := errors.AsType[*policy.DeniedError](err); ok {
		a.DeniedBy, a.Message = denied.Rule, denied.Message
	}
}

func (a *policyAnswer) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if len(a.Rules) == 0 {
		fmt.Fprintln(table, "there are no rules")
	} else {
		fmt.Fprintln(table, "RULE\tEFFECT\tRESULT")
	}
	for _, r := range a.Rules {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Rule, r.Effect, r.Result)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if a.Allowed && a.Commands != nil && !*a.Commands {
		_, err := fmt.Fprintln(out, "allowed, over SFTP: the caller may run no commands on the system")
		return err
	}
	if a.Allowed {
		_, err := fmt.Fprintln(out, "allowed")
		return err
	}
	fmt.Fprintln(out, "denied: "+a.Reason)
	if a.Message != "" {
		fmt.Fprintln(out, "the caller is told: "+a.Message)
	}
	return nil
}

// complete checks the flags, and fills in what the claims say.
func (c *policyCase) complete(s streams, f File) error {
	if !slices.Contains(operations(), c.act.Operation) {
		return usageError{fmt.Errorf("--operation %q is none of those that 'sallyport policy operations' lists", c.act.Operation)}
	}
	c.caller.Claims = map[string]any{}
	if c.claims != "" {
		claims, err := readClaims(s, c.claims)
		if err != nil {
			return err
		}
		c.caller.Claims = claims
	}
	issuer, err := issuerOf(f, c.caller.Issuer, c.caller.Claims)
	if err != nil {
		return err
	}
	fill := func(field *string, path string) {
		if text, ok := claimAt(c.caller.Claims, path).(string); ok && *field == "" {
			*field = text
		}
	}
	c.caller.Issuer = issuer.Alias
	fill(&c.caller.User, issuer.LoginClaim)
	fill(&c.caller.Subject, "sub")
	fill(&c.caller.Client, "azp")
	fill(&c.caller.Client, "client_id")
	if c.caller.User == "" {
		return usageError{errors.New("--user, or --claims with a login, is required")}
	}
	if len(c.groups) > 0 {
		setClaim(c.caller.Claims, f.Policy.GroupsClaim, c.groups)
	}
	return nil
}
