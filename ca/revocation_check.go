package ca

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/revocation"
	"sallyport/identity"
	"sallyport/store"
)

// admit refuses to certify for a person, or a key, that was revoked.
func (a *Authority) admit(ctx context.Context, d *draft) error {
	list, err := a.revoked.read(ctx)
	if err != nil {
		return err
	}
	if bytes.Equal(d.key.Marshal(), a.revoked.canary.signer.PublicKey().Marshal()) {
		return badKey("is revoked for good")
	}
	return list.refuses(d.use())
}

// use is what the draft would be good for. It has no certificate yet, but its principals
// count as if it had.
func (d *draft) use() revocation.Use {
	u := revocation.UseOf(d.caller, d.principals...)
	u.Keys = []string{ssh.FingerprintSHA256(d.key)}
	return u
}

// admitEntered is admit once the row of d stands. Whoever revokes makes the act
// durable and then reads the ledger; whoever issues makes the row durable and then
// asks here: one of them sees the other.
func (a *Authority) admitEntered(ctx context.Context, d *draft) error {
	if d.profile == profileProbe {
		return nil // of the authority itself, and some of them must be refused by nodes
	}
	list, err := a.revoked.read(ctx)
	if err != nil {
		return err
	}
	if _, withdrawn := list.acts.Covers(revocation.Use{Grants: []revocation.Grant{{Issued: d.drafted}}}); withdrawn {
		return errWithdrawn
	}
	return list.refuses(d.use())
}

// refuses returns a [*RequestError] if an act covers what somebody asks for.
func (l *revocationList) refuses(u revocation.Use) error {
	act, found := l.acts.Covers(u)
	switch {
	case !found:
		return nil
	case act.Kind == revocation.Key:
		return &RequestError{CodeRevoked, "public_key", "was revoked; make a new one"}
	case act.Kind == revocation.User && !strings.EqualFold(act.Value, u.Accounts[0]):
		return &RequestError{CodeRevoked, "principals", "name an account whose access was revoked; ask the site's administrators"}
	}
	return &RequestError{CodeRevoked, "token", "is of somebody whose access was revoked; ask the site's administrators"}
}

// revokes says whether a certificate that was issued here is revoked. That it was
// issued before a time is judged by the time in it, as if backdated by backdate; the
// second that is unclear is left to the serials, which follow in a moment.
func (l *revocationList) revokes(cert *ssh.Certificate, backdate time.Duration) bool {
	g := revocation.GrantOf(cert)
	g.Issued = g.Issued.Add(backdate + time.Second)
	_, found := l.acts.Covers(revocation.Use{Grants: []revocation.Grant{g}})
	return found || l.serials[cert.Serial]
}

// errCertificateRevoked says that a cached credential is no good; another is.
var errCertificateRevoked = errors.New("certificate was revoked")

// standing refuses a cached credential whose owner or certificate was revoked.
func (a *Authority) standing(ctx context.Context, caller identity.Identity, cert *ssh.Certificate, backdate time.Duration) error {
	list, err := a.revoked.read(ctx)
	if err != nil {
		return err
	}
	if err := list.refuses(revocation.UseOf(caller)); err != nil {
		return err
	}
	if list.revokes(cert, backdate) {
		return errCertificateRevoked
	}
	return nil
}

// purgeCredentials removes cached credentials that an act revokes. They would not be
// used any more; this is so that they are not there either. One that cannot be
// read goes too.
func (a *Authority) purgeCredentials(ctx context.Context, list *revocationList, act revocation.Act) error {
	var doomed []store.Entry
	for e, err := range a.store.List(ctx, credentialPrefix) {
		if err != nil {
			return fmt.Errorf("%w: credential cache: %w", ErrUnavailable, err)
		}
		var record cacheRecord
		err = json.Unmarshal(e.Value, &record)
		parsed, parseErr := ssh.ParsePublicKey(record.Certificate)
		cert, ok := parsed.(*ssh.Certificate)
		if err != nil || parseErr != nil || !ok || list.serials[cert.Serial] || act.Covers(revocation.Use{Grants: []revocation.Grant{revocation.GrantOf(cert)}}) {
			doomed = append(doomed, e)
		}
	}
	for _, e := range doomed {
		err := a.store.Delete(ctx, e)
		if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: credential cache: %w", ErrUnavailable, err)
		}
	}
	a.logger.InfoContext(ctx, "cached credentials are removed", slog.Int("credentials", len(doomed)))
	return nil
}
