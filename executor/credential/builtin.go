package credential

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
)

// CertificateCache is what Builtin needs of [ca.Cache].
type CertificateCache interface {
	Credential(ctx context.Context, caller identity.Identity, system string) (ssh.Signer, *ssh.Certificate, error)
}

var (
	_ CertificateCache            = (*ca.Cache)(nil)
	_ executor.CredentialProvider = (*Builtin)(nil)
)

// Builtin provides certificates of the built-in authority.
type Builtin struct{ nodes, jumps CertificateCache }

// NewBuiltin returns a provider that asks nodes for the certificates of login
// nodes and jumps for those of jump hosts, which must allow forwarding.
func NewBuiltin(nodes, jumps CertificateCache) *Builtin { return &Builtin{nodes, jumps} }

// Credential returns the caller's certificate for the node's system. What the
// authority refuses is [executor.ErrNoCredential]; any other error means that it
// could not be asked.
func (b *Builtin) Credential(ctx context.Context, caller identity.Identity, node executor.Node) (executor.Credential, error) {
	cache := b.nodes
	if node.Jump {
		cache = b.jumps
	}
	signer, cert, err := cache.Credential(ctx, caller, node.System)
	if errors.Is(err, ca.ErrPolicy) {
		return executor.Credential{}, fmt.Errorf("%w: %w", executor.ErrNoCredential, err)
	}
	if err != nil {
		return executor.Credential{}, fmt.Errorf("certificate for system %q: %w", node.System, err)
	}
	if !slices.Contains(cert.ValidPrincipals, caller.Login()) {
		return executor.Credential{}, fmt.Errorf("%w: certificate is not for login %q", executor.ErrNoCredential, caller.Login())
	}
	return executor.Credential{
		User:        caller.Login(),
		Signer:      signer,
		Certificate: cert,
		NotAfter:    notAfter(cert),
	}, nil
}

// notAfter is when a certificate ends; zero if never.
func notAfter(cert *ssh.Certificate) time.Time {
	if cert.ValidBefore > 1<<62 { // ssh.CertTimeInfinity, and all that time.Unix cannot hold
		return time.Time{}
	}
	return time.Unix(int64(cert.ValidBefore), 0)
}
