package ca

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// evidenceAge is how long an answer of a node proves something.
const evidenceAge = 15 * time.Minute

// permit finds what speaks against an act, apart from the rules of the ring itself.
func (a *Authority) permit(ctx context.Context, v *ringView, act Act) (change, error) {
	if len(act.Except) > 0 || act.AllowFile || act.Step == StepCompromise {
		if strings.TrimSpace(act.Actor.Reason) == "" {
			return change{}, refuseStep("give --reason", "this is not done without a reason")
		}
	}
	switch act.Step {
	case StepStage:
		return change{}, a.permitStage(v, act)
	case StepPublish:
		return choose(v, act, publish, KeyStaged)
	case StepAbandon:
		return choose(v, act, abandon, KeyPending, KeyStaged)
	case StepCompromise:
		return choose(v, act, compromise)
	case StepRollback:
		c, err := choose(v, act, rollback, KeyRetiring)
		return c, mustHold(v, c, err)
	case StepActivate:
		c, err := choose(v, act, activate, KeyPending)
		if err := mustHold(v, c, err); err != nil {
			return c, err
		}
		active := v.in(KeyActive)
		if active < 0 {
			return c, a.mustAccept(ctx, v, act.Except, c.index) // nobody can log in: there is nothing to be careful with
		}
		return c, a.mustAcceptTwice(ctx, v, act.Except, c.index, active)
	case StepRetire:
		return a.permitRetire(ctx, v, act)
	}
	return change{}, refuseStep("see 'sallyport ca --help'", "there is no step %q", clip(act.Step))
}

// choose finds the key of an act.
func choose(v *ringView, act Act, m move, states ...KeyState) (change, error) {
	if act.Key == "" && len(states) == 0 {
		return change{}, refuseStep("name it by its fingerprint", "it is not said which key")
	}
	i, err := v.find(act.Key, states...)
	if err != nil {
		return change{}, err
	}
	return change{move: m, index: i, key: v.Keys[i].fingerprint()}, nil
}

func mustHold(v *ringView, c change, err error) error {
	if err == nil && v.held[c.key] == nil {
		err = refuseStep("restore it from a backup, or abandon the key", "the private key of %s cannot be had", c.key)
	}
	return err
}

func (a *Authority) permitStage(v *ringView, act Act) error {
	if a.ring.keys == nil {
		return refuseStep("see ca.key", "there is no folder for further keys")
	}
	if act.Name == "" && !act.AllowFile && a.ring.inAgent(v) {
		return refuseStep("give --key agent:/path/to/socket#SHA256:…, or consent with --allow-file-key and --reason",
			"the CA key is in an ssh-agent, and the new one would be in a file")
	}
	for _, k := range v.Keys {
		waiting := k.State == KeyPending || k.State == KeyStaged && !k.Standby
		spare := k.State == KeyStandby || k.State == KeyStaged && k.Standby
		if waiting && !act.Standby || spare && act.Standby {
			return refuseStep("publish, activate or abandon it first", "key %s is %s", k.fingerprint(), k.State)
		}
	}
	return nil
}

// permitRetire decides between both halves of retiring: out of the bundle once no
// certificate of the key is valid, and the end once no node trusts it.
func (a *Authority) permitRetire(ctx context.Context, v *ringView, act Act) (change, error) {
	c, err := choose(v, act, remove, KeyRetiring)
	if err != nil {
		return c, err
	}
	k := v.Keys[c.index]
	if k.State != KeyRetiring {
		return c, refuseStep("activate another key first", "key %s is %s", c.key, k.State)
	}
	active := v.in(KeyActive)
	if !k.Published {
		c.move = end
		if v.held[c.key] == nil {
			return c, a.mustAccept(ctx, v, act.Except, active) // there is nothing to ask with
		}
		if err := a.mustRefuse(ctx, v, act.Except, c.index); err != nil {
			return c, err
		}
		return c, a.mustAccept(ctx, v, act.Except, active)
	}
	use, err := a.ledgerUse(ctx)
	if err != nil {
		return c, err
	}
	if until := a.drainEnd(k, use[c.key]); time.Now().Before(until) {
		return c, refuseStep("wait until "+until.Format(time.RFC3339), "certificates of %s may be valid until then, on nodes whose clock is late", c.key)
	}
	return c, a.mustAccept(ctx, v, act.Except, active)
}

// use is what the ledger has of one CA key.
type use struct {
	valid int       // certificates that have not expired
	until time.Time // when the last of all expires
}

// ledgerUse reads the whole ledger. Probes are left out: they go on while a key
// drains, and nobody misses one.
func (a *Authority) ledgerUse(ctx context.Context) (map[string]use, error) {
	all, now := make(map[string]use), time.Now()
	for row, err := range a.Ledger(ctx) {
		if err != nil {
			return nil, fmt.Errorf("%w: drain time: %w", ErrUnavailable, err)
		}
		if row.Profile == profileProbe {
			continue
		}
		u := all[row.CA]
		if row.ValidBefore.After(now) {
			u.valid++
		}
		if row.ValidBefore.After(u.until) {
			u.until = row.ValidBefore
		}
		all[row.CA] = u
	}
	return all, nil
}

