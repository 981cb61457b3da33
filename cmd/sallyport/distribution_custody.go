package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/sshd-config/nodesync"
)

// errUnsigned says that the distribution key did not sign what is new: nodes are given what it signed last.
var errUnsigned = errors.New("a signature of the distribution key is due")

// An offlineSigner is a key that a person signs with, elsewhere.
type offlineSigner struct{ key ssh.PublicKey }

func (s offlineSigner) PublicKey() ssh.PublicKey { return s.key }

func (s offlineSigner) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("the key is offline: sallyport ca manifest export, sign, sallyport ca manifest import")
}

// An agentSigner is a key that an agent holds, which may be away.
type agentSigner struct{ ssh.Signer }

func (p *publisher) custody() string {
	switch p.signer.(type) {
	case offlineSigner:
		return keyOffline
	case agentSigner:
		return "agent"
	}
	return "file"
}

// keeps says whether the files of a manifest are stored with it, because it may be served when they are no longer what the CA publishes.
func (p *publisher) keeps() bool { return p.custody() != "file" }

// waiting is what nodes are given while a signature is due.
type waiting struct {
	last         *signedManifest
	bundle, list []byte // what waits
	until        time.Time
	why          string
}

// lookAgain is how often the store and the key are asked while a signature is due, whoever asks for the manifest.
const lookAgain = time.Second

func (w *waiting) still(bundle, list []byte) bool {
	return w != nil && same(w.bundle, bundle) && same(w.list, list) && time.Now().Before(w.until)
}

// wait has nodes be given the last manifest, and says so once.
func (p *publisher) wait(ctx context.Context, last *signedManifest, bundle, list []byte, why error) {
	before := p.waits.Swap(&waiting{last: last, bundle: bundle, list: list, until: time.Now().Add(lookAgain), why: why.Error()})
	if before == nil {
		p.log.WarnContext(ctx, "login nodes do not get what has changed: the manifest waits for a signature",
			slog.Int64("last_version", last.parsed.Version), slog.Time("good_until", last.parsed.ExpiresAt), slog.String("error", why.Error()))
	}
}

// File returns the file of the manifest that nodes are given, by its sum; nil if it has none such.
func (p *publisher) File(sha256 string) []byte {
	w := p.waits.Load()
	if w == nil {
		return nil // what the CA publishes is what is signed
	}
	switch sha256 {
	case w.last.parsed.Trust.SHA256:
		return w.last.Trust
	case w.last.parsed.Revocation.SHA256:
		return w.last.List
	}
	return nil
}

// Draft returns the text for a person to sign.
func (p *publisher) Draft(ctx context.Context) ([]byte, error) {
	_, _, next, err := p.prepare(ctx, p.source.TrustBundle(), p.source.RevocationList())
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ca.ErrUnavailable, err)
	}
	return next.Text, nil
}

// Import takes a text of Draft with the signature that a person made. It must be of what is published now: else nodes would be given
// files that they cannot have.
func (p *publisher) Import(ctx context.Context, actor ca.Actor, text, signature []byte) (int64, error) {
	refuse := func(format string, args ...any) (int64, error) {
		return 0, &ca.RequestError{Code: ca.CodeManifest, Field: "manifest", Detail: fmt.Sprintf(format, args...)}
	}
	m, err := nodesync.ParseManifest(text)
	if err != nil {
		return refuse("%v", err)
	}
	if _, err := nodesync.Verify([]ssh.PublicKey{p.signer.PublicKey()}, nodesync.Namespace, text, signature); err != nil {
		return refuse("%v; the distribution key is %s", err, ssh.FingerprintSHA256(p.signer.PublicKey()))
	}
	bundle, list := p.source.TrustBundle(), p.source.RevocationList()
	e, have, next, err := p.prepare(ctx, bundle, list)
	if err != nil {
		return 0, fmt.Errorf("%w: manifest: %w", ca.ErrUnavailable, err)
	}
	now := time.Now()
	switch {
	case !next.alike(m):
		return refuse("it is not of what is published now: the keys or the revocation list have changed since; export it again")
	case have != nil && m.Version <= have.parsed.Version:
		return refuse("its version is %d, and version %d was published: export it again", m.Version, have.parsed.Version)
	case !now.Before(m.ExpiresAt) || m.IssuedAt.After(now.Add(time.Minute)):
		return refuse("it is good from %s until %s, which is not now", stamp(m.IssuedAt), stamp(m.ExpiresAt))
	case m.ExpiresAt.Sub(m.IssuedAt) > p.lifetime():
		return refuse("it is good for %s, longer than ca.distribution.manifest_life", m.ExpiresAt.Sub(m.IssuedAt))
	}
	next.Text, next.Signature, next.parsed = text, signature, m
	if err := p.put(ctx, e, next, actor); err != nil {
		return 0, fmt.Errorf("%w: manifest: %w", ca.ErrUnavailable, err)
	}
	p.latest.Store(next.against(bundle, list))
	p.waits.Store(nil)
	return m.Version, nil
}

// alike says whether another manifest differs in version and times only.
func (s *signedManifest) alike(m nodesync.Manifest) bool {
	want := s.parsed
	want.Version, want.IssuedAt, want.ExpiresAt = m.Version, m.IssuedAt, m.ExpiresAt
	a, errA := want.Marshal()
	b, errB := m.Marshal()
	return errA == nil && errB == nil && string(a) == string(b)
}

// usable is a manifest of the store that nodes may be given while another one waits; nil if it is not.
func (p *publisher) usable(have *signedManifest) *signedManifest {
	if have == nil || !p.signed(have) || !time.Now().Before(have.parsed.ExpiresAt) || nodesync.Sum(have.Trust) != have.parsed.Trust || nodesync.Sum(have.List) != have.parsed.Revocation {
		return nil
	}
	return have
}
