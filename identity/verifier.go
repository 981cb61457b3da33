package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// A Verifier turns tokens into identities. It is safe for concurrent use.
type Verifier struct {
	issuers map[string]*issuer // by the exact "iss" value
	cache   *cache
	proofs  *proofChecker
	keep    bool // the claims
	stop    context.CancelFunc
	running sync.WaitGroup
}

// An issuer is an IssuerConfig that was checked, with its keys.
type issuer struct {
	cfg            IssuerConfig
	algorithms     []jose.SignatureAlgorithm
	types          []string
	requiredClaims []requiredClaim
	loginPath      []string
	logins         *LoginPolicy
	keys           *keyring
}

type requiredClaim struct {
	path  []string
	value string
}

// New checks the configuration, reports every mistake in it, reads key files,
// and starts to fetch the keys of the other issuers; it does not wait for them
// (see [Verifier.Ready]). The caller must Close the Verifier.
func New(cfg Config) (*Verifier, error) {
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	size := cfg.CacheSize
	if size == 0 {
		size = DefaultCacheSize
	}
	v := &Verifier{issuers: make(map[string]*issuer), cache: newCache(size), keep: cfg.KeepClaims}
	client := httpClient(cfg.HTTPClient)
	mistakes := []error{v.setProofs(cfg)}
	if len(cfg.Issuers) == 0 {
		mistakes = append(mistakes, errors.New("no issuers: nobody could be identified"))
	}
	aliases := make(map[string]bool)
	for _, each := range cfg.Issuers {
		iss, err := newIssuer(each.withDefaults(), client, logger)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("issuer %q: %w", each.Alias, err))
			continue
		}
		if v.issuers[each.URL] != nil || aliases[each.Alias] {
			mistakes = append(mistakes, fmt.Errorf("issuer %q: another one has the same alias or URL", each.Alias))
		}
		v.issuers[each.URL], aliases[each.Alias] = iss, true
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	v.start()
	return v, nil
}

func (v *Verifier) setProofs(cfg Config) error {
	setDefault(&cfg.ProofMaxAge, defaultProofMaxAge)
	if cfg.ProofMaxAge < 0 || cfg.ProofMaxAge > maxProofMaxAge {
		return fmt.Errorf("max age of proofs %v is negative or above %v", cfg.ProofMaxAge, maxProofMaxAge)
	}
	v.proofs = &proofChecker{maxAge: cfg.ProofMaxAge, spent: newReplays(maxSpentPerPerson, maxSpent, time.Now())}
	if cfg.ProofNonces {
		v.proofs.nonces = newNonces()
	}
	return nil
}

func newIssuer(cfg IssuerConfig, client *http.Client, logger *slog.Logger) (*issuer, error) {
	iss := &issuer{cfg: cfg, types: []string{"", "jwt", "at+jwt"}}
	if cfg.Type != "" {
		iss.types = []string{strings.TrimPrefix(strings.ToLower(cfg.Type), "application/")}
	}
	mistakes := []error{cfg.check()}
	note := func(err error) { mistakes = append(mistakes, err) }
	var err error
	iss.algorithms, err = algorithms(cfg.Algorithms)
	note(err)
	iss.loginPath, err = splitPath(cfg.LoginClaim)
	note(err)
	iss.logins, err = cfg.Login.Compile()
	note(err)
	for path, value := range cfg.RequiredClaims {
		names, err := splitPath(path)
		note(err)
		iss.requiredClaims = append(iss.requiredClaims, requiredClaim{names, value})
	}
	var src source = &webSource{client: client, issuer: cfg.URL, jwksURL: cfg.JWKSURL, allowHTTP: cfg.AllowHTTP}
	if cfg.JWKSFile != "" {
		src = fileSource(cfg.JWKSFile)
	}
	iss.keys = newKeyring(cfg, src, logger)
	if cfg.JWKSFile != "" {
		note(iss.keys.loadFile())
	}
	return iss, errors.Join(mistakes...)
}

// loadFile makes the first fetch right away, so that a wrong path is found at
// the start and not at the first token.
func (k *keyring) loadFile() error {
	if err := k.fetch(context.Background()); err != nil {
		return fmt.Errorf("JWKS file: %w", err)
	}
	if len(k.current().keys) == 0 {
		return fmt.Errorf("JWKS file has no usable key: %w", errors.Join(k.current().refused...))
	}
	return nil
}

func (v *Verifier) start() {
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	for _, iss := range v.issuers {
		v.running.Go(func() { iss.keys.run(ctx) })
	}
}

// Close stops the refreshing of keys and waits until that has ended. Tokens
// that need a fetch then give [ErrUnavailable].
func (v *Verifier) Close() error {
	v.stop()
	v.running.Wait()
	return nil
}

// Verify is [Verifier.VerifyPresented] of a bearer token: one that is bound to a key
// or certificate is refused.
func (v *Verifier) Verify(ctx context.Context, raw string) (Identity, error) {
	return v.VerifyPresented(ctx, Presentation{Token: raw})
}