// drainEnd is when the last certificate of a retiring key has expired on every
// node, as the ledger knows it: today's configuration may be shorter than the one
// that it was issued under.
func (a *Authority) drainEnd(k ringKey, u use) time.Time {
	last := k.RetiringAt
	if u.until.After(last) {
		last = u.until
	}
	return last.Add(a.rotation.MaxSkew + a.rotation.PullInterval)
}

// mustAccept wants proof that every node accepts the keys; an index below 0 is
// none.
func (a *Authority) mustAccept(ctx context.Context, v *ringView, except []string, keys ...int) error {
	return a.mustAnswer(ctx, v, except, proof{want: Accepted}, keys...)
}

// mustAcceptTwice wants that proof from two rounds, between which every node has
// fetched the bundle again: one that two sources feed in turn, or that an
// administrator has changed by hand, shows itself then.
func (a *Authority) mustAcceptTwice(ctx context.Context, v *ringView, except []string, keys ...int) error {
	return a.mustAnswer(ctx, v, except, proof{want: Accepted, lasting: a.rotation.PullInterval}, keys...)
}

func (a *Authority) mustRefuse(ctx context.Context, v *ringView, except []string, key int) error {
	return a.mustAnswer(ctx, v, except, proof{want: Refused}, key)
}

// A proof is what nodes must have answered, and for how long.
type proof struct {
	want    Outcome
	lasting time.Duration
}

// lacks says what an answer lacks, and until when if only time is; "" if nothing.
func (p proof) lacks(answer KeyProbe, sameBundle bool) (what string, until time.Time) {
	switch {
	case answer.Outcome == "" || !sameBundle || time.Since(answer.At) >= evidenceAge:
		return "not asked since the bundle changed", time.Time{}
	case answer.Outcome != p.want:
		return string(answer.Outcome), time.Time{}
	case answer.At.Sub(answer.Since) < p.lasting:
		until = answer.Since.Add(p.lasting)
		return string(p.want) + ", and asked again after " + until.Format(time.TimeOnly), until
	}
	return "", time.Time{}
}

// mustAnswer looks at the last answers of every node, which must be to the bundle
// as it is published now.
func (a *Authority) mustAnswer(ctx context.Context, v *ringView, except []string, p proof, keys ...int) error {
	nodes, err := a.Nodes(ctx)
	if err != nil {
		return err
	}
	if err := checkExcept(nodes, except); err != nil {
		return err
	}
	if len(nodes) == 0 && !slices.Contains(except, "*") {
		return refuseStep("configure the systems, or take the proof upon yourself with --except '*' --reason", "no login node is known that could be asked")
	}
	var waiting *StepError
	for _, i := range keys {
		if i < 0 {
			continue
		}
		refusal := lacking(v, nodes, except, p, v.Keys[i])
		switch {
		case refusal == nil:
		case refusal.until.IsZero():
			return refusal
		case waiting == nil || refusal.until.After(waiting.until):
			waiting = refusal
		}
	}
	if waiting != nil {
		return waiting
	}
	return nil
}

// lacking says which nodes have not proved what is wanted of one key; nil: none. It
// is a matter of time only if it is so with all of them.
func lacking(v *ringView, nodes []NodeStatus, except []string, p proof, k ringKey) *StepError {
	var missing []string
	var until time.Time
	onlyTime := true
	for _, n := range nodes {
		if isExcepted(n.Node, except) {
			continue
		}
		what, later := p.lacks(n.Keys[k.fingerprint()], n.Version == v.Version)
		if what == "" {
			continue
		}
		missing = append(missing, n.Address+" ("+what+")")
		onlyTime = onlyTime && !later.IsZero()
		if later.After(until) {
			until = later
		}
	}
	if len(missing) == 0 {
		return nil
	}
	e := &StepError{
		Reason: fmt.Sprintf("%s, which is %s, is to be %s on every node, and there is no proof for %s", k.fingerprint(), k.State, p.want, strings.Join(missing, ", ")),
		Remedy: fmt.Sprintf("run 'sallyport ca probe' once the nodes have bundle %d, or --except NODE --reason TEXT", v.Version),
	}
	if onlyTime {
		e.until = until
	}
	return e
}

// checkExcept refuses an exception for a node that there is not: a typing error
// would otherwise pass for a decision.
func checkExcept(nodes []NodeStatus, except []string) error {
	for _, name := range except {
		if name != "*" && !slices.ContainsFunc(nodes, func(n NodeStatus) bool { return isExcepted(n.Node, []string{name}) }) {
			return refuseStep("see 'sallyport ca status' for their names", "there is no node %q", clip(name))
		}
	}
	return nil
}

func isExcepted(n Node, except []string) bool {
	host, _, err := net.SplitHostPort(n.Address)
	return slices.ContainsFunc(except, func(name string) bool {
		return name == "*" || name == n.Address || err == nil && name == host
	})
}
