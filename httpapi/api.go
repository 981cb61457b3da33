// Package httpapi is the HTTP interface: it turns requests into calls of the
// certificate authority and the executor, and what comes back into answers.
//
// The guarantee: no byte of a body is read, and nothing is looked up, before the
// caller's token is verified (the DeiC format, off by default, has the token in a
// bounded body); every input is bounded; every error is a problem
// document (RFC 9457) with a stable code and constant text, so that internal
// text never leaves; and a command whose client is gone is ended.
//
// The threat is everyone who reaches the listener. The caveat: the routes that
// need no token (trusted CA keys, revocation list, health, documentation) are for
// everyone too, and TLS is the listener's matter.
package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/ca/revocation"
	"sallyport/executor"
	"sallyport/httpapi/places"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"
)

// A TokenVerifier turns a token, with what a request shows beside it, into a caller; see
// [identity.Verifier].
type TokenVerifier interface {
	VerifyPresented(ctx context.Context, p identity.Presentation) (identity.Identity, error)
}

// A CommandRunner runs commands on systems; see [executor.Executor]. Run MUST
// return soon after its context ends, and MUST NOT write to the command's
// writers after it returned.
type CommandRunner interface {
	Run(ctx context.Context, caller identity.Identity, system string, cmd executor.Command) (executor.Result, error)
	Systems(caller identity.Identity) []executor.SystemInfo
	System(caller identity.Identity, name string) (executor.SystemInfo, error)
}

// A CertificateAuthority issues user certificates and publishes what login nodes
// need to check them; see [ca.Authority].
type CertificateAuthority interface {
	Issue(ctx context.Context, r ca.Request) (*ssh.Certificate, error)
	// What these return is never changed, and the same bytes until there are others.
	TrustBundle() []byte
	RevocationList() []byte
	// RevocationVersion is that of the list, or of one before it; it never falls.
	RevocationVersion() uint64
	// AwaitRevocationList returns when the list has another version, or ctx ends.
	AwaitRevocationList(ctx context.Context, version uint64)
}

// A Distributor signs what login nodes must have, see sshd-config/nodesync.
type Distributor interface {
	// Manifest returns the manifest for what is published now, and the signature
	// over it in the format of ssh-keygen -Y sign. Neither is ever changed.
	Manifest(ctx context.Context) (text, signature []byte, err error)
}

// A CertificateLedger knows every certificate that was issued; see [ca.Authority].
type CertificateLedger interface {
	Ledger(ctx context.Context) iter.Seq2[ca.Issued, error]
	Lookup(ctx context.Context, serial uint64) (ca.Issued, error)
}

// A RefusalProber tries logins that nodes must refuse; see [ca.Authority].
type RefusalProber interface {
	ProbeRefusals(ctx context.Context, actor ca.Actor, system string, accounts []string) ([]ca.RefusalAnswer, error)
}

// An Authorizer decides what a caller whose token is good may ask for. Its errors are
// [*policy.DeniedError] and [policy.ErrUnavailable]; see [policy.Policy].
type Authorizer interface {
	Authorize(ctx context.Context, caller identity.Identity, act policy.Act) error
	// MayRunCommands says of a call that Authorize has allowed whether the caller may run
	// commands on its system.
	MayRunCommands(ctx context.Context, caller identity.Identity, act policy.Act) (bool, error)
}

// A Check is one thing without which the service is not ready.
type Check struct {
	// Name is shown on the admin listener only.
	Name string
	// Ready returns nil, or why not. It is given two seconds.
	Ready func(ctx context.Context) error
}

// An Observer counts what was answered; see package metrics. Request is called
// once for each request, after its answer. The route is a template of a path or
// "none", the method a known one or "other", the code that of a problem or "".
type Observer interface {
	Request(route, method string, status int, code string, bytes int64, took time.Duration)
}

