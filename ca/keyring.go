package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store"
)

// ringRecordKey is where the store has the ring.
const ringRecordKey = "ca/ring"

// A KeyStore keeps the private keys of the ring, each under a name. The empty name
// is the initial key, which [Config].Key has loaded.
type KeyStore interface {
	// Create makes a key of that name durable and returns it.
	Create(name string) (*Key, error)
	// Load returns a key; an error that wraps fs.ErrNotExist if there is none.
	Load(name string) (*Key, error)
	// Destroy removes a key for good; nil if there is none.
	Destroy(name string) error
}

// A keyring is the ring in the store, with the private keys that can be had. The
// record is read again at each use, since another process may have changed it: a
// stale one would sign with a key that no node trusts any more.
type keyring struct {
	store   store.Store
	keys    KeyStore // nil: none but the initial key
	retired []ssh.PublicKey
	logger  *slog.Logger
	latest  atomic.Pointer[ringView]
	initial atomic.Pointer[Key] // nil: it was destroyed
	custody bool                // the initial key is, or was, in an agent
}

// A ringView is one generation of the ring. It does not change.
type ringView struct {
	ring
	revision uint64
	text     []byte          // bundle()
	held     map[string]*Key // private keys by fingerprint
	known    map[string]bool // wire form of every CA key there ever was
}

// signingKey is a private key with its fingerprint.
type signingKey struct {
	*Key
	fingerprint string
}

