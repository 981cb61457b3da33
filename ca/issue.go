package ca

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

// finishTimeout bounds what follows a durable intent, however impatient the
// caller: two group commits and a signature.
const finishTimeout = 30 * time.Second

// Issue makes a certificate, in this order:
//
//  1. Draft: everything that can be refused is refused, with a [*RequestError].
//  2. Intent: the audit log has "certificate.intent", durably.
//  3. Ledger: the row stands, durably; the serial is unique.
//  4. Sign: the draft is spent; the certificate is compared with it.
//  5. Outcome: the audit log has "certificate.issued", durably.
//  6. Release: only now does the certificate leave this function.
//
// A refusal is recorded too. Should audit log or ledger fail, the error wraps
// [ErrUnavailable] and there is no certificate. After step 2 the rest is done even
// if ctx ends, within 30 seconds, so that no intent stays without an outcome.
func (a *Authority) Issue(ctx context.Context, r Request) (*ssh.Certificate, error) {
	request := audit.RequestFrom(ctx)
	if request.ID == "" {
		request.ID = audit.NewRequestID()
		ctx = audit.WithRequest(ctx, request)
	}

	for {
		cert, err := a.issueWith(ctx, r, request.ID)
		if !errors.Is(err, errWithdrawn) {
			return cert, err
		}
		// A rotation came between. It comes once in weeks, not once in a request.
	}
}

// issueWith does all steps with the key that is active now.
func (a *Authority) issueWith(ctx context.Context, r Request, requestID string) (*ssh.Certificate, error) {
	d, err := a.draft(r, requestID)
	if err == nil {
		err = a.admit(ctx, d)
	}
	if err != nil {
		return nil, a.refuse(ctx, r, err)
	}
	if !r.ephemeral {
		if err := a.findOwner(ctx, d); err != nil {
			return nil, err
		}
	}
	key, err := a.ring.active(ctx)
	if err != nil {
		return nil, err
	}
	return a.issue(ctx, d, key, requestID)
}

// issue does steps 2 to 6 with a key of the ring.
func (a *Authority) issue(ctx context.Context, d *draft, key signingKey, requestID string) (*ssh.Certificate, error) {
	if err := a.record(ctx, d.event(audit.CertificateIntent, audit.Unknown, key.fingerprint)); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	cert, err := a.enterAndSign(ctx, d, key, requestID)
	if err != nil {
		failed := d.event(audit.CertificateIssued, audit.Failure, key.fingerprint)
		failed.Reason = err.Error()
		return nil, errors.Join(err, a.record(ctx, failed))
	}
	if err := a.record(ctx, d.event(audit.CertificateIssued, audit.Success, key.fingerprint)); err != nil {
		return nil, err
	}
	return cert, nil
}

// draft is step 1: newDraft, with what only the authority knows.
func (a *Authority) draft(r Request, requestID string) (*draft, error) {
	p := a.profiles[r.Profile]
	if p == nil {
		return nil, &RequestError{CodeProfile, "profile", fmt.Sprintf("%q is not configured", clip(r.Profile))}
	}
	d, err := newDraft(r, p, time.Now(), newSerial(), requestID)
	if err != nil {
		return nil, err
	}
	if a.ring.latest.Load().known[string(d.key.Marshal())] {
		return nil, badKey("is the key of a certificate authority")
	}
	return d, nil
}

// newSerial returns 63 random bits, but no number that marks a version of the
// revocation list. So it is never 0 either: a certificate without a serial cannot be
// revoked by it.
func newSerial() uint64 {
	for {
		if n := randomBits() >> 1; n > lastMarker {
			return n
		}
	}
}

func randomBits() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return binary.BigEndian.Uint64(b[:])
}

func (a *Authority) enterAndSign(ctx context.Context, d *draft, key signingKey, requestID string) (*ssh.Certificate, error) {
	if err := a.enter(ctx, d, key.fingerprint, requestID); err != nil {
		return nil, err
	}
	if err := a.claim(ctx, d); err != nil {
		return nil, err
	}
	if err := a.admitEntered(ctx, d); err != nil {
		return nil, err
	}
	// The row stands. If the key is active still, whoever retires it after this has
	// the row in his drain time; if it is not, it must not sign for users.
	if err := a.ring.mayStillSign(ctx, key.fingerprint, d.profile == profileProbe); err != nil {
		return nil, err
	}
	cert, err := d.sign(key.signer)
	if err != nil {
		return nil, err
	}
	if err := d.verify(cert, key.signer); err != nil {
		return nil, fmt.Errorf("certificate differs from its draft and is withheld: %w", err)
	}
	return cert, nil
}

// refuse records why and returns the reason. A refusal that cannot be recorded is
// ErrUnavailable: nobody probes an authority whose audit log is down.
func (a *Authority) refuse(ctx context.Context, r Request, reason error) error {
	e := audit.Event{
		Action:  audit.CertificateRefused,
		Outcome: audit.Failure,
		Reason:  reason.Error(),
		Issuer:  r.Caller.Alias(),
		Subject: r.Caller.Subject(),
		Login:   r.Caller.Login(),
		Detail:  r.Caller.TokenDetail(),
	}
	e.Detail["profile"] = clip(r.Profile)
	if refused := (*RequestError)(nil); errors.As(reason, &refused) {
		e.Detail["code"] = refused.Code
	}
	if err := a.record(ctx, e); err != nil {
		return fmt.Errorf("%w (for a request that is refused: %v)", err, reason) //nolint:errorlint // the refusal must not be matched
	}
	return reason
}

func (a *Authority) record(ctx context.Context, e audit.Event) error {
	if err := a.audit.Record(ctx, e); err != nil {
		return fmt.Errorf("%w: record %s: %w", ErrUnavailable, e.Action, err)
	}
	return nil
}

// event describes the draft; caKey is the fingerprint of the key that signs.
func (d *draft) event(action audit.Action, outcome audit.Outcome, caKey string) audit.Event {
	detail := d.caller.TokenDetail()
	maps.Copy(detail, map[string]string{
		"serial":         strconv.FormatUint(d.serial, 10),
		"key_id":         d.keyID,
		"profile":        d.profile,
		"principals":     strings.Join(d.principals, ","),
		"valid_after":    unixTime(d.validAfter).Format(time.RFC3339),
		"valid_before":   unixTime(d.validBefore).Format(time.RFC3339),
		"public_key":     ssh.FingerprintSHA256(d.key),
		"ca_fingerprint": caKey,
	})
	if d.keyAlsoOf != "" {
		detail["public_key_also_of"] = d.keyAlsoOf
	}
	if networks := d.options["source-address"]; networks != "" {
		detail["source_address"] = networks
	}
	if command := d.options["force-command"]; command != "" {
		sum := sha256.Sum256([]byte(command)) // a command line may hold secrets
		detail["force_command_sha256"] = hex.EncodeToString(sum[:])
	}
	return audit.Event{
		Action:  action,
		Outcome: outcome,
		Issuer:  d.caller.Alias(),
		Subject: d.caller.Subject(),
		Login:   d.caller.Login(),
		Detail:  detail,
	}
}