// VerifyPresented turns a token and what came with it into the Identity that they
// prove. Its errors wrap
// [ErrInvalidToken], [ErrExpired], [ErrScope], [ErrNoLogin] or [ErrUnavailable];
// their text says why and is for logs and audit records, not for the client. It
// never holds the token. If the token's signature is good, the error is a
// [*RefusalError] as well. Verify waits for keys only if none that it has fits,
// and at most as long as ctx and one fetch (10 s) last.
func (v *Verifier) VerifyPresented(ctx context.Context, p Presentation) (Identity, error) {
	e, err := v.open(ctx, p.Token)
	if err != nil {
		return Identity{}, err
	}
	return v.proved(e, p)
}

// proved is the one way from a token to an Identity: what the token is bound to is
// checked for each request anew, because what is remembered is the token, not who holds
// its key.
func (v *Verifier) proved(e entry, p Presentation) (Identity, error) {
	err := e.identity.binding.shownBy(p)
	if err == nil && e.identity.binding.key != "" {
		err = v.proofs.check(e, p, time.Now())
	}
	if err != nil {
		return Identity{}, fmt.Errorf("issuer %q: %w", e.issuer.cfg.Alias,
			&RefusalError{Issuer: e.issuer.cfg.Alias, Subject: e.identity.subject, Err: err})
	}
	e.identity.bearer = p.Token
	return e.identity, nil
}

// Nonce is the value that a DPoP proof must hold now, or "" if none has to.
func (v *Verifier) Nonce() string {
	if v.proofs.nonces == nil {
		return ""
	}
	return v.proofs.nonces.current(time.Now())
}

// open verifies the token by itself, or remembers that it was verified.
func (v *Verifier) open(ctx context.Context, raw string) (entry, error) {
	if len(raw) > MaxTokenBytes {
		return entry{}, reject("token has %d bytes, at most %d are acceptable", len(raw), MaxTokenBytes)
	}
	// The whole token, signature included: a name without it would admit forgeries of
	// a token that is remembered.
	sum := sha256.Sum256([]byte(raw))
	if e, ok := v.cache.get(sum, time.Now()); ok {
		return e, nil
	}
	t, err := parse(raw)
	if err != nil {
		return entry{}, err
	}
	iss := v.issuers[t.issuer] // byte for byte, before any key is looked at
	if iss == nil {
		return entry{}, reject("issuer %q is not known", clip(t.issuer))
	}
	id, by, err := iss.verify(ctx, t)
	if err != nil {
		return entry{}, fmt.Errorf("issuer %q: %w", iss.cfg.Alias, err)
	}
	id.digest = TokenDigest(raw)
	if !v.keep {
		id.claims = nil
	}
	e := entry{identity: id, issuer: iss, by: by}
	v.cache.put(sum, e, time.Now())
	return e, nil
}

// Recall is VerifyPresented for a token that was verified before and is still good. It
// costs a hash and a look, and a signature if the token is bound to a key, and waits for
// nothing; false says nothing about a token.
func (v *Verifier) Recall(p Presentation) (caller Identity, ok bool, err error) {
	if len(p.Token) > MaxTokenBytes {
		return Identity{}, false, nil
	}
	e, ok := v.cache.peek(sha256.Sum256([]byte(p.Token)), time.Now())
	if !ok {
		return Identity{}, false, nil
	}
	caller, err = v.proved(e, p)
	return caller, true, err
}

func (iss *issuer) verify(ctx context.Context, t *token) (Identity, proof, error) {
	if !slices.Contains(iss.algorithms, t.alg) {
		return Identity{}, proof{}, reject("algorithm %q is not acceptable", t.alg)
	}
	payload, by, err := iss.keys.verify(ctx, t)
	if err != nil {
		return Identity{}, proof{}, err
	}
	c, err := parseClaims(payload)
	if err != nil {
		return Identity{}, proof{}, &RefusalError{Issuer: iss.cfg.Alias, Err: err}
	}
	id, err := iss.admit(t, c, time.Now())
	if err != nil {
		return Identity{}, proof{}, &RefusalError{Issuer: iss.cfg.Alias, Subject: c.subject(), Err: err}
	}
	return id, by, nil
}

// Ready is nil once the keys of every issuer were loaded and there is one that
// can be used; else it names the issuers that lack them. It does not wait. A
// later outage leaves it nil: one provider that is down must not take the
// service away from the users of the others.
func (v *Verifier) Ready(ctx context.Context) error {
	errs := []error{ctx.Err()}
	for _, iss := range v.issuers {
		if latest := iss.keys.latest.Load(); latest == nil || len(latest.set.keys) == 0 {
			errs = append(errs, fmt.Errorf("issuer %q: %w", iss.cfg.Alias, ErrUnavailable))
		}
	}
	return errors.Join(errs...)
}

// TokenDigest names a token in audit records without giving it away: the first
// 16 hex digits of the SHA-256 of what its issuer signed (header and payload with
// the dot between them, RFC 7515 §5.1), as [Identity.TokenDigest] has it, for
// tokens that were refused. The signature is left out: an ECDSA signature has a
// second spelling (n-s for s) that anybody can make, and the token is the same one.
func TokenDigest(raw string) string {
	signed := raw
	if end := strings.LastIndexByte(raw, '.'); end >= 0 {
		signed = raw[:end]
	}
	sum := sha256.Sum256([]byte(signed))
	return hex.EncodeToString(sum[:8])
}
