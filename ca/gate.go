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
		return c, a.mustAccept(ctx, v, act.Except, c.index, v.in(KeyActive))
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
	for _, i := range keys {
		if i < 0 {
			continue
		}
		if err := a.mustAnswer(ctx, v, except, v.Keys[i], Accepted); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) mustRefuse(ctx context.Context, v *ringView, except []string, key int) error {
	return a.mustAnswer(ctx, v, except, v.Keys[key], Refused)
}

// mustAnswer looks at the last answer of every node, which must be to the bundle
// as it is published now.
func (a *Authority) mustAnswer(ctx context.Context, v *ringView, except []string, k ringKey, want Outcome) error {
	nodes, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	if err := checkExcept(nodes, except); err != nil {
		return err
	}
	if len(nodes) == 0 && !slices.Contains(except, "*") {
		return refuseStep("configure the systems, or take the proof upon yourself with --except '*' --reason", "no login node is known that could be asked")
	}
	var missing []string
	for _, n := range nodes {
		if isExcepted(n.Node, except) {
			continue
		}
		answer := n.Keys[k.fingerprint()]
		fresh := n.Version == v.Version && time.Since(answer.At) < evidenceAge
		switch {
		case answer.Outcome == "" || !fresh:
			missing = append(missing, n.Address+" (not asked since the bundle changed)")
		case answer.Outcome != want:
			missing = append(missing, n.Address+" ("+string(answer.Outcome)+")")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return refuseStep("run 'sallyport ca probe' once the nodes have bundle "+fmt.Sprint(v.Version)+", or --except NODE --reason TEXT",
		"%s, which is %s, is to be %s on every node, and there is no proof for %s", k.fingerprint(), k.State, want, strings.Join(missing, ", "))
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
