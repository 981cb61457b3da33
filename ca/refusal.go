package ca

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

// A node's own rules are the last line: that root, and accounts of the system, cannot
// log in by a certificate even if one is made out to them. sshd checks
// PermitRootLogin at the end of a login only, so that nothing but a certificate for
// such an account proves it. This file is the only place that makes one, at an
// administrator's explicit word, and it is good for nothing else: it is limited to
// [RefusalCommand] and to the service's own addresses, ends after a minute, and
// its private key never leaves the function that asks the nodes.

const (
	// RefusalCommand is all that a certificate of a refusal probe can run.
	RefusalCommand = "/bin/false"
	// MaxRefusals bounds the accounts of one call: each costs the service's address a
	// refused login on every node (PerSourcePenalties, OpenSSH 9.8).
	MaxRefusals = 4

	refusalTTL      = time.Minute
	refusalBackdate = 30 * time.Second
)

// refusableName is an account of a node, root included.
var refusableName = regexp.MustCompile(`\A[a-z_][a-z0-9_-]{0,31}\z`)

// A RefusalAnswer says what a node did with a login that it must refuse.
type RefusalAnswer struct {
	Node
	Account string  `json:"account"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail,omitempty"`
}

// ProbeRefusals tries on each node to log in as each of the accounts. A refusal
// counts only if the node accepts the probe's account right before; otherwise the
// outcome is unknown. Empty system means all.
func (a *Authority) ProbeRefusals(ctx context.Context, actor Actor, system string, accounts []string) ([]RefusalAnswer, error) {
	if a.rotation.Prober == nil || a.rotation.ProbeUser == "" {
		return nil, refuseStep("set ca.rotation.probe_login to an account that exists on every node, and enable the executor", "nodes cannot be probed")
	}
	if err := a.checkRefusals(accounts); err != nil {
		return nil, err
	}
	if err := actor.Check(); err != nil {
		return nil, err
	}
	nodes := slices.DeleteFunc(a.rotation.Prober.Nodes(), func(n Node) bool { return system != "" && n.System != system })
	if len(nodes) == 0 {
		return nil, refuseStep("see 'sallyport ca status' for their names", "there is no node of system %q", clip(system))
	}
	key, err := a.ring.active(ctx)
	if err != nil {
		return nil, err
	}
	act := audit.Event{Action: audit.AdminAct, Outcome: audit.Unknown, Detail: map[string]string{
		"act": "ca.probe_refusals", "uid": strconv.Itoa(actor.UID), "accounts": strings.Join(accounts, ","), "act_reason": clipDetail(actor.Reason),
	}}
	if err := a.record(ctx, act); err != nil {
		return nil, err
	}
	logins, err := a.refusalLogins(ctx, key, accounts)
	if err != nil {
		return nil, err
	}
	return a.askRefusals(ctx, nodes, logins), nil
}

func (a *Authority) checkRefusals(accounts []string) error {
	if len(accounts) == 0 || len(accounts) > MaxRefusals {
		return refuseStep(fmt.Sprintf("name 1 to %d", MaxRefusals), "%d accounts are named", len(accounts))
	}
	for _, name := range accounts {
		if !refusableName.MatchString(name) {
			return refuseStep("it is 1 to 32 of a-z, 0-9, '_' and '-'", "%q is no account name", clip(name))
		}
		if name == a.rotation.ProbeUser {
			return refuseStep("name one that may never log in", "%q is the account of the probes", name)
		}
	}
	return nil
}

// refusalLogins makes a login of the probe's account, as the first, and one of each
// account that must be refused.
func (a *Authority) refusalLogins(ctx context.Context, key signingKey, accounts []string) ([]ProbeLogin, error) {
	request := audit.NewRequestID()
	jump, err := a.issueProbe(ctx, key, request, probeCertificate{extensions: map[string]string{"permit-port-forwarding": ""}})
	if err != nil {
		return nil, err
	}
	control, err := a.issueProbe(ctx, key, request, probeCertificate{})
	if err != nil {
		return nil, err
	}
	logins := []ProbeLogin{{User: a.rotation.ProbeUser, Signer: control, Jump: jump}}
	for _, account := range accounts {
		signer, err := a.issueRefusal(ctx, key, request, account)
		if err != nil {
			return nil, err
		}
		logins = append(logins, ProbeLogin{User: account, Signer: signer, Jump: jump})
	}
	return logins, nil
}

// issueRefusal has no parameter by which its certificate could do more.
func (a *Authority) issueRefusal(ctx context.Context, key signingKey, request, account string) (ssh.Signer, error) {
	plain, err := newProbeKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	d := &draft{
		profile: profileProbe, key: plain.PublicKey(), serial: newSerial(), keyID: "v1:refusal::" + account + ":" + request,
		principals: []string{account}, options: a.probeOptions(RefusalCommand),
		validAfter: uint64(now.Add(-refusalBackdate).Unix()), validBefore: uint64(now.Add(refusalTTL - refusalBackdate).Unix()), //nolint:gosec // after 1970
	}
	cert, err := a.issue(ctx, d, key, request)
	if err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, plain)
}

func (a *Authority) askRefusals(ctx context.Context, nodes []Node, logins []ProbeLogin) []RefusalAnswer {
	answers := make([][]RefusalAnswer, len(nodes))
	eachNode(nodes, func(i int, node Node) {
		control := a.rotation.Prober.Probe(ctx, node, logins[0])
		for _, login := range logins[1:] {
			answer := ProbeAnswer{Outcome: Unknown, Detail: "the probe's account was not accepted: " + control.Detail}
			if control.Outcome == Accepted {
				answer = a.rotation.Prober.Probe(ctx, node, login)
			}
			answers[i] = append(answers[i], RefusalAnswer{Node: node, Account: login.User, Outcome: answer.Outcome, Detail: clipDetail(answer.Detail)})
		}
	})
	return slices.Concat(answers...)
}
