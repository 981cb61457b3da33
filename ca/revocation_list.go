package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/krl"
	"sallyport/ca/revocation"
	"sallyport/store"
)

// A revocationList is all revocations at one revision, and the list for the nodes
// that follows from them. It does not change.
type revocationList struct {
	acts         *revocation.Index
	certificates []revokedCertificate
	serials      map[uint64]bool // of certificates

	revision   uint64 // of the state record
	generation uint64 // of the CA keys
	due        time.Time
	version    uint64
	bytes      []byte
}

// latestList is the newest revocationList that this process knows.
type latestList = atomic.Pointer[revocationList]

// listTimeout bounds the making of a list that nobody waits for long.
const listTimeout = 10 * time.Second

// RevocationList is the content of the nodes' RevokedKeys file: a key revocation
// list (package krl). It holds each CA key that was retired or compromised, the
// canary, every revoked key, and every revoked certificate until it has expired. It
// is valid also when nothing is revoked: sshd refuses every login if the file is
// missing or damaged. Its bytes change only with what it says, and its version
// rises with every change, at least to the Unix time of it: so a list is newer
// than all before, even after a backup was restored.
//
// When the store fails, the list is the last one that could be made. It MUST NOT be
// changed, and is the same bytes until there is another list.
func (a *Authority) RevocationList() []byte {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	list, err := a.revoked.publish(ctx, false)
	if err != nil {
		a.logger.Error("revocation list cannot be made anew", slog.Any("error", err))
		list = a.revoked.latest.Load()
	}
	return list.bytes
}

// awaitPause is the time between two looks of [Authority.AwaitRevocationList].
const awaitPause = 200 * time.Millisecond

