package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/ca"
	"sallyport/executor"
)

// A Prober logs in on the nodes of the executor's systems to see which CA keys they
// trust. It knows each node by its own address, never by that of a balancer.
type Prober struct{ systems []executor.System }

var _ ca.Prober = (*Prober)(nil)

// NewProber returns a prober of the nodes and jump hosts of systems.
func NewProber(systems []executor.System) *Prober { return &Prober{systems} }

// Nodes lists every address once, under the first system that has it.
func (p *Prober) Nodes() []ca.Node {
	var nodes []ca.Node
	seen := make(map[string]bool)
	add := func(system, address string) {
		if address != "" && !seen[address] {
			seen[address] = true
			nodes = append(nodes, ca.Node{System: system, Address: address})
		}
	}
	for _, s := range p.systems {
		for _, address := range s.Nodes {
			add(s.Name, address)
		}
		add(s.Name, s.Jump)
	}
	return nodes
}

// Probe logs in. Only a refusal by the node itself, whose host key was verified, is
// ca.Refused.
func (p *Prober) Probe(ctx context.Context, node ca.Node, login ca.ProbeLogin) ca.ProbeAnswer {
	probe := executor.Probe{
		Address: node.Address, User: login.User, Signer: login.Signer, JumpSigner: login.Jump, Command: ca.ProbeCommand,
	}
	timeout := 10 * time.Second
	for _, s := range p.systems {
		if login.CountSessions && slices.Contains(s.Nodes, node.Address) { // of all systems that have it
			probe.CountTo = max(probe.CountTo, cmp.Or(s.MaxSessions, 10)+1)
		}
		if s.Name != node.System {
			continue
		}
		probe.KnownHosts = s.KnownHosts
		if s.Jump != node.Address {
			probe.Jump = s.Jump
		}
		if s.ConnectTimeout > 0 {
			timeout = s.ConnectTimeout
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	report, err := probe.Do(ctx)
	switch {
	case errors.Is(err, executor.ErrLoginRefused):
		return ca.ProbeAnswer{Outcome: ca.Refused, Detail: "the node refused the login"}
	case err != nil:
		return ca.ProbeAnswer{Outcome: ca.Unknown, Detail: fmt.Sprintf("%.300s", err)}
	}
	answer := ca.ProbeAnswer{Outcome: ca.Accepted, Sessions: report.Sessions}
	if seconds, err := strconv.ParseInt(strings.TrimSpace(string(report.Output)), 10, 64); err == nil {
		answer.Clock, answer.ClockAsked = time.Unix(seconds, 0), report.Ended
	}
	return answer
}
