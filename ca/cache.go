package ca

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/store"
)

// cacheTimeout bounds a search, whose caller may have given up.
const cacheTimeout = time.Minute

// minRenewBefore leaves a new connection some time to live.
const minRenewBefore = 30 * time.Second

// CacheConfig is what a Cache is made of.
type CacheConfig struct {
	// Authority issues what the cache lacks. Required.
	Authority *Authority
	// Store keeps the records under "credential/". Required.
	Store store.Store
	// Profile is the profile of the certificates; empty means "executor".
	Profile string
	// RenewBefore is how much life a cached certificate must have left to be used;
	// 0 means a fifth of its life and at least 30 seconds. It is never more than
	// half of the life.
	RenewBefore time.Duration
}

// A Cache holds one ephemeral ed25519 key and its certificate of one profile for
// each caller and system, so that an executor that dials often does not issue often. It lives in
// the store: the certificate plain, the private key sealed with AES-256-GCM under
// a key that derives from the active CA key, and bound to caller, system and certificate.
// It survives a restart and is useless to whoever steals the file.
//
// What a cache cannot do is notice that a caller was locked out at the identity
// provider meanwhile; it looks only at a caller whose token was verified just now.
type Cache struct {
	authority   *Authority
	profile     *profile
	store       store.Store
	renewBefore time.Duration

	// mu guards flights: who is at work on which record. No I/O under it.
	mu      sync.Mutex
	flights map[cacheKey]*flight
}

// cacheKey is whom and what a credential is for. Issuer and subject are part of
// it, so two people who share one account never share a credential.
// The profile is that of [profile.nameFor].
type cacheKey struct{ profile, issuer, subject, login, system string }

// A flight is one search for a credential; done is closed when the rest is set.
type flight struct {
	done   chan struct{}
	signer ssh.Signer
	cert   *ssh.Certificate
	err    error
}

// NewCache validates cfg and reports all its mistakes at once.
func NewCache(cfg CacheConfig) (*Cache, error) {
	var errs []error
	if cfg.Authority == nil {
		errs = append(errs, errors.New("authority is missing"))
	}
	if cfg.Store == nil {
		errs = append(errs, errors.New("store is missing"))
	}
	if cfg.RenewBefore < 0 {
		errs = append(errs, fmt.Errorf("renew before %s is negative", cfg.RenewBefore))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("credential cache: %w", err)
	}
	if cfg.Profile == "" {
		cfg.Profile = ProfileExecutor
	}
	p := cfg.Authority.profiles[cfg.Profile]
	if p == nil {
		return nil, fmt.Errorf("credential cache: profile %q is not configured", cfg.Profile)
	}
	return &Cache{
		authority:   cfg.Authority,
		profile:     p,
		store:       cfg.Store,
		renewBefore: cfg.RenewBefore,
		flights:     make(map[cacheKey]*flight),
	}, nil
}

// Credential returns a signer that logs the caller in on system, and its
// certificate, which has some life left. Concurrent calls for one caller and
// system share one search, which goes on if its caller gives up. Errors are those
// of [Authority.Issue].
func (c *Cache) Credential(ctx context.Context, caller identity.Identity, system string) (ssh.Signer, *ssh.Certificate, error) {
	if !caller.Valid() || !caller.Expires().After(time.Now()) {
		return nil, nil, &RequestError{CodeIdentity, "token", "names nobody, or has expired"}
	}
	key := cacheKey{c.profile.nameFor(caller), caller.Issuer(), caller.Subject(), caller.Login(), system}
	for {
		f, mine := c.board(key)
		if mine {
			c.fly(ctx, f, key, caller)
			return c.land(ctx, f, caller)
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-f.done:
		}
		// A refusal speaks of the other call's token, which may have been older.
		if !errors.Is(f.err, ErrPolicy) {
			return c.land(ctx, f, caller)
		}
	}
}