// AwaitRevocationList returns when the version of RevocationList is another than the
// given one, or when ctx ends. It looks again and again, at the cost of reading one
// record: the list also changes with the CA's keys, with time, and by other processes.
func (a *Authority) AwaitRevocationList(ctx context.Context, version uint64) {
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	for {
		list, err := a.revoked.publish(ctx, false)
		if err == nil && list.version != version {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// RevocationVersion is that of RevocationList.
func (a *Authority) RevocationVersion() uint64 { return a.revoked.latest.Load().version }

// Canary is a certificate that every list revokes, by its key. It opens nothing.
func (a *Authority) Canary() *ssh.Certificate { return a.revoked.canary.cert }

// CanarySigner signs with the key of the canary. A node that accepts a certificate
// over this key, whoever signed it, does not check the list.
func (a *Authority) CanarySigner() ssh.Signer { return a.revoked.canary.signer }

// openRevocations is the part of New.
func (a *Authority) openRevocations(ctx context.Context) error {
	a.revoked = &revocations{store: a.store, register: a.register, keys: a.caKeys}
	if err := a.revoked.openCanary(ctx); err != nil {
		return err
	}
	_, err := a.revoked.publish(ctx, false)
	return err
}

// caKeys are the CA keys that sign or are trusted, by fingerprint, and those that
// are neither for good.
func (a *Authority) caKeys() (uint64, map[string]ssh.PublicKey, []ssh.PublicKey) {
	v := a.ring.latest.Load()
	known := make(map[string]ssh.PublicKey)
	for _, k := range v.Keys {
		if !k.State.ended() {
			known[k.fingerprint()] = k.parse()
		}
	}
	return v.Generation, known, v.distrusted()
}

// read returns the revocations as they stand in the store.
func (s *revocations) read(ctx context.Context) (*revocationList, error) {
	e, err := s.store.Get(ctx, revocationStateKey)
	if err != nil {
		return nil, fmt.Errorf("%w: revocations: %w", ErrUnavailable, err)
	}
	if last := s.latest.Load(); last != nil && last.revision == e.Revision {
		return last, nil
	}
	return s.publish(ctx, false)
}

// publish makes the list of what the store holds, and a new version if it says
// anything else than before. With touch, readers are told of a change in any case.
func (s *revocations) publish(ctx context.Context, touch bool) (*revocationList, error) {
	for {
		e, err := s.store.Get(ctx, revocationStateKey)
		if errors.Is(err, store.ErrNotFound) {
			e, err = store.Entry{Key: revocationStateKey, Value: []byte("{}")}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: revocation list: %w", ErrUnavailable, err)
		}
		generation, known, distrusted := s.keys()
		last := s.latest.Load()
		if !touch && last != nil && last.revision == e.Revision && last.generation == generation && time.Now().Before(last.due) {
			return last, nil
		}
		list, err := s.make(ctx, e, known, distrusted, touch)
		if errors.Is(err, store.ErrConflict) {
			continue // somebody else published
		}
		if err != nil {
			return nil, err
		}
		list.generation = generation
		s.remember(list)
		return list, nil
	}
}

// remember makes list the latest, unless a later one is.
func (s *revocations) remember(list *revocationList) {
	for last := s.latest.Load(); last == nil || last.revision <= list.revision; last = s.latest.Load() {
		if s.latest.CompareAndSwap(last, list) {
			return
		}
	}
}

// make builds the list and writes the state if it is new, or with touch.
func (s *revocations) make(ctx context.Context, e store.Entry, known map[string]ssh.PublicKey, distrusted []ssh.PublicKey, touch bool) (*revocationList, error) {
	var state revocationState
	if err := json.Unmarshal(e.Value, &state); err != nil {
		return nil, fmt.Errorf("%w: state of the revocation list is damaged: %w", ErrUnavailable, err)
	}
	acts, err := s.register.Reload(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	certificates, err := s.load(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	list := &revocationList{acts: acts, serials: make(map[uint64]bool), due: now.Add(24 * time.Hour), revision: e.Revision}
	for _, c := range certificates {
		if ends := time.Unix(c.Until, 0).Add(revocationMargin); now.Before(ends) {
			list.certificates = append(list.certificates, c)
			list.serials[c.Serial] = true
			list.due = earlier(list.due, ends)
		}
	}
	for _, r := range list.acts.Standing(now) {
		if !r.Expires.IsZero() {
			list.due = earlier(list.due, r.Expires)
		}
	}
	content, err := list.content(now, known, distrusted, s.canary.signer.PublicKey())
	if err != nil {
		return nil, err
	}
	plain, err := content.Marshal()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(plain)
	digest := hex.EncodeToString(sum[:])
	changed := digest != state.Digest
	if changed {
		state = revocationState{Version: max(state.Version+1, uint64(now.Unix())), Generated: now, Digest: digest} //nolint:gosec // after 1970
	}
	if changed || touch {
		if e.Value, err = json.Marshal(state); err != nil {
			return nil, fmt.Errorf("encode state of the revocation list: %w", err)
		}
		if e, err = s.store.Put(ctx, e); err != nil {
			return nil, fmt.Errorf("%w: revocation list: %w", ErrUnavailable, err)
		}
	}
	content.Version, content.Generated = state.Version, state.Generated
	list.version, list.revision = state.Version, e.Revision
	if err := mark(content, known); err != nil {
		return nil, err
	}
	list.bytes, err = content.Marshal()
	return list, err
}

// mark adds the markers of the list's version, for our CAs alone: others may count
// their serials from 1. They are no part of what the list says, which is why they
// come when its version is known.
func mark(content *krl.List, known map[string]ssh.PublicKey) error {
	for _, fp := range slices.Sorted(maps.Keys(known)) {
		wire := known[fp].Marshal()
		i := slices.IndexFunc(content.Certificates, func(c krl.Certificates) bool { return c.CA != nil && bytes.Equal(c.CA.Marshal(), wire) })
		if i < 0 {
			content.Certificates = append(content.Certificates, krl.Certificates{CA: known[fp]})
			i = len(content.Certificates) - 1
		}
		serials, err := krl.NewSerials(append(slices.Clone(content.Certificates[i].Serials), MarkersUpTo(content.Version))...)
		if err != nil {
			return err
		}
		content.Certificates[i].Serials = serials
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// content is the list without version and time. Certificates of one of our CAs
// are revoked for it alone: other CAs may count their serials from 1.
func (l *revocationList) content(now time.Time, known map[string]ssh.PublicKey, distrusted []ssh.PublicKey, canary ssh.PublicKey) (*krl.List, error) {
	list := &krl.List{Comment: "sallyport", Keys: []ssh.PublicKey{canary}}
	for _, k := range distrusted {
		list.Keys = append(list.Keys, k)
		list.SHA256 = append(list.SHA256, sha256.Sum256(k.Marshal()))
	}
	ranges := make(map[string][]krl.Range) // by fingerprint; "" is any CA
	for _, c := range l.certificates {
		ca := c.CA
		if known[ca] == nil {
			ca = ""
		}
		ranges[ca] = append(ranges[ca], krl.Range{First: c.Serial, Last: c.Serial})
	}
	var keyIDs []string
	for _, r := range l.acts.Standing(now) {
		switch r.Kind {
		case revocation.KeyID:
			keyIDs = append(keyIDs, r.Value)
		case revocation.Key:
			if known[r.Value] != nil {
				continue // it became a CA's after it was revoked, and that must never lock everybody out
			}
			hash, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(r.Value, "SHA256:"))
			if err != nil || len(hash) != sha256.Size {
				return nil, fmt.Errorf("revocation of key %q is damaged", clip(r.Value))
			}
			list.SHA256 = append(list.SHA256, [sha256.Size]byte(hash))
		case revocation.Serial:
			if n, err := strconv.ParseUint(r.Value, 10, 64); err == nil && !l.serials[n] {
				ranges[""] = append(ranges[""], krl.Range{First: n, Last: n})
			}
		case revocation.User, revocation.Subject, revocation.IssuedBefore:
		}
	}
	if len(keyIDs) > 0 {
		ranges[""] = append(ranges[""], nil...)
	}
	for _, ca := range slices.Sorted(maps.Keys(ranges)) {
		serials, err := krl.NewSerials(ranges[ca]...)
		if err != nil {
			return nil, err
		}
		section := krl.Certificates{CA: known[ca], Serials: serials}
		if ca == "" {
			section.KeyIDs = keyIDs
		}
		list.Certificates = append(list.Certificates, section)
	}
	return list, nil
}
