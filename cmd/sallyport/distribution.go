package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/sshd-config/nodesync"
	"sallyport/store"
	"sallyport/store/audit"
)

const (
	// distributionKey is the file of the key that signs manifests, in the data folder; its public half has ".pub" added.
	distributionKey = "distribution_key"
	// manifestRecord is where the store has the newest manifest.
	manifestRecord = "distribution/manifest"
	// manifestLife is how long a manifest is good; it is made anew when half of that is over. A node whose mirror or service
	// is frozen complains after a day at most.
	manifestLife = 24 * time.Hour
)

// loadDistributionKey loads the key that signs manifests, or makes it. Its passphrase is that of the CA key.
func loadDistributionKey(f File, keys caKeys) (*ca.Key, error) {
	folder := ca.KeyFolder{Dir: f.DataDir, Algorithm: "ed25519", Passphrase: keys.folder.Passphrase}
	key, err := folder.Load(distributionKey)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = folder.Create(distributionKey)
	}
	if err != nil {
		return nil, fmt.Errorf("distribution key: %w", err)
	}
	err = writeNew(filepath.Join(f.DataDir, distributionKey+".pub"), ssh.MarshalAuthorizedKey(key.PublicKey()), 0o644)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("distribution key: %w", err)
	}
	return key, nil
}

// A published is what the CA publishes; see ca.Authority.
type published interface {
	Keys() []ca.KeyStatus
	TrustBundle() []byte
	RevocationList() []byte
}

// A publisher signs a manifest for what the CA publishes. Processes on one store serve the same bytes.
type publisher struct {
	source published
	signer ssh.Signer
	store  store.Store
	audit  audit.Recorder
	log    *slog.Logger
	life   time.Duration // 0 means manifestLife
	latest atomic.Pointer[signedManifest]
	waits  atomic.Pointer[waiting] // nil: nothing does
}

func (p *publisher) lifetime() time.Duration { return cmp.Or(p.life, manifestLife) }

// A signedManifest is the record in the store.
type signedManifest struct {
	Text      []byte `json:"text"`
	Signature []byte `json:"signature"`
	// Trust and List are its files, if the key cannot sign the next one by itself.
	Trust  []byte `json:"trust,omitempty"`
	List   []byte `json:"list,omitempty"`
	parsed nodesync.Manifest
	// bundle and list are the bytes that it was last held against.
	bundle, list []byte
}