// Config says what an [API] serves. A dependency that is nil leaves its routes
// out: the document at /openapi.json and the page at /docs leave them out too.
type Config struct {
	// Tokens is required.
	Tokens TokenVerifier
	// Gate refuses callers whose access was revoked, from every call that needs a token;
	// nil refuses nobody.
	Gate Gate
	// Policy decides about every call that needs a token; nil allows all of them.
	Policy Authorizer
	// Commands serves /v1/systems.
	Commands CommandRunner
	// Certificates serves /v1/certificates and /v1/ca.
	Certificates CertificateAuthority
	// Compat serves certificates in other services' formats.
	Compat Compat
	// Mounts are other APIs, each below prefixes of its own.
	Mounts []Mounted
	// Distribution serves /v1/ca/manifest.
	Distribution Distributor
	// Revocations serves /v1/admin/revocations on the admin listener.
	Revocations Revoker
	// Unreached says where access may go on after an act, a sentence each; nil: nowhere.
	Unreached func(act revocation.Act) []string
	// Sessions ends what is open when somebody is revoked; nil if nothing can be.
	Sessions SessionCloser
	// Ring serves /v1/admin/ca on the admin listener.
	Ring ca.Rotator
	// Approvals serves /v1/admin/approvals there.
	Approvals Approvals
	// Approvers decides who may approve by a token, at /v1/approvals; nil is nobody.
	Approvers Authorizer
	// Refusals serves /v1/admin/ca/refusals there.
	Refusals RefusalProber
	// Ledger serves /v1/admin/certificates on the admin listener.
	Ledger CertificateLedger
	// Snapshots serves /v1/admin/snapshot on the admin listener.
	Snapshots Snapshotter
	// Observer, if set, is told of every request.
	Observer Observer
	// Metrics, if set, serves /metrics on the admin listener.
	Metrics http.Handler
	// Audit is required; it records refused tokens.
	Audit audit.Recorder
	// Checks decide /readyz. All must pass.
	Checks []Check
	// ReadyFor is how long a good answer of theirs is remembered, since everyone may ask and a check may ask an agent. A
	// bad one is not: those alone share it who ask at the same time.
	ReadyFor time.Duration
	// Status adds named values to /v1/admin/status; each must encode to JSON.
	Status map[string]func() any
	// Version is shown in the status.
	Version string

	// PublicURLs are the addresses under which clients know the service, such as
	// "https://api.example.org" or "https://example.org/sallyport"; a DPoP proof must be
	// for one of them. Without any, they are those of OwnName over TLS, and those of
	// loopback without TLS.
	PublicURLs []string
	// OwnName says whether a host name is this service's, by its TLS certificate.
	OwnName func(host string) bool
	// ProofNonce is the nonce that DPoP proofs must hold now, or "" if they need none.
	ProofNonce func() string
	// HSTS is how long a client that came by TLS shall use nothing else (RFC 6797);
	// 0 sends no such header, and over plain HTTP there never is one.
	HSTS time.Duration

	// TrustedProxies may set X-Forwarded-For. From anyone else it is ignored.
	TrustedProxies []netip.Prefix
	// MaxExecBody bounds the body of an exec call, stdin included, in bytes;
	// default 1 MiB.
	MaxExecBody int64
	// MaxCertificateBody bounds the body of a certificate request in bytes;
	// default 64 KiB.
	MaxCertificateBody int64
	// Nodes are the networks of login nodes and mirrors, which go before strangers; see
	// [API.SetNodes].
	Nodes []netip.Prefix
	// MaxAnonymous bounds the requests without a good token that are served at a time: so
	// many for the files that nodes trust, and as many for all the rest. Default 1024.
	MaxAnonymous int
	// MaxAnonymousPerAddress bounds those of one address; default an eighth of MaxAnonymous.
	MaxAnonymousPerAddress int
	// MaxStreams bounds the requests in one connection of HTTP/2; default 100.
	MaxStreams int
	// MaxInFlight bounds the requests of callers served at a time, streams included; more
	// are refused with 503. Default 1024.
	MaxInFlight int
	// MaxInFlightPerCaller bounds those of one caller; more are refused with 429.
	// Default: a quarter of MaxInFlight.
	MaxInFlightPerCaller int
	// Rates limit requests over time, by caller and client; more are refused with 429.
	Rates []RatePolicy
	// MaxOutput bounds each output stream in an answer that is not streamed, in
	// bytes, when the request sets no max_output_bytes; default 4 MiB.
	MaxOutput int64
	// OutputMemory bounds what all answers together hold of commands' output, in
	// bytes, beyond 64 KiB of each stream; what does not fit is dropped and the
	// answer says "truncated". One caller gets a quarter of it. Default 256 MiB.
	OutputMemory int64
	// BodyMemory bounds what the bodies of all requests hold, decoded, in bytes, beyond 64 KiB of
	// each; a request whose body does not fit is refused. One caller gets a quarter of
	// it. Default: [DefaultBodyMemory], and room for four of the largest bodies of exec at least.
	BodyMemory int64
	// BodyTimeout bounds how long a body may take to arrive; default 30 s.
	BodyTimeout time.Duration
	// WriteTimeout bounds each write to a client, not the whole answer; a client
	// that does not read for so long is gone. Default 30 s.
	WriteTimeout time.Duration
	// Heartbeat is how long a stream may be silent before a heartbeat is sent;
	// default 15 s.
	Heartbeat time.Duration

	// Logger gets one line per request; nil discards.
	Logger *slog.Logger
}

// DefaultBodyMemory is that of [Config.BodyMemory].
const DefaultBodyMemory = 256 << 20

// An API serves the public and the admin routes.
type API struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	public    http.Handler
	admin     http.Handler
	lanes     lanes
	bounds    bounds
	sheets    sheets
	readiness readiness
	callers   *share   // requests in flight, by caller
	recall    recaller // nil: the verifier cannot
	rates     *rates
	memory    *share    // bytes of output in answers
	bodies    *share    // bytes of bodies
	writers   sync.Pool // of *bufio.Writer
	refusals  *refusals
	draining  atomic.Bool
	// leaving ends with Drain: nobody waits for changes of a service that goes.
	leaving context.Context
	leave   context.CancelFunc
}

