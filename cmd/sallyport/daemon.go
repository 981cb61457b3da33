package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"sallyport/ca"
	"sallyport/ca/approval"
	"sallyport/ca/revocation"
	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest"
	"sallyport/identity"
	"sallyport/internal/private"
	"sallyport/metrics"
	"sallyport/policy"
	"sallyport/store/audit"
	"sallyport/store/audit/ship"
	"sallyport/store/bolt"
)

// A daemon is the whole service but for its listeners.
type daemon struct {
	// door is for the first request of clients of streams; nil without FirecREST.
	door     http.Handler
	api      *httpapi.API
	executor *executor.Executor
	metrics  *metrics.Metrics
	follower *credential.Follower // nil: there is no list elsewhere
	closers  []func() error       // in the order of opening
}

// parts is what a daemon is built from, one step after the other.
type parts struct {
	file      File
	log       *slog.Logger
	audit     *audit.Log
	shippers  *ship.Shippers
	signer    *audit.Signer   // nil: nothing is signed
	archiver  *audit.Archiver // nil: nothing is archived
	metrics   *metrics.Metrics
	db        *bolt.DB
	tokens    *identity.Verifier
	keys      caKeys
	revoked   *revocation.Register
	barrier   barrier
	authority *ca.Authority
	policy    *policy.Policy // nil: there is none
	gate      *approval.Gate
	approvers *policy.Policy // nil: nobody approves by a token
	// distribution signs the manifests that nodes follow.
	distribution ssh.Signer
	manifests    *publisher
}

