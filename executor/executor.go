// Package executor runs commands on login nodes over SSH, as the caller.
//
// It is the only package that speaks SSH as a client. A command takes a session
// slot on a pooled connection of the caller (see package pool); a connection is
// dialled, with a credential of the caller, only if none is at hand.
//
// The guarantee: a command that may have started is never run a second time, and
// an error from [Executor.Run] means that it is not known how the command ended
// or that it was not started; see [ErrOutcomeUnknown] to tell these apart.
package executor

import (
	"context"
	"errors"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
)

var (
	// ErrUnknownSystem says that no such system is configured. HTTP: 404.
	ErrUnknownSystem = errors.New("no such system")
	// ErrInvalidCommand wraps every complaint about a Command. HTTP: 422.
	ErrInvalidCommand = errors.New("command is not acceptable")
	// ErrBusy says that no session became free in time; the command was not
	// started. HTTP: 503 with Retry-After.
	ErrBusy = errors.New("no session became free in time")
	// ErrUnavailable says that no login node of the system could be reached; the
	// command was not started. HTTP: 503.
	ErrUnavailable = errors.New("no login node could be reached")
	// ErrHostKey says that a node showed a host key that is not the expected
	// one; nothing was sent to it. HTTP: 502.
	ErrHostKey = errors.New("host key of the login node is not trusted")
	// ErrLoginRefused says that the node did not accept the caller's
	// credential; the command was not started. HTTP: 502.
	ErrLoginRefused = errors.New("login node refused the login")
	// ErrNoCredential says that no credential could be had for the caller; the
	// command was not started. HTTP: 403.
	ErrNoCredential = errors.New("no credential for the caller")
	// ErrOutcomeUnknown says that the command was started, and that the
	// connection was lost before its end was reported. HTTP: 502.
	ErrOutcomeUnknown = errors.New("command was started and its outcome is unknown")
)

// Credential is what a caller logs in with on a node.
type Credential struct {
	// User is the account name on the node.
	User string
	// Signer is a certificate signer (ssh.NewCertSigner) or a plain key.
	Signer ssh.Signer
	// Certificate is nil for a plain key.
	Certificate *ssh.Certificate
	// NotAfter is when the credential stops being good; zero means never.
	NotAfter time.Time
}

// CredentialProvider finds a credential of the caller for a node. It is asked
// once per dial, never per command. An error that wraps ErrNoCredential is final
// for the caller; any other means that the provider failed.
type CredentialProvider interface {
	Credential(ctx context.Context, caller identity.Identity, node Node) (Credential, error)
}

// A Node is one login node of a system.
type Node struct {
	// System is the name of the system that the node belongs to.
	System string
	// Address is host:port as dialled and as looked up in known_hosts.
	Address string
}