// land returns what a flight has found, unless it was revoked meanwhile.
func (c *Cache) land(ctx context.Context, f *flight, caller identity.Identity) (ssh.Signer, *ssh.Certificate, error) {
	if f.err != nil {
		return nil, nil, f.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
	defer cancel()
	err := c.authority.standing(ctx, caller, f.cert, c.profile.backdate)
	switch {
	case errors.Is(err, errCertificateRevoked):
		return nil, nil, fmt.Errorf("%w: %w meanwhile", ErrUnavailable, err)
	case err != nil:
		return nil, nil, err
	}
	return f.signer, f.cert, nil
}

// board joins the flight of key, or begins it.
func (c *Cache) board(key cacheKey) (f *flight, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	c.flights[key] = f
	return f, true
}

func (c *Cache) fly(ctx context.Context, f *flight, key cacheKey, caller identity.Identity) {
	f.err = errors.New("credential cache: search was broken off") // unless all goes well, a panic included
	defer func() {
		c.mu.Lock()
		delete(c.flights, key)
		c.mu.Unlock()
		close(f.done)
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
	defer cancel()
	f.signer, f.cert, f.err = c.find(ctx, key, caller)
}

// find takes the stored credential if it is good, else makes one and stores it.
func (c *Cache) find(ctx context.Context, key cacheKey, caller identity.Identity) (ssh.Signer, *ssh.Certificate, error) {
	active, err := c.authority.ring.active(ctx)
	if err != nil {
		return nil, nil, err
	}
	entry, err := c.store.Get(ctx, key.record())
	switch {
	case errors.Is(err, store.ErrNotFound):
		entry = store.Entry{Key: key.record()}
	case err != nil:
		return nil, nil, fmt.Errorf("%w: credential cache: %w", ErrUnavailable, err)
	default:
		signer, cert, err := c.open(active, entry, caller)
		if err == nil && c.fresh(cert, time.Now()) {
			if err = c.authority.standing(ctx, caller, cert, c.profile.backdate); err == nil {
				return signer, cert, nil
			}
		}
		if err != nil && !errors.Is(err, errFormerKey) {
			c.authority.logger.WarnContext(ctx, "cached credential is discarded", slog.Any("error", err), slog.Any("caller", caller))
		}
	}

	signer, cert, seed, err := c.issue(ctx, caller)
	if err != nil {
		return nil, nil, err
	}
	entry.Value, err = c.seal(active, entry.Key, seed, cert)
	if err != nil {
		return nil, nil, err
	}
	entry.Expires = unixTime(cert.ValidBefore)
	if _, err := c.store.Put(ctx, entry); err != nil && !errors.Is(err, store.ErrConflict) {
		// The credential is good and recorded; only the next dial pays for this.
		c.authority.logger.WarnContext(ctx, "credential is not cached", slog.Any("error", err), slog.Any("caller", caller))
	}
	return signer, cert, nil
}

// issue makes a key and has it certified for the caller's login.
func (c *Cache) issue(ctx context.Context, caller identity.Identity) (ssh.Signer, *ssh.Certificate, []byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("ephemeral key: %w", err)
	}
	plain, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("ephemeral key: %w", err)
	}
	cert, err := c.authority.Issue(ctx, Request{Caller: caller, Profile: c.profile.name, PublicKey: plain.PublicKey(), ephemeral: true})
	if err != nil {
		return nil, nil, nil, err
	}
	signer, err := ssh.NewCertSigner(cert, plain)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("ephemeral key: %w", err)
	}
	return signer, cert, private.Seed(), nil
}

// fresh says whether enough of the certificate's life is left to begin with.
func (c *Cache) fresh(cert *ssh.Certificate, now time.Time) bool {
	begin, end := unixTime(cert.ValidAfter), unixTime(cert.ValidBefore)
	life := end.Sub(begin) - c.profile.backdate
	margin := c.renewBefore
	if margin == 0 {
		margin = max(life/5, minRenewBefore)
	}
	return !now.Before(begin) && now.Before(end.Add(-min(margin, life/2)))
}
