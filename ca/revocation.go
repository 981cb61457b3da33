package ca

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

// A RevocationKind says by what certificates are revoked.
type RevocationKind string

// The kinds of revocation. Those of a person or a key also refuse new certificates
// until they are lifted.
const (
	// RevokeSerial: one certificate; the value is its serial in decimal.
	RevokeSerial RevocationKind = "serial"
	// RevokeKeyID: the certificates with this key ID.
	RevokeKeyID RevocationKind = "key_id"
	// RevokeUser: every certificate of a login, whoever has it.
	RevokeUser RevocationKind = "user"
	// RevokeSubject: every certificate of a person; the value is "alias:subject".
	RevokeSubject RevocationKind = "subject"
	// RevokeKey: every certificate over a public key; the value is its fingerprint
	// ("SHA256:…").
	RevokeKey RevocationKind = "key"
	// RevokeIssuedBefore: all certificates that were issued before a time, in
	// RFC 3339.
	RevokeIssuedBefore RevocationKind = "issued_before"
)

// A Revocation is one act of an administrator that stands.
type Revocation struct {
	Kind  RevocationKind `json:"kind"`
	Value string         `json:"value"`
	// Reason, UID and At say why, by whom and when.
	Reason string    `json:"reason,omitempty"`
	UID    int       `json:"uid"`
	At     time.Time `json:"at"`
	// Expires is when the last certificate that it revokes is past its end; zero
	// means that it stands until it is lifted.
	Expires time.Time `json:"expires,omitzero"`
}

// NewRevocation checks value and brings it into its one form: a key may be given
// as a public key line or a fingerprint, a time with any offset. Its errors are
// for administrators.
func NewRevocation(kind RevocationKind, value string) (Revocation, error) {
	canonical, err := canonicalValue(kind, value)
	if err != nil {
		return Revocation{}, &RequestError{CodeRevocation, string(kind), err.Error()}
	}
	return Revocation{Kind: kind, Value: canonical}, nil
}

func canonicalValue(kind RevocationKind, value string) (string, error) {
	switch kind {
	case RevokeSerial:
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n == 0 {
			return "", fmt.Errorf("%q is no serial: a decimal number above 0, as sshd logs it", clip(value))
		}
		return strconv.FormatUint(n, 10), nil
	case RevokeKeyID:
		if value == "" || len(value) > 1024 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "", fmt.Errorf("%q is not 1 to 1024 bytes of printable ASCII", clip(value))
		}
		return value, nil
	case RevokeUser:
		if !isPrincipal(value) {
			return "", fmt.Errorf("%q is not an account name", clip(value))
		}
		return value, nil
	case RevokeSubject:
		alias, subject, ok := strings.Cut(value, ":")
		if !ok || alias == "" || subject == "" || len(value) > 300 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
			return "", fmt.Errorf("%q is not ALIAS:SUBJECT, the alias of an issuer and the subject of its tokens", clip(value))
		}
		return value, nil
	case RevokeKey:
		return canonicalKey(value)
	case RevokeIssuedBefore:
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return "", fmt.Errorf("%q is no time as in 2026-01-31T08:00:00Z", clip(value))
		}
		if t.After(time.Now()) {
			return "", fmt.Errorf("%q is in the future: a revocation cannot wait", clip(value))
		}
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	return "", fmt.Errorf("%q is no kind of revocation", clip(string(kind)))
}

func canonicalKey(value string) (string, error) {
	if hash, ok := strings.CutPrefix(value, "SHA256:"); ok {
		sum, err := base64.RawStdEncoding.Strict().DecodeString(hash)
		if err != nil || len(sum) != 32 {
			return "", fmt.Errorf("%q is no SHA-256 fingerprint", clip(value))
		}
		return value, nil
	}
	if len(value) > maxPublicKeyBytes {
		return "", fmt.Errorf("public key is longer than %d bytes", maxPublicKeyBytes)
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(value))
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		return "", fmt.Errorf("%q is neither a public key nor a fingerprint (SHA256:…)", clip(value))
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return ssh.FingerprintSHA256(key), nil
}

