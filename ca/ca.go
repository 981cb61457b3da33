// Package ca is the SSH certificate authority: it turns a verified identity into
// a short-lived OpenSSH user certificate.
//
// The guarantee: nobody can ask it for arbitrary principals. They derive from an
// [identity.Identity], which only a verified token makes, and the rest of the
// certificate derives from a validated profile; the caller supplies a public key
// and may make the certificate narrower, never wider. The intent to sign is
// durable in the audit log and in the ledger before the signature is made, so a
// certificate that exists anywhere is known to both, also after a crash. Each
// certificate is compared with its draft after signing and before release.
//
// The threat: whoever holds the CA key is everybody. The key stays inside [Key],
// on disk encrypted if a passphrase is set, and 0600 always.
//
// The caveat: a certificate cannot be called back. A node honours it until it
// expires, unless the node pulls the revocation list; hence the short lifetimes.
package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/revocation"
	"sallyport/store"
	"sallyport/store/audit"
)

// DefaultLedgerRetention is how long the ledger keeps a certificate after it has
// expired, when the configuration does not say.
const DefaultLedgerRetention = 30 * 24 * time.Hour

// Config is what an Authority is made of.
type Config struct {
	// Key is the initial key, which signs until the first rotation. Required until
	// then, nil once it has been destroyed.
	Key *Key
	// Keys keeps the keys that follow the initial one; nil means that none can.
	Keys KeyStore
	// Retired are public keys of CAs that no longer sign. Like the active key
	// they are never certified: revoking such a certificate would revoke the CA.
	Retired []ssh.PublicKey
	// Store keeps the ledger under "ledger/" and the key ring under "ca/". Required.
	Store store.Store
	// Audit records every intent, certificate and refusal. Required.
	Audit audit.Recorder
	// Rotation says how keys follow one another.
	Rotation RotationConfig
	// Profiles adds to the built-in profiles "executor", "jump" and "user", or
	// replaces one of them by name.
	Profiles []ProfileConfig
	// Revocations are the acts that stand. Nil means those of Store, where nobody has said
	// which issuers there are.
	Revocations *revocation.Register
	// LedgerRetention is how long a row outlives its certificate; 0 means
	// DefaultLedgerRetention.
	LedgerRetention time.Duration
	// Approvals lets administrators' acts through or holds them; nil holds none.
	Approvals Approver
	// Logger receives what goes wrong beside the act itself; nil discards it.
	Logger *slog.Logger
}

// An Authority issues certificates. It is safe for concurrent use.
type Authority struct {
	ring      *keyring
	register  *revocation.Register
	revoked   *revocations
	rotation  RotationConfig
	probing   chan struct{} // one element while a round of probes is under way
	store     store.Store
	audit     audit.Recorder
	approvals Approver
	profiles  map[string]*profile
	retention time.Duration
	logger    *slog.Logger
}

// New validates cfg and reports all its mistakes at once.
func New(cfg Config) (*Authority, error) {
	var errs []error
	if cfg.Store == nil {
		errs = append(errs, errors.New("store is missing"))
	}
	if cfg.Audit == nil {
		errs = append(errs, errors.New("audit recorder is missing"))
	}
	if cfg.LedgerRetention < 0 {
		errs = append(errs, fmt.Errorf("ledger retention %s is negative", cfg.LedgerRetention))
	}
	errs = append(errs, cfg.Rotation.validate())
	profiles, err := compileProfiles(cfg.Profiles)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}

	a := &Authority{
		rotation:  cfg.Rotation.withDefaults(),
		probing:   make(chan struct{}, 1),
		store:     cfg.Store,
		audit:     cfg.Audit,
		approvals: cfg.Approvals,
		profiles:  profiles,
		retention: cfg.LedgerRetention,
		logger:    cfg.Logger,
	}
	if a.retention == 0 {
		a.retention = DefaultLedgerRetention
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	a.ring = &keyring{store: cfg.Store, keys: cfg.Keys, retired: cfg.Retired, logger: a.logger, custody: cfg.Key != nil && cfg.Key.ready != nil}
	a.ring.initial.Store(cfg.Key)
	if err := a.ring.open(context.Background()); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if err := a.ring.sweep(a.ring.latest.Load()); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if a.register = cfg.Revocations; a.register == nil {
		a.register, err = revocation.Open(context.Background(), revocation.Config{Store: cfg.Store, Audit: cfg.Audit, Logger: a.logger})
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", unavailable(err))
		}
	}
	if err := a.openRevocations(context.Background()); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, nil
}