// open reads the ring, or adopts the initial key as the active one.
func (r *keyring) open(ctx context.Context) error {
	v, err := r.read(ctx)
	initial := r.initial.Load()
	if errors.Is(err, store.ErrNotFound) {
		if initial == nil {
			return errors.New("there is no CA key: 'sallyport init' makes one")
		}
		v, err = r.write(ctx, adopt(initial.PublicKey(), time.Now().UTC()), 0)
		if errors.Is(err, store.ErrConflict) {
			v, err = r.read(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("key ring: %w", err)
	}
	if initial != nil && !v.known[string(initial.PublicKey().Marshal())] {
		return fmt.Errorf("key %s is not in the key ring, which was made for another one; put back the former file, or stage a new key with 'sallyport ca stage'",
			initial)
	}
	if i := v.in(KeyActive); i >= 0 && v.held[v.Keys[i].fingerprint()] == nil {
		return fmt.Errorf("the private key of the active CA key %s cannot be had; restore it from a backup", v.Keys[i].fingerprint())
	}
	return nil
}

// read returns the current generation.
func (r *keyring) read(ctx context.Context) (*ringView, error) {
	e, err := r.store.Get(ctx, ringRecordKey)
	if err != nil {
		return nil, err
	}
	last := r.latest.Load()
	if last != nil && last.revision == e.Revision {
		return last, nil
	}
	var next ring
	if err := json.Unmarshal(e.Value, &next); err != nil {
		return nil, fmt.Errorf("record is damaged: %w", err)
	}
	if err := next.check(); err != nil {
		return nil, fmt.Errorf("record is damaged: %w", err)
	}
	return r.remember(next, e.Revision), nil
}

// write replaces the ring of the given revision; store.ErrConflict if it changed.
func (r *keyring) write(ctx context.Context, next ring, revision uint64) (*ringView, error) {
	value, err := json.Marshal(next)
	if err != nil {
		return nil, fmt.Errorf("encode key ring: %w", err)
	}
	e, err := r.store.Put(ctx, store.Entry{Key: ringRecordKey, Value: value, Revision: revision})
	if err != nil {
		return nil, err
	}
	return r.remember(next, e.Revision), nil
}

// remember makes a view of a generation, and the latest unless a later one is.
func (r *keyring) remember(next ring, revision uint64) *ringView {
	v := &ringView{ring: next, revision: revision, text: next.bundle(), held: make(map[string]*Key), known: make(map[string]bool)}
	for _, pub := range r.retired {
		v.known[string(pub.Marshal())] = true
	}
	last := r.latest.Load()
	for _, k := range next.Keys {
		v.known[string(k.parse().Marshal())] = true
		if k.State.ended() {
			continue
		}
		if key := r.hold(k, last); key != nil {
			v.held[k.fingerprint()] = key
		}
	}
	for ; last == nil || last.revision < revision; last = r.latest.Load() {
		if r.latest.CompareAndSwap(last, v) {
			break
		}
	}
	return v
}

// hold returns the private key of k, or nil if it cannot be had: only signing
// needs it, and says so.
func (r *keyring) hold(k ringKey, last *ringView) *Key {
	fp := k.fingerprint()
	if last != nil && last.held[fp] != nil {
		return last.held[fp]
	}
	if initial := r.initial.Load(); initial != nil && ssh.FingerprintSHA256(initial.PublicKey()) == fp {
		return initial
	}
	if r.keys == nil || k.Name == "" {
		return nil
	}
	key, err := r.keys.Load(k.Name)
	if err == nil && ssh.FingerprintSHA256(key.PublicKey()) != fp {
		err = errors.New("it is another key")
	}
	if err != nil {
		r.logger.Error("private CA key cannot be had", slog.String("fingerprint", fp), slog.String("state", string(k.State)), slog.Any("error", err))
		return nil
	}
	return key
}

// inAgent says whether an agent has the active key, or, when there is none, the one
// that was active last.
func (r *keyring) inAgent(v *ringView) bool {
	i := v.in(KeyActive)
	if i < 0 {
		for j, k := range v.Keys {
			if i < 0 || k.ActivatedAt.After(v.Keys[i].ActivatedAt) {
				i = j
			}
		}
	}
	return IsAgent(v.Keys[i].Name) || v.Keys[i].Name == "" && r.custody
}

// active returns the key that signs certificates.
func (r *keyring) active(ctx context.Context) (signingKey, error) {
	v, err := r.read(ctx)
	if err != nil {
		return signingKey{}, fmt.Errorf("%w: key ring: %w", ErrUnavailable, err)
	}
	i := v.in(KeyActive)
	if i < 0 {
		return signingKey{}, fmt.Errorf("%w: no CA key is active: the last was compromised", ErrUnavailable)
	}
	return v.signing(i)
}

// signing returns key i for signing.
func (v *ringView) signing(i int) (signingKey, error) {
	fp := v.Keys[i].fingerprint()
	key := v.held[fp]
	if key == nil {
		return signingKey{}, fmt.Errorf("%w: the private key of %s cannot be had", ErrUnavailable, fp)
	}
	return signingKey{key, fp}, nil
}

// sweep destroys the private keys of what has ended: a crash may have come between
// the record and the removal.
func (r *keyring) sweep(v *ringView) error {
	var errs []error
	for _, k := range v.Keys {
		if k.State.ended() {
			errs = append(errs, r.destroy(k))
		}
	}
	return errors.Join(errs...)
}

// destroy removes the private key of k, in memory as far as Go lets us.
func (r *keyring) destroy(k ringKey) error {
	if k.Name == "" {
		initial := r.initial.Load()
		if initial == nil || ssh.FingerprintSHA256(initial.PublicKey()) != k.fingerprint() {
			return nil // what lies at its place now, if anything, is another key
		}
		defer r.initial.CompareAndSwap(initial, nil)
	}
	if r.keys == nil {
		return nil
	}
	if err := r.keys.Destroy(k.Name); err != nil {
		return fmt.Errorf("private key of %s, which is %s: %w", k.fingerprint(), k.State, err)
	}
	return nil
}

// distrusted are the keys that no node may trust again, the latest last.
func (v *ringView) distrusted() (keys []ssh.PublicKey) {
	for _, k := range v.Keys {
		if k.State.ended() {
			keys = append(keys, k.parse())
		}
	}
	return keys
}

// errWithdrawn says that a key stopped signing while a certificate was made.
var errWithdrawn = errors.New("the CA key was withdrawn meanwhile")

// mayStillSign refuses a signature with a key that is not active any more. Probes
// may have those of every key that has not ended.
func (r *keyring) mayStillSign(ctx context.Context, fingerprint string, probe bool) error {
	v, err := r.read(ctx)
	if err != nil {
		return fmt.Errorf("%w: key ring: %w", ErrUnavailable, err)
	}
	i := v.in(KeyActive)
	if i >= 0 && v.Keys[i].fingerprint() == fingerprint || probe && v.held[fingerprint] != nil {
		return nil
	}
	return fmt.Errorf("%w: %w: %s", ErrUnavailable, errWithdrawn, fingerprint)
}

// Ready says whether certificates can be signed now.
func (a *Authority) Ready(ctx context.Context) error {
	key, err := a.ring.active(ctx)
	if err != nil {
		return err
	}
	return key.Ready(ctx)
}