// Covers says whether the revocation ends what a person, known by the alias of the
// issuer, the subject and the login, has open by these certificates; there are
// none for a plain key. It may cover a little more than is revoked: certificates
// are backdated, and this looks at the time in them.
func (r Revocation) Covers(alias, subject, login string, certificates ...*ssh.Certificate) bool {
	switch r.Kind {
	case RevokeUser:
		return login == r.Value
	case RevokeSubject:
		return alias+":"+subject == r.Value
	case RevokeSerial, RevokeKeyID, RevokeKey, RevokeIssuedBefore:
	}
	before, _ := time.Parse(time.RFC3339, r.Value) // zero for other kinds
	for _, c := range certificates {
		switch {
		case c == nil:
		case r.Kind == RevokeSerial && strconv.FormatUint(c.Serial, 10) == r.Value,
			r.Kind == RevokeKeyID && c.KeyId == r.Value,
			r.Kind == RevokeKey && ssh.FingerprintSHA256(c.Key) == r.Value,
			r.Kind == RevokeIssuedBefore && unixTime(c.ValidAfter).Before(before):
			return true
		}
	}
	return false
}

// of says whether the revocation is about the certificate of a row.
func (r Revocation) of(row Issued) bool {
	switch r.Kind {
	case RevokeSerial:
		return strconv.FormatUint(row.Serial, 10) == r.Value
	case RevokeKeyID:
		return row.KeyID == r.Value
	case RevokeUser:
		return row.Login == r.Value
	case RevokeSubject:
		return row.Issuer+":"+row.Subject == r.Value
	case RevokeKey:
		return row.PublicKey == r.Value
	case RevokeIssuedBefore:
		before, err := time.Parse(time.RFC3339, r.Value)
		return err == nil && row.IssuedAt.Before(before)
	}
	return false
}

// Revoked is what came of a revocation.
type Revoked struct {
	Revocation
	// Certificates counts those that were still valid.
	Certificates int `json:"certificates"`
	// ListVersion is the revocation list's from then on.
	ListVersion uint64 `json:"list_version"`
}

