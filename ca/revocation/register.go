package revocation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/identity"
	"sallyport/store"
	"sallyport/store/audit"
)

// prefix is where the store keeps the acts.
const prefix = "revocation/act/"

// Config is what a Register is made of.
type Config struct {
	// Store keeps the acts under "revocation/act/". Required.
	Store store.Store
	// Audit records every act. Required to act.
	Audit audit.Recorder
	// Issuers are those of the configuration. Without any, people are named by URL alone.
	Issuers Issuers
	// Logger gets a line for each act; nil discards.
	Logger *slog.Logger
}

// A Register is the acts that stand. It is safe for concurrent use.
type Register struct {
	store   store.Store
	audit   audit.Recorder
	issuers Issuers
	log     *slog.Logger

	mu    sync.Mutex // held from a change of the store until the index has it
	index atomic.Pointer[Index]
}

// Open reads what stands.
func Open(ctx context.Context, cfg Config) (*Register, error) {
	if cfg.Store == nil {
		return nil, errors.New("revocations: store is missing")
	}
	r := &Register{store: cfg.Store, audit: cfg.Audit, issuers: cfg.Issuers, log: cfg.Logger}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if _, err := r.Reload(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Index is what stands now.
func (r *Register) Index() *Index { return r.index.Load() }

// Admit returns an error that wraps ErrRevoked if the access of a person, or of an
// account that they use, was revoked. It is asked at each request.
func (r *Register) Admit(caller identity.Identity, others ...string) error {
	x := r.index.Load()
	if len(x.acts) == 0 {
		return nil
	}
	if a, ok := x.people[person{caller.Issuer(), caller.Subject()}]; ok {
		return a.refusal()
	}
	if a, ok := x.accounts[strings.ToLower(caller.Login())]; ok {
		return a.refusal()
	}
	for _, name := range others {
		if a, ok := x.accounts[strings.ToLower(name)]; ok {
			return a.refusal()
		}
	}
	return nil
}

// Refuse returns an error that wraps ErrRevoked if an act covers the use.
func (r *Register) Refuse(u Use) error {
	if a, ok := r.index.Load().Covers(u); ok {
		return a.refusal()
	}
	return nil
}

// refusal is for logs and audit records: it says which act it is.
func (a Act) refusal() error { return fmt.Errorf("%w: %s %q", ErrRevoked, a.Kind, clip(a.Value)) }

// Reload reads all acts, also those of other processes.
func (r *Register) Reload(ctx context.Context) (*Index, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var acts []Act
	for e, err := range r.store.List(ctx, prefix) {
		var a Act
		if err == nil {
			err = json.Unmarshal(e.Value, &a)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: revocation %q: %w", ErrUnavailable, e.Key, err)
		}
		acts = append(acts, a)
	}
	x := NewIndex(acts)
	r.index.Store(x)
	return x, nil
}

// Put makes an act stand, durably: who asks after it returns is refused.
func (r *Register) Put(ctx context.Context, a Act) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode revocation: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		e, err := r.store.Get(ctx, prefix+a.id())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		_, err = r.store.Put(ctx, store.Entry{Key: prefix + a.id(), Value: text, Revision: e.Revision, Expires: a.Expires})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		r.index.Store(NewIndex(append(r.without(a), a)))
		return nil
	}
}

// Drop removes an act. The error wraps ErrNotRevoked if it does not stand.
func (r *Register) Drop(ctx context.Context, a Act) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		e, err := r.store.Get(ctx, prefix+a.id())
		if err == nil {
			err = r.store.Delete(ctx, e)
		}
		switch {
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrNotFound):
			return ErrNotRevoked
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		r.index.Store(NewIndex(r.without(a)))
		return nil
	}
}

// without is a copy of the acts without one; r.mu is held.
func (r *Register) without(a Act) []Act {
	id := a.id()
	return slices.DeleteFunc(slices.Clone(r.index.Load().acts), func(b Act) bool { return b.id() == id })
}

// New is the package's New with the issuers of the configuration.
func (r *Register) New(kind Kind, value string) (Act, error) { return New(kind, value, r.issuers) }

// ToLift is New for an act that is to be lifted: it may name what New would refuse by
// now, if it stands under just that name. The error wraps ErrNotRevoked, and the attempt
// is on record, if it does not stand: nobody is asked to approve what cannot be done.
func (r *Register) ToLift(ctx context.Context, actor Actor, a Act) (Act, error) {
	standing := r.Index().Standing(time.Now())
	stands := func(a Act) bool {
		return slices.ContainsFunc(standing, func(b Act) bool { return b.Kind == a.Kind && b.Value == a.Value })
	}
	if err := actor.Check(); err != nil {
		return Act{}, err
	}
	if stands(a) {
		return Act{Kind: a.Kind, Value: a.Value}, nil
	}
	named, err := r.New(a.Kind, a.Value)
	if err == nil && !stands(named) {
		err = r.Recorded(ctx, "revoke.lift", actor, named, func(context.Context, map[string]string) error { return ErrNotRevoked })
	}
	return named, err
}
