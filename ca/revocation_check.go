package ca

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

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
	return list.refuses(d.caller, ssh.FingerprintSHA256(d.key))
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
	for _, r := range list.acts {
		if before, err := time.Parse(time.RFC3339, r.Value); r.Kind == RevokeIssuedBefore && err == nil && d.drafted.Before(before) {
			return errWithdrawn
		}
	}
	return list.refuses(d.caller, ssh.FingerprintSHA256(d.key))
}

// refuses returns a [*RequestError] if a revocation of the person or the key stands.
func (l *revocationList) refuses(caller identity.Identity, key string) error {
	for _, r := range l.acts {
		switch r.Kind {
		case RevokeUser, RevokeSubject:
			if r.Covers(caller.Alias(), caller.Subject(), caller.Login()) {
				return &RequestError{CodeRevoked, "token", "is of somebody whose access was revoked; ask the site's administrators"}
			}
		case RevokeKey:
			if r.Value == key {
				return &RequestError{CodeRevoked, "public_key", "was revoked; make a new one"}
			}
		case RevokeSerial, RevokeKeyID, RevokeIssuedBefore:
		}
	}
	return nil
}

// revokes says whether a certificate that was issued here is revoked. That it was
// issued before a time is judged by the time in it, as if backdated by backdate; the
// second that is unclear is left to the serials, which follow in a moment.
func (l *revocationList) revokes(cert *ssh.Certificate, backdate time.Duration) bool {
	if l.serials[cert.Serial] {
		return true
	}
	for _, r := range l.acts {
		switch r.Kind {
		case RevokeSerial, RevokeKeyID, RevokeKey:
			if r.Covers("", "", "", cert) {
				return true
			}
		case RevokeIssuedBefore:
			before, err := time.Parse(time.RFC3339, r.Value)
			if err == nil && unixTime(cert.ValidAfter).Add(backdate+time.Second).Before(before) {
				return true
			}
		case RevokeUser, RevokeSubject:
		}
	}
	return false
}

// errCertificateRevoked says that a cached credential is no good; another is.
var errCertificateRevoked = errors.New("certificate was revoked")

// standing refuses a cached credential whose owner or certificate was revoked.
func (a *Authority) standing(ctx context.Context, caller identity.Identity, cert *ssh.Certificate, backdate time.Duration) error {
	list, err := a.revoked.read(ctx)
	if err != nil {
		return err
	}
	if err := list.refuses(caller, ssh.FingerprintSHA256(cert.Key)); err != nil {
		return err
	}
	if list.revokes(cert, backdate) {
		return errCertificateRevoked
	}
	return nil
}

// purgeCredentials removes cached credentials that r revokes. They would not be
// used any more; this is so that they are not there either. One that cannot be
// read goes too.
func (a *Authority) purgeCredentials(ctx context.Context, list *revocationList, r Revocation) error {
	var doomed []store.Entry
	for e, err := range a.store.List(ctx, credentialPrefix) {
		if err != nil {
			return fmt.Errorf("%w: credential cache: %w", ErrUnavailable, err)
		}
		var record cacheRecord
		err = json.Unmarshal(e.Value, &record)
		parsed, parseErr := ssh.ParsePublicKey(record.Certificate)
		cert, ok := parsed.(*ssh.Certificate)
		if err != nil || parseErr != nil || !ok || list.serials[cert.Serial] || r.Covers("", "", firstOf(cert.ValidPrincipals), cert) {
			doomed = append(doomed, e)
		}
	}
	for _, e := range doomed {
		err := a.store.Delete(ctx, e)
		if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: credential cache: %w", ErrUnavailable, err)
		}
	}
	a.logger.InfoContext(ctx, "revoked", slog.String("kind", string(r.Kind)), slog.String("value", r.Value),
		slog.String("credentials_removed", strconv.Itoa(len(doomed))))
	return nil
}

// firstOf is the login of a cached certificate, which has no other principal.
func firstOf(principals []string) string {
	if len(principals) == 0 {
		return ""
	}
	return principals[0]
}
