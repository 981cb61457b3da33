package ca

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"sallyport/ca/revocation"
)

// Revoke makes an act stand, durably, in this order: the audit log has it; from then on
// nothing that it covers is issued or taken from a credential cache, and whoever asks the
// register is refused; cut, if not nil, is called, to end what is open; the certificates
// that are still valid stand in the revocation list; cut is called again, for what was
// opened meanwhile; cached credentials are removed; the audit log has the outcome. It is
// safe to repeat, which an error should lead to.
//
// A key of a CA is refused: that is 'sallyport ca compromise'.
func (a *Authority) Revoke(ctx context.Context, actor Actor, act revocation.Act, cut func(revocation.Act)) (revocation.Done, error) {
	act, err := a.register.New(act.Kind, act.Value)
	if err == nil {
		err = errors.Join(a.sparesCA(act), actor.Check())
	}
	if err != nil {
		return revocation.Done{}, err
	}
	act.UID, act.Reason, act.At = actor.UID, actor.Reason, time.Now().UTC()
	var done revocation.Done
	err = a.register.Recorded(ctx, "revoke", actor, act, func(ctx context.Context, detail map[string]string) (err error) {
		done, err = a.revoke(ctx, act, cut)
		detail["certificates"] = strconv.Itoa(done.Certificates)
		detail["list_version"] = strconv.FormatUint(done.ListVersion, 10)
		return err
	})
	return done, unavailable(err)
}

func (a *Authority) sparesCA(act revocation.Act) error {
	if act.Kind != revocation.Key {
		return nil
	}
	for _, k := range a.ring.latest.Load().Keys {
		if k.fingerprint() == act.Value {
			return &revocation.Error{Field: string(act.Kind), Detail: "is the key of a certificate authority; use 'sallyport ca compromise' for that"}
		}
	}
	return nil
}

func (a *Authority) revoke(ctx context.Context, act revocation.Act, cut func(revocation.Act)) (revocation.Done, error) {
	done := revocation.Done{Act: act}
	if err := a.register.Put(ctx, act); err != nil {
		return done, err
	}
	if _, err := a.revoked.publish(ctx, true); err != nil {
		return done, err
	}
	if cut != nil {
		cut(act)
	}
	certificates, err := a.stillValid(ctx, act)
	if err != nil {
		return done, err
	}
	done.Certificates = len(certificates)
	if err := a.revoked.putCertificates(ctx, act, certificates); err != nil {
		return done, err
	}
	if done.Expires = ends(act, certificates); !done.Expires.IsZero() {
		if err := a.register.Put(ctx, done.Act); err != nil {
			return done, err
		}
	}
	list, err := a.revoked.publish(ctx, true)
	if err != nil {
		return done, err
	}
	if done.ListVersion = list.version; cut != nil {
		cut(act)
	}
	return done, a.purgeCredentials(ctx, list, done.Act)
}

// ends is when an act has nothing left to revoke. One of a person or a key stands until
// it is lifted, and so does one of certificates that the ledger does not know: whoever
// made them may have given them any life.
func ends(act revocation.Act, certificates []revokedCertificate) time.Time {
	switch act.Kind {
	case revocation.User, revocation.Subject, revocation.Key:
		return time.Time{}
	case revocation.Serial, revocation.KeyID:
		if len(certificates) == 0 {
			return time.Time{}
		}
	case revocation.IssuedBefore:
	}
	last := time.Now().Unix()
	for _, c := range certificates {
		last = max(last, c.Until)
	}
	return time.Unix(last, 0).Add(revocationMargin).UTC()
}

// stillValid finds what an act revokes in the ledger. A row that cannot be read is
// logged: it must not save the others.
func (a *Authority) stillValid(ctx context.Context, act revocation.Act) ([]revokedCertificate, error) {
	now := time.Now()
	var found []revokedCertificate
	add := func(row Issued) {
		if act.Covers(row.use()) && now.Before(row.ValidBefore.Add(revocationMargin)) {
			found = append(found, revokedCertificate{Serial: row.Serial, CA: row.CA, Until: row.ValidBefore.Unix()})
		}
	}
	if act.Kind == revocation.Serial {
		serial, _ := strconv.ParseUint(act.Value, 10, 64) // revocation.New has checked it
		row, err := a.Lookup(ctx, serial)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		add(row)
		return found, nil
	}
	for row, err := range a.Ledger(ctx) {
		switch {
		case errors.Is(err, ErrUnavailable):
			return nil, err
		case err != nil:
			a.logger.ErrorContext(ctx, "a ledger row cannot be read, and its certificate cannot be revoked by it", slog.Any("error", err))
		default:
			add(row)
		}
	}
	return found, nil
}

// use is what the certificate of a row is for.
func (row Issued) use() revocation.Use {
	return revocation.Use{
		Issuer: row.IssuerURL, Subject: row.Subject, Accounts: []string{row.Login},
		Grants: []revocation.Grant{{Serial: row.Serial, KeyID: row.KeyID, Principals: row.Principals, Key: row.PublicKey, Issued: row.IssuedAt}},
	}
}

// Lift ends an act. The certificates of a person stay revoked until they have expired,
// and only new ones are issued again; any other act leaves the list. An error wraps
// [revocation.ErrNotRevoked] if none stands.
func (a *Authority) Lift(ctx context.Context, actor Actor, act revocation.Act) (revocation.Done, error) {
	act, err := a.register.ToLift(ctx, actor, act)
	if err == nil {
		err = ApproveLift(ctx, a.approvals, actor, act, a.register.Index())
	}
	if err != nil {
		return revocation.Done{}, err
	}
	done := revocation.Done{Act: act}
	err = a.register.Recorded(ctx, "revoke.lift", actor, act, func(ctx context.Context, _ map[string]string) error {
		if err := a.register.Drop(ctx, act); err != nil {
			return err
		}
		if err := a.revoked.dropCertificates(ctx, act); err != nil {
			return err
		}
		list, err := a.revoked.publish(ctx, true)
		if err == nil {
			done.ListVersion = list.version
		}
		return err
	})
	return done, unavailable(err)
}

// Revocations are all that stand, the oldest first.
func (a *Authority) Revocations(ctx context.Context) ([]revocation.Act, error) {
	list, err := a.revoked.read(ctx)
	if err != nil {
		return nil, err
	}
	return list.acts.Standing(time.Now()), nil
}