// New checks cfg and reports all that is wrong with it at once.
func New(cfg Config) (*API, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	a := &API{
		cfg:       cfg,
		log:       cfg.Logger,
		started:   time.Now(),
		lanes:     newLanes(cfg),
		bounds:    bounds{of: make(map[string]*places.Listener)},
		readiness: readiness{checks: slices.Clone(cfg.Checks), lasts: cfg.ReadyFor},
		callers:   newShare(int64(cfg.MaxInFlight), int64(cfg.MaxInFlightPerCaller)),
		rates:     newRates(slices.Clone(cfg.Rates)),
		memory:    newShare(cfg.OutputMemory, cfg.OutputMemory/4),
		bodies:    newShare(cfg.BodyMemory, cfg.BodyMemory/4),
		refusals:  &refusals{audit: cfg.Audit, log: cfg.Logger},
	}
	a.recall, _ = cfg.Tokens.(recaller)
	a.leaving, a.leave = context.WithCancel(context.Background())
	public := a.publicRoutes()
	docs, err := newDocs(public)
	if err != nil {
		return nil, err
	}
	for _, rt := range docs.routes() {
		rt.serve = a.in(a.lanes.public, rt.serve)
		public = append(public, rt)
	}
	a.public = a.observe(a.lanes.public, a.withMounts(newRouter(a, public)))
	a.admin = a.observe(nil, a.fromPeer(newRouter(a, a.adminRoutes())))
	return a, nil
}

// Handler serves the public routes.
func (a *API) Handler() http.Handler { return a.public }

// Admin serves the admin routes to root and to the daemon's own user, over a
// Unix socket whose server was made by [API.AdminServer]; anyone else gets 403.
func (a *API) Admin() http.Handler { return a.admin }

// Drain makes /readyz fail, so that load balancers send no more requests. What
// comes in all the same is still served.
func (a *API) Drain() {
	a.draining.Store(true)
	a.leave()
}

func (c *Config) check() error {
	var errs []error
	if c.Tokens == nil {
		errs = append(errs, errors.New("tokens: a verifier is required"))
	}
	if c.Audit == nil {
		errs = append(errs, errors.New("audit: a recorder is required"))
	}
	if c.Commands == nil && c.Certificates == nil {
		errs = append(errs, errors.New("neither commands nor certificates are configured"))
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"max exec body", c.MaxExecBody},
		{"max certificate body", c.MaxCertificateBody},
		{"max anonymous", int64(c.MaxAnonymous)},
		{"max anonymous per address", int64(c.MaxAnonymousPerAddress)},
		{"max streams", int64(c.MaxStreams)},
		{"max in flight", int64(c.MaxInFlight)},
		{"max in flight per caller", int64(c.MaxInFlightPerCaller)},
		{"max output", c.MaxOutput},
		{"output memory", c.OutputMemory},
		{"body memory", c.BodyMemory},
		{"body timeout", int64(c.BodyTimeout)},
		{"write timeout", int64(c.WriteTimeout)},
		{"heartbeat", int64(c.Heartbeat)},
		{"hsts", int64(c.HSTS)},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %d is negative", n.name, n.value))
		}
	}
	for _, p := range c.TrustedProxies {
		if !p.IsValid() {
			errs = append(errs, errors.New("trusted proxies: an address range is not valid"))
		}
	}
	if err := c.Compat.check(c.Certificates != nil); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, checkMounts(c.Mounts), checkRates(c.Rates), checkPublicURLs(c.PublicURLs))
	for i, check := range c.Checks {
		if check.Name == "" || check.Ready == nil {
			errs = append(errs, fmt.Errorf("checks: number %d has no name or no function", i+1))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	c.MaxExecBody = cmp.Or(c.MaxExecBody, 1<<20)
	c.MaxCertificateBody = cmp.Or(c.MaxCertificateBody, 64<<10)
	c.MaxAnonymous = cmp.Or(c.MaxAnonymous, 1024)
	c.MaxAnonymousPerAddress = cmp.Or(c.MaxAnonymousPerAddress, max(1, c.MaxAnonymous/8))
	c.MaxStreams = cmp.Or(c.MaxStreams, 100)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 1024)
	c.MaxInFlightPerCaller = cmp.Or(c.MaxInFlightPerCaller, max(1, c.MaxInFlight/4))
	c.MaxOutput = cmp.Or(c.MaxOutput, 4<<20)
	c.OutputMemory = cmp.Or(c.OutputMemory, 256<<20)
	c.BodyMemory = max(cmp.Or(c.BodyMemory, DefaultBodyMemory), 4*BodyMemory(max(c.MaxExecBody, c.MaxCertificateBody)))
	c.BodyTimeout = cmp.Or(c.BodyTimeout, 30*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	c.Version = cmp.Or(c.Version, "devel")
	c.Compat.Profile = cmp.Or(c.Compat.Profile, ca.ProfileExecutor)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
}
