package executor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/store/audit"
)

// A Gate knows whose access was revoked.
type Gate interface {
	// Refuse returns why a session must not be opened, or nil. It MUST answer from
	// memory: it is asked before each session, and once more before each login.
	Refuse(s Session) error
}

// refusalPause is how often the refusals of one caller on one node are recorded.
const refusalPause = time.Minute

// pass asks the gate before a session is opened, when the caller's run can be found by
// CloseWhere already. So a revocation finds what was begun before it, and what begins
// after it finds the revocation.
func (e *Executor) pass(ctx context.Context, s *system, caller identity.Identity, node string) error {
	if e.gate == nil {
		return nil
	}
	return e.stopped(ctx, s, caller, node, e.gate.Refuse(Session{
		System: s.Name, Node: node, Issuer: caller.Issuer(), Subject: caller.Subject(), Login: caller.Login(),
	}))
}

// passLogin asks the gate about what a login would be done with.
func (e *Executor) passLogin(ctx context.Context, s *system, caller identity.Identity, node string, credential Credential) error {
	if e.gate == nil {
		return nil
	}
	asked := Session{
		System: s.Name, Node: node, Issuer: caller.Issuer(), Subject: caller.Subject(), Login: caller.Login(), Account: credential.User,
	}
	asked.Key, asked.Certificates = credential.proof()
	return e.stopped(ctx, s, caller, node, e.gate.Refuse(asked))
}

// proof is what a login is done with: the fingerprint of a plain key, or a certificate.
func (c Credential) proof() (key string, certificates []*ssh.Certificate) {
	if c.Certificate != nil {
		return "", []*ssh.Certificate{c.Certificate}
	}
	return ssh.FingerprintSHA256(c.Signer.PublicKey()), nil
}

// stopped records a refusal, and makes it ErrRevoked.
func (e *Executor) stopped(ctx context.Context, s *system, caller identity.Identity, node string, why error) error {
	if why == nil {
		return nil
	}
	err := fmt.Errorf("%w: %w", ErrRevoked, why)
	if k := keyOf(caller, node); s.stopped.last(k) == nil {
		s.stopped.note(k, err)
		ev := event(audit.CallDenied, audit.Failure, caller, s.Name, node)
		ev.Reason = why.Error()
		if failed := e.audit.Record(context.WithoutCancel(ctx), ev); failed != nil {
			e.log.ErrorContext(ctx, "a refusal is not in the audit log", slog.String("node", node), slog.Any("error", failed))
		}
	}
	return err
}
