package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxProbeOutput bounds what is read of a probe's command, in bytes.
const maxProbeOutput = 256

// A Probe is one login on one node with a credential of its own, beside every
// pool. It completes the login and runs Command, so that sshd counts no failed
// attempt (PerSourcePenalties, sshd_config(5)).
type Probe struct {
	// Address is host:port of the node, Jump that of the host to go through, or
	// empty. KnownHosts are files that must know both.
	Address, Jump string
	KnownHosts    []string
	// User is the account, Signer its credential on the node, JumpSigner the one on
	// the jump host.
	User               string
	Signer, JumpSigner ssh.Signer
	// Command is what is asked for; a certificate with force-command runs its own.
	Command string
	// CountTo, if above 0, has the sessions counted that the node grants on the
	// connection, to this many at most.
	CountTo int
	// Dial opens the transport. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// A ProbeReport is what a node that accepted the login did.
type ProbeReport struct {
	// Output is what the command wrote to stdout, at most 256 bytes. It is empty if
	// the account cannot run commands, which proves the login all the same.
	Output []byte
	// Started and Ended are when the command ran, by our clock.
	Started, Ended time.Time
	// Sessions is how many the node granted at once, at most CountTo; nil if that
	// was not counted, or not to its end.
	Sessions *int
}

// Do logs in. Its errors wrap ErrLoginRefused if the node refused the credential,
// ErrHostKey if the node is not the one we know, and ErrUnavailable for all else: a
// jump host that refuses says nothing about the node.
func (p Probe) Do(ctx context.Context) (ProbeReport, error) {
	dial := p.Dial
	if dial == nil {
		dial = tcp
	}
	raw, err := p.transport(ctx, dial)
	if err != nil {
		return ProbeReport{}, err
	}
	client, err := p.login(ctx, raw, p.Address, p.Signer)
	if err != nil {
		return ProbeReport{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	defer func() { _ = client.Close() }() // what counts is known by then
	return p.run(client), nil
}

// transport reaches the node, by way of the jump host if there is one.
func (p Probe) transport(ctx context.Context, dial func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	first := p.Address
	if p.Jump != "" {
		first = p.Jump
	}
	raw, err := dial(ctx, first)
	if err != nil {
		return nil, unreachable(first, err)
	}
	if p.Jump == "" {
		return raw, nil
	}
	jump, err := p.login(ctx, raw, p.Jump, p.JumpSigner)
	if err != nil {
		return nil, fmt.Errorf("%w: jump host: %v", ErrUnavailable, err) //nolint:errorlint // a refusal there is none of the node
	}
	through, err := jump.DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return nil, unreachable(p.Address, errors.Join(err, jump.Close()))
	}
	return &tunnel{Conn: through, jump: &connection{Client: jump}}, nil
}

// login closes raw if it fails.
func (p Probe) login(ctx context.Context, raw net.Conn, node string, signer ssh.Signer) (*ssh.Client, error) {
	trust, err := loadHostTrust(p.KnownHosts, node)
	if err == nil {
		var client *ssh.Client
		if client, _, err = handshake(ctx, raw, node, Credential{User: p.User, Signer: signer}, trust, algorithms()); err == nil {
			return client, nil
		}
	}
	_ = raw.Close() // the error that counts is the one returned
	return nil, err
}

// run asks for the command. Whether it can be had is the account's matter.
func (p Probe) run(client *ssh.Client) ProbeReport {
	report, granted := ProbeReport{Started: time.Now()}, 0
	if session, err := client.NewSession(); err == nil {
		out := &head{most: maxProbeOutput}
		session.Stdout = out
		_ = session.Run(p.Command) // its exit code says nothing about the login
		report.Output, granted = out.kept, 1
	}
	report.Ended = time.Now()
	if p.CountTo > 0 {
		report.Sessions = p.countSessions(client, granted)
	}
	return report
}

// countSessions opens sessions in which nothing runs until the node refuses one
// (MaxSessions, sshd_config(5)), and closes them. It has granted least before, and
// may not have taken that one back yet.
func (p Probe) countSessions(client *ssh.Client, least int) *int {
	granted := 0
	for granted < p.CountTo {
		session, err := client.NewSession()
		if _, refused := errors.AsType[*ssh.OpenChannelError](err); refused {
			break
		}
		if err != nil {
			return nil // the time is over, or the connection is gone
		}
		defer session.Close() //nolint:errcheck // the connection is closed next
		granted++
	}
	granted = max(granted, least)
	return &granted
}

// head keeps the first bytes that are written to it.
type head struct {
	kept []byte
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), h.most-len(h.kept))]...)
	return len(p), nil
}
