package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/krl"
	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/store/audit"
)

// elsewhere says whether certificates come from a service over the network.
func (s ExecutorSection) elsewhere() bool {
	return s.Credentials == "remote" || s.Credentials == "deic"
}

func (d *decoder) checkRemote(s RemoteSection) {
	const at = "executor.remote."
	d.require(at+"url", s.URL)
	if s.CAKeys == "" {
		d.requireList(at+"ca_fingerprints", s.CAFingerprints, "give it, or ca_keys; else any CA would be believed")
	}
	if s.TTL > s.MaxTTL {
		d.fail(at+"ttl", "%q is above max_ttl, %q", s.TTL, s.MaxTTL)
	}
	if s.TTL%time.Minute != 0 {
		d.fail(at+"ttl", "%q is not whole minutes", s.TTL)
	}
}

// openRemote makes the client of the certificate service.
func (d *daemon) openRemote(s ExecutorSection) (executor.CredentialProvider, error) {
	cfg := credential.ServiceConfig{
		URL: s.Remote.URL, AllowHTTP: s.Remote.AllowHTTP, Timeout: s.Remote.Timeout, Version: version,
		RequestID:   func(ctx context.Context) string { return audit.RequestFrom(ctx).ID },
		Traceparent: func(ctx context.Context) string { return audit.RequestFrom(ctx).Traceparent },
		Expect: credential.Expectation{
			CAFingerprints: s.Remote.CAFingerprints, CAKeysFile: s.Remote.CAKeys,
			MaxLifetime: s.Remote.MaxTTL, Extensions: s.Remote.Extensions,
		},
	}
	var err error
	if cfg.TLSRoots, err = readRoots(s.Remote.TLSCA); err != nil {
		return nil, fmt.Errorf("executor.remote.tls_ca: %w", err)
	}
	if s.Credentials == "deic" {
		p, err := credential.NewDeiC(cfg)
		if err != nil {
			return nil, err
		}
		d.closers = append(d.closers, p.Close)
		return p, nil
	}
	p, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: cfg, Lifetime: s.Remote.TTL})
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, p.Close)
	return p, nil
}

// follow keeps up with the revocations of the CA elsewhere: what a revoked
// certificate has opened is ended.
func (d *daemon) follow(p *parts) error {
	s := p.file.Executor
	if !s.elsewhere() {
		return nil
	}
	if s.Remote.RevocationList == "" {
		p.log.Warn("executor.remote.revocation_list is not set: revocations at the CA reach this executor only with the next certificate")
		return nil
	}
	roots, err := readRoots(s.Remote.TLSCA)
	if err != nil {
		return fmt.Errorf("executor.remote.tls_ca: %w", err)
	}
	d.follower, err = credential.NewFollower(credential.FollowConfig{
		URL: s.Remote.RevocationList, AllowHTTP: s.Remote.AllowHTTP, TLSRoots: roots, Timeout: s.Remote.Timeout,
		Logger: p.log, Version: version,
		Apply: func(list *krl.List) {
			ended := d.executor.CloseWhere(func(open executor.Session) bool {
				return slices.ContainsFunc(open.Certificates, func(c *ssh.Certificate) bool { return list.Revokes(c) })
			})
			if ended > 0 {
				p.log.Info("connections of revoked certificates are closed", slog.Int("connections", ended), slog.Uint64("revocation_list", list.Version))
			}
		},
	})
	if err != nil {
		return err
	}
	d.background(d.follower.Run)
	return nil
}

// readRoots reads a PEM file of CAs; an empty path means those of the system.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := readBounded(path, 1<<20)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%q holds no PEM certificate", path)
	}
	return roots, nil
}