// Revoke makes r stand, durably, in this order: the audit log has it; from then on
// nothing that it covers is issued or taken from a credential cache; cut, if not
// nil, is called, to end what is open; the certificates that are still valid stand
// in the revocation list; cut is called again, for what was opened meanwhile; cached
// credentials are removed; the audit log has the outcome. It is safe to repeat, which an error should lead to.
//
// A key of a CA is refused: that is 'sallyport ca compromise'.
func (a *Authority) Revoke(ctx context.Context, actor Actor, r Revocation, cut func()) (Revoked, error) {
	r, err := NewRevocation(r.Kind, r.Value)
	if err != nil {
		return Revoked{}, err
	}
	if err := a.sparesCA(r); err != nil {
		return Revoked{}, err
	}
	if err := actor.check(); err != nil {
		return Revoked{}, err
	}
	r.UID, r.Reason, r.At = actor.UID, actor.Reason, time.Now().UTC()
	if err := a.record(ctx, r.event("revoke", actor, audit.Unknown)); err != nil {
		return Revoked{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	done, err := a.revoke(ctx, r, cut)
	outcome := r.event("revoke", actor, audit.Success)
	outcome.Detail["certificates"] = strconv.Itoa(done.Certificates)
	outcome.Detail["list_version"] = strconv.FormatUint(done.ListVersion, 10)
	if err != nil {
		outcome.Outcome, outcome.Reason = audit.Failure, err.Error()
	}
	return done, errors.Join(err, a.record(ctx, outcome))
}

// revokeTimeout bounds what follows a recorded revocation, whoever gives up.
const revokeTimeout = 2 * time.Minute

func (a *Authority) sparesCA(r Revocation) error {
	if r.Kind != RevokeKey {
		return nil
	}
	for _, k := range a.ring.latest.Load().Keys {
		if k.fingerprint() == r.Value {
			return &RequestError{CodeRevocation, string(r.Kind), "is the key of a certificate authority; use 'sallyport ca compromise' for that"}
		}
	}
	return nil
}

func (a *Authority) revoke(ctx context.Context, r Revocation, cut func()) (Revoked, error) {
	done := Revoked{Revocation: r}
	if err := a.revoked.putAct(ctx, r); err != nil {
		return done, err
	}
	if _, err := a.revoked.publish(ctx, true); err != nil {
		return done, err
	}
	if cut != nil {
		cut()
	}
	certificates, err := a.stillValid(ctx, r)
	if err != nil {
		return done, err
	}
	done.Certificates = len(certificates)
	if err := a.revoked.putCertificates(ctx, r, certificates); err != nil {
		return done, err
	}
	if done.Expires = r.ends(certificates); !done.Expires.IsZero() {
		if err := a.revoked.putAct(ctx, done.Revocation); err != nil {
			return done, err
		}
	}
	list, err := a.revoked.publish(ctx, true)
	if err != nil {
		return done, err
	}
	if done.ListVersion = list.version; cut != nil {
		cut()
	}
	return done, a.purgeCredentials(ctx, list, done.Revocation)
}

// ends is when a revocation has nothing left to revoke. One of a person or a key
// stands until it is lifted, and so does one of certificates that the ledger does
// not know: whoever made them may have given them any life.
func (r Revocation) ends(certificates []revokedCertificate) time.Time {
	switch r.Kind {
	case RevokeUser, RevokeSubject, RevokeKey:
		return time.Time{}
	case RevokeSerial, RevokeKeyID:
		if len(certificates) == 0 {
			return time.Time{}
		}
	case RevokeIssuedBefore:
	}
	last := time.Now().Unix()
	for _, c := range certificates {
		last = max(last, c.Until)
	}
	return time.Unix(last, 0).Add(revocationMargin).UTC()
}

// stillValid finds what r revokes in the ledger. A row that cannot be read is
// logged: it must not save the others.
func (a *Authority) stillValid(ctx context.Context, r Revocation) ([]revokedCertificate, error) {
	now := time.Now()
	var found []revokedCertificate
	add := func(row Issued) {
		if r.of(row) && now.Before(row.ValidBefore.Add(revocationMargin)) {
			found = append(found, revokedCertificate{Serial: row.Serial, CA: row.CA, Until: row.ValidBefore.Unix()})
		}
	}
	if r.Kind == RevokeSerial {
		serial, _ := strconv.ParseUint(r.Value, 10, 64) // NewRevocation has checked it
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

// Lift ends a revocation. The certificates of a person stay revoked until they
// have expired, and only new ones are issued again; any other revocation leaves
// the list. An error wraps [ErrNotRevoked] if none stands.
func (a *Authority) Lift(ctx context.Context, actor Actor, r Revocation) (Revoked, error) {
	r, err := NewRevocation(r.Kind, r.Value)
	if err != nil {
		return Revoked{}, err
	}
	if err := actor.check(); err != nil {
		return Revoked{}, err
	}
	if err := a.approveLift(ctx, actor, r); err != nil {
		return Revoked{}, err
	}
	if err := a.record(ctx, r.event("revoke.lift", actor, audit.Unknown)); err != nil {
		return Revoked{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	done := Revoked{Revocation: r}
	err = a.revoked.drop(ctx, r)
	if err == nil {
		var list *revocationList
		if list, err = a.revoked.publish(ctx, true); err == nil {
			done.ListVersion = list.version
		}
	}
	outcome := r.event("revoke.lift", actor, audit.Success)
	if err != nil {
		outcome.Outcome, outcome.Reason = audit.Failure, err.Error()
	}
	return done, errors.Join(err, a.record(ctx, outcome))
}

// Revocations are all that stand, the oldest first.
func (a *Authority) Revocations(ctx context.Context) ([]Revocation, error) {
	list, err := a.revoked.read(ctx)
	if err != nil {
		return nil, err
	}
	return list.standing(time.Now()), nil
}
