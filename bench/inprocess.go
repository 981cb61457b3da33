package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor/pool"
	"sallyport/identity"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

// prepareCertificates asks for certificates over HTTP, each client for its own key.
func prepareCertificates(_ context.Context, s *site, v *service, clients int) (op, func(), error) {
	callers := make([]*caller, clients)
	for i := range callers {
		signer, err := newSigner()
		if err != nil {
			return nil, nil, err
		}
		callers[i] = newCaller(v.address, s.tokens[i%users], "/v1/certificates",
			fmt.Sprintf(`{"public_key": %q}`, ssh.MarshalAuthorizedKey(signer.PublicKey())), 201, `"certificate":"ssh-ed25519-cert`)
	}
	return calling(callers)
}

// prepareAuthority is the certificate authority alone, on a database and an audit
// log of its own, as durable as those of the service.
func prepareAuthority(ctx context.Context, s *site, _ *service, clients int) (op, func(), error) {
	dir, err := os.MkdirTemp(s.dir, "authority-")
	if err != nil {
		return nil, nil, err
	}
	private, _, err := ca.GenerateKey("ed25519", nil)
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, "ca_key")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		return nil, nil, err
	}
	key, err := ca.LoadKey(file, nil)
	if err != nil {
		return nil, nil, err
	}
	records, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit")})
	if err != nil {
		return nil, nil, err
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "sallyport.db")})
	if err != nil {
		return nil, nil, errors.Join(err, records.Close())
	}
	done := func() { _ = errors.Join(records.Close(), db.Close()) } // the folder is removed next
	authority, err := ca.New(ca.Config{Key: key, Store: db, Audit: records})
	if err != nil {
		done()
		return nil, nil, err
	}
	requests := make([]ca.Request, clients)
	for i := range requests {
		if requests[i], err = s.request(ctx, i); err != nil {
			done()
			return nil, nil, err
		}
	}
	return func(ctx context.Context, client int) error {
		_, err := authority.Issue(ctx, requests[client])
		return err
	}, done, nil
}

// request asks for a certificate of a new key.
func (s *site) request(ctx context.Context, client int) (ca.Request, error) {
	verifier, err := s.verifier(0)
	if err != nil {
		return ca.Request{}, err
	}
	defer verifier.Close() //nolint:errcheck // it never fails
	caller, err := verifier.Verify(ctx, s.tokens[client%users])
	if err != nil {
		return ca.Request{}, err
	}
	signer, err := newSigner()
	return ca.Request{Caller: caller, Profile: ca.ProfileUser, PublicKey: signer.PublicKey()}, err
}

// verifier knows the site's issuer. A negative size of its cache switches that off.
func (s *site) verifier(cacheSize int) (*identity.Verifier, error) {
	return identity.New(identity.Config{
		Issuers: []identity.IssuerConfig{s.issuer.IssuerConfig("bench")}, CacheSize: cacheSize,
	})
}

func prepareVerify(cacheSize int) func(context.Context, *site, *service, int) (op, func(), error) {
	return func(_ context.Context, s *site, _ *service, _ int) (op, func(), error) {
		verifier, err := s.verifier(cacheSize)
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, _ int) error {
			_, err := verifier.Verify(ctx, s.tokens[0])
			return err
		}, func() { _ = verifier.Close() }, nil
	}
}

// still is a connection that does nothing; it is closed when the channel is.
type still chan struct{}

func (c still) Close() error { close(c); return nil } //nolint:unparam // of pool.Conn
func (c still) Wait() error  { <-c; return nil }

// preparePool takes a session from a pool of connections and gives it back.
func preparePool(context.Context, *site, *service, int) (op, func(), error) {
	p, err := pool.New(pool.Config[string, still]{})
	if err != nil {
		return nil, nil, err
	}
	dial := func(context.Context) (pool.Dialed[still], error) {
		return pool.Dialed[still]{Conn: make(still)}, nil
	}
	return func(ctx context.Context, _ int) error {
		lease, err := p.Reserve(ctx, "somebody", dial)
		if err == nil {
			lease.Release()
		}
		return err
	}, func() { _ = p.Close() }, nil
}
