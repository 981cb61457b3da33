package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// firstRetry is the pause after the first failed fetch. It doubles with each
// further failure, up to the issuer's MinRefreshInterval.
const firstRetry = time.Second

// maxWaiting bounds the tokens that wait for one fetch. Anybody can send tokens that no
// key fits; if the issuer is slow they must not take the places of those that are
// verified without it.
const maxWaiting = 128

var (
	errClosed  = errors.New("verifier is closed")
	errCrowded = errors.New("too many tokens wait for the issuer's keys")
)

// A keyring keeps the keys of one issuer fresh. All fetches are made by its one
// goroutine, so there is never more than one under way; readers take the latest
// set without a lock.
type keyring struct {
	source     source
	interval   time.Duration // age at which keys are fetched again
	onDemand   time.Duration // least time between two fetches that tokens cause
	maxStale   time.Duration
	logger     *slog.Logger
	latest     atomic.Pointer[snapshot]
	wake       chan struct{} // capacity 1: a flight waits to be started
	stopped    chan struct{} // closed when run returns
	lastUpdate []byte        // the document of latest; run's own

	mu       sync.Mutex // guards what follows
	flight   *flight    // the fetch that is asked for or under way; nil: none
	demanded time.Time  // when a token last caused a fetch
	waiting  int        // callers of refresh
	failure  error      // of the last fetch; nil if it went well
	fetches  uint64
	failures uint64
}

// A snapshot is a key set and when the issuer last confirmed it.
type snapshot struct {
	set *keySet
	at  time.Time
}

// A flight is one fetch that any number of callers wait for.
type flight struct {
	done chan struct{}
	err  error // set before done is closed
}

func newKeyring(cfg IssuerConfig, src source, logger *slog.Logger) *keyring {
	return &keyring{
		source:   src,
		interval: cfg.RefreshInterval,
		onDemand: cfg.MinRefreshInterval,
		maxStale: cfg.MaxStale,
		logger:   logger.With(slog.String("issuer", cfg.Alias)),
		wake:     make(chan struct{}, 1),
		stopped:  make(chan struct{}),
		flight:   &flight{done: make(chan struct{})}, // the first fetch, which run makes at once
	}
}

// current returns the keys, or nil if there are none yet or the issuer has not
// confirmed them for too long.
func (k *keyring) current() *keySet {
	latest := k.latest.Load()
	if latest == nil || time.Since(latest.at) > k.maxStale {
		return nil
	}
	return latest.set
}

// refresh waits for the fetch that is under way, or asks for one unless a token
// caused one less than the minimum interval ago. It returns the error of that
// fetch, or of the last one if it made none.
func (k *keyring) refresh(ctx context.Context) error {
	f, err := k.join()
	if f == nil {
		return err
	}
	defer k.leave()
	select {
	case <-f.done:
		return f.err
	case <-k.stopped:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns the flight to wait for, or nil and how the last one ended. Who waits
// leaves afterwards.
func (k *keyring) join() (*flight, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting >= maxWaiting {
		return nil, errCrowded
	}
	if k.flight != nil {
		k.waiting++
		return k.flight, nil
	}
	if !k.demanded.IsZero() && time.Since(k.demanded) < k.onDemand {
		return nil, k.failure
	}
	k.demanded = time.Now()
	k.waiting++
	k.flight = &flight{done: make(chan struct{})}
	k.wake <- struct{}{} // never blocks: no flight was waiting
	return k.flight, nil
}

func (k *keyring) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting--
}

// run fetches keys until ctx ends: at once, ahead of their age, soon after a
// failure, and when a token asks.
func (k *keyring) run(ctx context.Context) {
	defer close(k.stopped)
	pause := time.Duration(0)
	if k.latest.Load() != nil {
		pause = k.interval
	}
	retry := firstRetry
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-k.wake:
			timer.Stop()
		}
		if err := k.fetch(ctx); err != nil {
			pause, retry = retry, min(2*retry, max(k.onDemand, firstRetry))
		} else {
			pause, retry = k.interval, firstRetry
		}
	}
}

// fetch makes one flight and lands it.
func (k *keyring) fetch(ctx context.Context) error {
	k.mu.Lock()
	if k.flight == nil {
		k.flight = &flight{done: make(chan struct{})}
	}
	f := k.flight
	k.mu.Unlock()

	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	err := k.update(limited)
	cancel()
	k.logOutcome(ctx, k.land(f, err), err)
	return err
}

// land ends a flight and returns how the one before ended.
func (k *keyring) land(f *flight, err error) (before error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.wake: // asked for between the timer and now: this flight is the answer
	default:
	}
	before = k.failure
	k.flight, k.failure = nil, err
	k.fetches++
	if err != nil {
		k.failures++
	}
	f.err = err
	close(f.done)
	return before
}

// update replaces the set by what the source has now. Keys that the issuer no
// longer lists are gone from then on; on an error the last set stays.
func (k *keyring) update(ctx context.Context) error {
	document, err := k.source.load(ctx)
	if err != nil {
		return err
	}
	old := k.latest.Load()
	if old != nil && bytes.Equal(document, k.lastUpdate) {
		k.latest.Store(&snapshot{set: old.set, at: time.Now()})
		return nil
	}
	set, err := parseKeySet(document)
	if err != nil {
		return err
	}
	k.latest.Store(&snapshot{set: set, at: time.Now()})
	k.lastUpdate = document
	k.report(ctx, old, set)
	return nil
}

// verify returns the payload of a token that a key of the issuer signed, and
// which key that was. A token that no key fits makes the keyring look for new
// keys.
func (k *keyring) verify(ctx context.Context, t *token) ([]byte, proof, error) {
	before := k.current()
	if before != nil {
		if payload, by, ok := before.open(t); ok {
			return payload, by, nil
		}
	}
	err := k.refresh(ctx)
	now := k.current()
	switch {
	case now == nil:
		return nil, proof{}, fmt.Errorf("%w: %w", ErrUnavailable, orStale(err))
	case now != before:
		if payload, by, ok := now.open(t); ok {
			return payload, by, nil
		}
	}
	switch {
	case now.has(t.keyID):
		return nil, proof{}, reject("signature does not verify")
	case err != nil:
		// The key may be new, and the issuer could not be asked.
		return nil, proof{}, fmt.Errorf("%w: no key %q: %w", ErrUnavailable, clip(t.keyID), err)
	}
	return nil, proof{}, reject("no key %q verifies the signature", clip(t.keyID))
}

func orStale(err error) error {
	if err == nil {
		return errors.New("not confirmed for too long")
	}
	return err
}