// newDaemon opens everything that f names. What it opened is closed again if a
// later part fails.
func newDaemon(f File, keys caKeys, log *slog.Logger) (d *daemon, err error) {
	d = &daemon{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	p := &parts{file: f, log: log, keys: keys, metrics: metrics.New(version)}
	d.metrics = p.metrics
	if err := checkDataDir(f.DataDir); err != nil {
		return d, err
	}
	if err := d.openRecords(p); err != nil {
		return d, err
	}
	if err := d.ship(p); err != nil {
		return d, err
	}
	if err := d.sign(p); err != nil {
		return d, err
	}
	if err := passGate(p); err != nil {
		return d, err
	}
	if p.tokens, err = identity.New(identityConfig(f, log)); err != nil {
		return d, err
	}
	d.closers = append(d.closers, p.tokens.Close)
	if err := d.openRegister(p); err != nil {
		return d, err
	}
	if err := p.revoked.Bind(context.Background()); err != nil {
		return d, err
	}
	p.barrier = barrier{Register: p.revoked}
	if f.CA.Enabled {
		if p.authority, err = ca.New(caConfig(f, p)); err != nil {
			return d, err
		}
		d.watchNodes(p)
		if p.distribution, err = openDistributionKey(f, keys); err != nil {
			return d, err
		}
		p.manifests = &publisher{source: p.authority, signer: p.distribution, store: p.db, audit: p.recorder(), log: p.log, life: f.CA.Distribution.ManifestLife}
	}
	if f.Executor.Enabled {
		if err := d.openExecutor(p); err != nil {
			return d, err
		}
	}
	if p.policy, err = d.openPolicy(f); err != nil {
		return d, err
	}
	d.probePolicy(p)
	if p.approvers, err = approvers(f); err != nil {
		return d, err
	}
	mounts, err := d.mounts(p)
	if err != nil {
		return d, err
	}
	if d.api, err = httpapi.New(d.apiConfig(p, mounts)); err != nil {
		return d, err
	}
	d.measure(p)
	return d, nil
}

// recorder is the audit log as those see it who record in it.
func (p *parts) recorder() audit.Recorder {
	var recorder audit.Recorder = p.audit
	if p.shippers != nil {
		recorder = p.shippers.Recorder(recorder)
	}
	if p.metrics == nil {
		return recorder
	}
	return p.metrics.Recorder(recorder)
}

// measure has every part looked at by whoever scrapes.
func (d *daemon) measure(p *parts) {
	p.metrics.HTTP(d.api.Load)
	p.metrics.Tokens(p.tokens.Stats)
	p.metrics.Shipping(p.shippers.Status)
	if p.signer != nil {
		p.metrics.Signing(p.signer.Status)
	}
	if p.archiver != nil {
		p.metrics.Archiving(p.archiver.Counts)
	}
	if d.executor != nil {
		p.metrics.Executor(d.executor.Stats)
	}
	if p.authority != nil {
		p.metrics.CA(p.authority)
		p.metrics.Distribution(func() (time.Time, bool) {
			s := p.manifests.Status(context.Background())
			return s.ExpiresAt, s.Due != "" || s.Failure != ""
		})
	}
}

// mounts are the APIs beside our own.
func (d *daemon) mounts(p *parts) ([]httpapi.Mounted, error) {
	if !p.file.FirecREST.Enabled {
		return nil, nil
	}
	cfg := firecrestConfig(p, d.executor)
	storage, err := openStaging(p.file.FirecREST.S3)
	if err != nil {
		return nil, err
	}
	if storage != nil {
		d.closers = append(d.closers, storage.Close)
		cfg.Staging = storage
	}
	cfg.Streaming = streaming(p.file.FirecREST.Streamer)
	handler, err := firecrest.New(cfg)
	if err != nil {
		return nil, err
	}
	d.door = handler.Door()
	return []httpapi.Mounted{handler}, nil
}

// close closes what was opened, the last first.
func (d *daemon) close() error {
	var errs []error
	for _, c := range slices.Backward(d.closers) {
		errs = append(errs, c())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// openRecords opens the audit log and the database.
func (d *daemon) openRecords(p *parts) (err error) {
	p.audit, err = audit.Open(auditConfig(p.file, p.log))
	if err != nil {
		return inUse(p.file, err)
	}
	d.closers = append(d.closers, p.audit.Close)
	p.db, err = bolt.Open(bolt.Config{Path: p.file.databasePath(), Logger: p.log})
	if err != nil {
		return inUse(p.file, err)
	}
	d.closers = append(d.closers, p.db.Close)
	p.gate, err = newGate(p.file, p.db, p.recorder(), p.refused)
	return err
}

// passGate records what takes two people if that has changed, and refuses to serve from a
// folder whose restore nobody else has approved.
func passGate(p *parts) error {
	ctx := context.Background()
	if err := p.gate.Announce(ctx); err != nil {
		return err
	}
	if err := p.gate.Release(ctx); err != nil {
		return fmt.Errorf("%q came from a backup: %w", p.file.DataDir, err)
	}
	return nil
}

// inUse says what a lock that another process holds means.
func inUse(f File, err error) error {
	if errors.Is(err, audit.ErrLocked) || errors.Is(err, bolt.ErrLocked) {
		return fmt.Errorf("another sallyport serves from %q: %w", f.DataDir, err)
	}
	return err
}

func (d *daemon) openExecutor(p *parts) error {
	provider, err := d.credentials(p)
	if err != nil {
		return err
	}
	if d.executor, err = executor.New(executorConfig(p, provider)); err != nil {
		return err
	}
	return d.follow(p)
}

// cacheRenewBefore must exceed the time before its end at which the pool replaces
// a connection (30 s and up to 15 s of jitter): else the successor would be made
// with a certificate that is about to end, too.
const cacheRenewBefore = time.Minute

// credentials is the seam between CA and executor.
func (d *daemon) credentials(p *parts) (executor.CredentialProvider, error) {
	switch p.file.Executor.Credentials {
	case "static":
		keys, err := credential.NewStatic(staticConfig(p.file))
		if err != nil {
			return nil, err
		}
		p.barrier.accounts = keys.Accounts
		return keys, nil
	case "remote", "deic":
		return d.openRemote(p.file.Executor)
	}
	p.barrier.own = true
	var caches [2]*ca.Cache
	for i, profile := range []string{ca.ProfileExecutor, ca.ProfileJump} {
		var err error
		caches[i], err = ca.NewCache(ca.CacheConfig{
			Authority: p.authority, Store: p.db, Profile: profile, RenewBefore: cacheRenewBefore,
		})
		if err != nil {
			return nil, err
		}
	}
	return credential.NewBuiltin(caches[0], caches[1]), nil
}

// checkDataDir refuses a data folder that others could read or swap files in.
func checkDataDir(path string) error {
	err := private.CheckDir(path, 0o077)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data_dir: %w; 'sallyport init DIR' makes one", err)
	}
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}

// readyChecks decide /readyz.
func readyChecks(p *parts) []httpapi.Check {
	checks := []httpapi.Check{
		{Name: "issuer keys", Ready: p.tokens.Ready},
		{Name: "room for audit records", Ready: func(context.Context) error { return checkRoom(p.file.Audit.Dir) }},
		{Name: "room for the store", Ready: func(context.Context) error { return checkRoom(p.file.DataDir) }},
		{Name: "store", Ready: func(ctx context.Context) error {
			for _, err := range p.db.List(ctx, "ready/") {
				return err
			}
			return nil
		}},
	}
	if p.shippers != nil {
		checks = append(checks, httpapi.Check{Name: "receivers of audit records", Ready: func(context.Context) error { return p.shippers.Ready() }})
	}
	if p.authority != nil {
		checks = append(checks, httpapi.Check{Name: "CA key", Ready: p.authority.Ready})
		checks = append(checks, httpapi.Check{Name: "manifest for login nodes", Ready: p.manifests.Ready})
	}
	return checks
}

// leastRoom is what must be free for records: far more than the requests in
// flight can write before the next look.
const leastRoom = 4 << 20

// checkRoom says whether there is room in a folder. Without it nothing can be
// recorded, so nothing would be done.
func checkRoom(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%q: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < leastRoom { //nolint:gosec // a block size is positive
		return fmt.Errorf("%q has %d bytes left, less than %d", dir, free, leastRoom)
	}
	return nil
}

// drain lets running commands finish for at most timeout.
func (d *daemon) drain(ctx context.Context, timeout time.Duration) error {
	if d.executor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return d.executor.Close(ctx)
}
