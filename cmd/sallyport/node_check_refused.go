package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"sallyport/ca"
	"sallyport/sshd-config/nodesync"
)

// refusals are the accounts that nodes must refuse, and why that is asked.
type refusals struct {
	accounts []string
	reason   string
}

// findings tries to log in as each account.
func (r refusals) findings(ctx context.Context, s streams, config string, system SystemSection) (list []checked, err error) {
	if len(r.accounts) == 0 {
		return []checked{{Finding: nodesync.Finding{
			Check: "refused logins", Verdict: nodesync.Unknown, Detail: "no login was tried that nodes must refuse",
			Remedy: "give --refused root, and --refused ACCOUNT for a member of each denied group",
		}}}, nil
	}
	err = withRing(s, config, func(ring adminRing) error {
		answers, err := ring.ProbeRefusals(ctx, ca.Actor{UID: os.Getuid(), Reason: r.reason}, system.Name, r.accounts)
		if err != nil {
			return err
		}
		for _, a := range answers {
			if slices.Contains(system.Nodes, a.Address) {
				list = append(list, checked{a.Address, refusalFinding(a)})
			}
		}
		return nil
	})
	return list, err
}

func refusalFinding(a ca.RefusalAnswer) nodesync.Finding {
	f := nodesync.Finding{Check: "refused logins", Verdict: nodesync.Good, Detail: fmt.Sprintf("a certificate for %q is refused (as is one for an account that the node does not have)", a.Account)}
	switch a.Outcome {
	case ca.Refused:
	case ca.Accepted:
		f.Verdict, f.Detail = nodesync.Bad, fmt.Sprintf("a certificate for %q is ACCEPTED: this CA could log in as that account", a.Account)
		f.Remedy = "on the node, in the Match block for this service: PermitRootLogin no, DenyGroups with the system's groups, or AllowGroups; see 'sallyport sshd-config'"
	default:
		f.Verdict, f.Detail = nodesync.Unknown, fmt.Sprintf("whether %q is refused is not known: %s", a.Account, a.Detail)
	}
	return f
}
