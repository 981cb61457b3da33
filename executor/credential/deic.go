package credential

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/identity"
)

var _ executor.CredentialProvider = (*DeiC)(nil)

// DeiC gets certificates from a service that speaks the format of DeiC's sshca,
// FirecREST's "SSHCA": POST {URL}/sign, where the URL ends with the name of the CA.
// The key pair is made here, in memory, and only its public half is sent.
//
// What comes back is checked as [Remote] does, against the key that was sent.
type DeiC struct {
	service *service
	expect  Expectation
}

// NewDeiC checks cfg and reports its mistakes; nothing is sent.
func NewDeiC(cfg ServiceConfig) (*DeiC, error) {
	s, err := newService(cfg, "/sign")
	if err := errors.Join(err, cfg.Expect.check()); err != nil {
		return nil, fmt.Errorf("DeiC credentials: %w", err)
	}
	return &DeiC{service: s, expect: cfg.Expect}, nil
}

// Close closes idle connections to the service.
func (p *DeiC) Close() error { return p.service.close() }

// Credential makes a key and asks the service to certify it, as the caller. The
// token stands in the body, where the format wants it, and in no header.
func (p *DeiC) Credential(ctx context.Context, caller identity.Identity, _ executor.Node) (executor.Credential, error) {
	if err := ready(caller); err != nil {
		return executor.Credential{}, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return executor.Credential{}, fmt.Errorf("ephemeral key: %w", err)
	}
	key, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return executor.Credential{}, fmt.Errorf("ephemeral key: %w", err)
	}
	ask := map[string]string{
		"PublicKey": string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key.PublicKey()))),
		"OTT":       caller.Bearer(),
	}
	if caller.Narrow() { // an addition of ours: what comes without it is refused
		ask["ForceCommand"] = identity.NarrowCommand
	}
	answer, err := p.service.post(ctx, "", ask, http.StatusOK)
	if err != nil {
		return executor.Credential{}, err
	}
	cert, err := parseCertificate(string(answer))
	if err != nil {
		return executor.Credential{}, p.service.unusable(err)
	}
	return p.service.accept(p.expect.of(caller), cert, caller.Login(), func() (ssh.Signer, error) { return key, nil })
}