// Manifest returns the manifest for what is published now, and its signature. A new version is made, and durable, when
// something has changed or half the life of the last one is over.
func (p *publisher) Manifest(ctx context.Context) (text, signature []byte, err error) {
	bundle, list := p.source.TrustBundle(), p.source.RevocationList()
	if w := p.waits.Load(); w.still(bundle, list) {
		return w.last.Text, w.last.Signature, nil
	}
	have := p.latest.Load()
	if have != nil && have.fresh(p.lifetime()) && same(have.bundle, bundle) && same(have.list, list) {
		return have.Text, have.Signature, nil
	}
	want, err := p.draft(bundle, list)
	if err != nil {
		return nil, nil, err
	}
	if have != nil && have.serves(want, p.lifetime()) {
		p.waits.Store(nil)
		p.latest.Store(have.against(bundle, list))
		return have.Text, have.Signature, nil
	}
	const attempts = 5 // other processes may publish at the same time
	for range attempts {
		var next *signedManifest
		if next, err = p.publish(ctx, bundle, list); err == nil {
			p.latest.Store(next.against(bundle, list))
			p.waits.Store(nil)
			return next.Text, next.Signature, nil
		}
		if errors.Is(err, errUnsigned) && next != nil {
			p.wait(ctx, next, bundle, list, err)
			return next.Text, next.Signature, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	return nil, nil, fmt.Errorf("%w: manifest: %w", ca.ErrUnavailable, err)
}

// same says whether two slices are the same bytes in memory. The CA shows the same ones
// until they change, so that a request costs no hash of a list.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// against is the manifest with the bytes that it was held against.
func (s *signedManifest) against(bundle, list []byte) *signedManifest {
	held := *s
	held.bundle, held.list = bundle, list
	return &held
}

// fresh says whether less than half the life of the manifest is over.
func (s *signedManifest) fresh(life time.Duration) bool {
	left := time.Until(s.parsed.ExpiresAt)
	return left > life/2 && left <= life+time.Minute
}

// serves says whether a manifest is still good for what is published.
func (s *signedManifest) serves(want nodesync.Manifest, life time.Duration) bool {
	have := s.parsed
	want.Version, want.IssuedAt, want.ExpiresAt = have.Version, have.IssuedAt, have.ExpiresAt
	text, err := want.Marshal()
	return err == nil && string(text) == string(s.Text) && s.fresh(life)
}

// draft is the manifest for what is published now, but for its version and times.
func (p *publisher) draft(bundle, list []byte) (nodesync.Manifest, error) {
	m := nodesync.Manifest{CA: "sallyport-user-ca", Trust: nodesync.Sum(bundle), Revocation: nodesync.Sum(list)}
	states := map[string]string{}
	for _, k := range p.source.Keys() {
		states[k.Fingerprint] = string(k.State)
	}
	for rest := bundle; len(rest) > 0; {
		key, _, _, next, err := ssh.ParseAuthorizedKey(rest)
		if err != nil {
			return m, fmt.Errorf("trust bundle: %w", err)
		}
		rest = next
		fingerprint := ssh.FingerprintSHA256(key)
		m.Keys = append(m.Keys, nodesync.Key{Fingerprint: fingerprint, State: states[fingerprint]})
	}
	if c, ok := p.source.(interface{ Canary() *ssh.Certificate }); ok {
		if cert := c.Canary(); cert != nil {
			line := ssh.MarshalAuthorizedKey(cert)
			m.Canary = string(line[:len(line)-1])
		}
	}
	return m, nil
}

// publish takes the manifest of the store if it serves, else it writes the next; store.ErrConflict if another was faster. With
// errUnsigned comes the one that nodes may be given meanwhile, if there is one.
func (p *publisher) publish(ctx context.Context, bundle, list []byte) (*signedManifest, error) {
	e, have, next, err := p.prepare(ctx, bundle, list)
	if err != nil {
		return nil, err
	}
	if have != nil && p.signed(have) && have.serves(next.parsed, p.lifetime()) {
		return have, nil
	}
	if next.Signature, err = nodesync.Sign(p.signer, nodesync.Namespace, next.Text); err != nil {
		return p.usable(have), fmt.Errorf("%w: %w", errUnsigned, err)
	}
	if err := p.put(ctx, e, next, ca.Actor{UID: os.Getuid()}); err != nil {
		return nil, err
	}
	return next, nil
}

// prepare drafts the next manifest, above the one of the store, which may be nil.
func (p *publisher) prepare(ctx context.Context, bundle, list []byte) (e store.Entry, have, next *signedManifest, err error) {
	want, err := p.draft(bundle, list)
	if err != nil {
		return e, nil, nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	// Not below the time: after a restore from a backup, nodes must not take the next manifest for an old one.
	want.Version, want.IssuedAt, want.ExpiresAt = now.Unix(), now, now.Add(p.lifetime())
	e, err = p.store.Get(ctx, manifestRecord)
	switch {
	case err == nil:
		if have, err = readManifest(e.Value); err != nil {
			return e, nil, nil, err
		}
		want.Version = max(want.Version, have.parsed.Version+1)
	case !errors.Is(err, store.ErrNotFound):
		return e, nil, nil, err
	}
	next = &signedManifest{parsed: want}
	if p.keeps() {
		next.Trust, next.List = bundle, list
	}
	next.Text, err = want.Marshal()
	return e, have, next, err
}

// put makes a manifest durable, in place of the entry.
func (p *publisher) put(ctx context.Context, e store.Entry, next *signedManifest, actor ca.Actor) error {
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	m := next.parsed
	if err := p.record(ctx, actor, m, audit.Unknown, nil); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // what was begun is on record to its end
	if _, err := p.store.Put(ctx, store.Entry{Key: manifestRecord, Value: value, Revision: e.Revision}); err != nil {
		return errors.Join(err, p.record(ctx, actor, m, audit.Failure, err))
	}
	if err := p.record(ctx, actor, m, audit.Success, nil); err != nil {
		return err
	}
	p.log.InfoContext(ctx, "manifest published", slog.Int64("version", m.Version), slog.Int("keys", len(m.Keys)),
		slog.Int64("revocation_list_bytes", m.Revocation.Size))
	return nil
}

// record has the audit log say what nodes will be told to trust and to refuse. The service does it by itself, after what an
// administrator did or when time has passed; the uid is its own.
func (p *publisher) record(ctx context.Context, actor ca.Actor, m nodesync.Manifest, outcome audit.Outcome, failure error) error {
	e := audit.Event{Action: audit.AdminAct, Outcome: outcome, Detail: map[string]string{
		"act": "ca.manifest", "uid": strconv.Itoa(actor.UID), "version": strconv.FormatInt(m.Version, 10), "expires_at": m.ExpiresAt.Format(time.RFC3339),
		"keys": strconv.Itoa(len(m.Keys)), "trust_sha256": m.Trust.SHA256, "revocation_sha256": m.Revocation.SHA256,
	}}
	if actor.Reason != "" {
		e.Detail["reason"] = actor.Reason
	}
	if failure != nil {
		e.Reason = failure.Error()
	}
	return p.audit.Record(ctx, e)
}

func readManifest(value []byte) (*signedManifest, error) {
	s := &signedManifest{}
	if err := json.Unmarshal(value, s); err != nil {
		return nil, fmt.Errorf("record %q is damaged: %w", manifestRecord, err)
	}
	var err error
	if s.parsed, err = nodesync.ParseManifest(s.Text); err != nil {
		return nil, fmt.Errorf("record %q is damaged: %w", manifestRecord, err)
	}
	return s, nil
}

// signed says whether the signature is of the present distribution key, which may have been replaced.
func (p *publisher) signed(s *signedManifest) bool {
	_, err := nodesync.Verify([]ssh.PublicKey{p.signer.PublicKey()}, nodesync.Namespace, s.Text, s.Signature)
	return err == nil
}
