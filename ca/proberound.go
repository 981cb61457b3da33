package ca

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

const (
	probeTTL      = 2 * time.Minute
	probeBackdate = time.Minute
)

// A probeRound has the credentials of one round, which all nodes are asked with.
type probeRound struct {
	logins map[string]ProbeLogin // by the fingerprint of the CA key
	active string                // fingerprint; empty: none is
	// canary and marker are of the active key and revoked: one by every list, the
	// other by those from version on. Nil: no key is active, or no marker is left.
	canary, marker *ProbeLogin
	version        uint64
}

// newRound makes one certificate of each key, and those that must be refused.
func (a *Authority) newRound(ctx context.Context, v *ringView) (probeRound, error) {
	r := probeRound{logins: make(map[string]ProbeLogin)}
	request := audit.NewRequestID()
	var jump ssh.Signer
	if i := v.in(KeyActive); i >= 0 {
		key, err := v.signing(i)
		if err != nil {
			return r, err
		}
		r.active = key.fingerprint
		if jump, err = a.issueProbe(ctx, key, request, probeCertificate{extensions: map[string]string{"permit-port-forwarding": ""}}); err != nil {
			return r, err
		}
		if err := a.addRevoked(ctx, &r, key, request, jump); err != nil {
			return r, err
		}
	}
	for i, k := range v.Keys {
		if k.State == KeyCompromised {
			signer, err := a.farewellSigner(ctx, v, k.fingerprint())
			if err != nil {
				return r, err
			}
			if signer != nil {
				r.logins[k.fingerprint()] = ProbeLogin{User: a.rotation.ProbeUser, Signer: signer, Jump: jump}
			}
			continue
		}
		if k.State == KeyStaged || k.State.ended() || v.held[k.fingerprint()] == nil {
			continue
		}
		key, err := v.signing(i)
		if err != nil {
			return r, err
		}
		signer, err := a.issueProbe(ctx, key, request, probeCertificate{})
		if err != nil {
			return r, err
		}
		r.logins[key.fingerprint] = ProbeLogin{User: a.rotation.ProbeUser, Signer: signer, Jump: jump}
	}
	return r, nil
}

// addRevoked makes the certificates that a node must refuse for its list's sake.
func (a *Authority) addRevoked(ctx context.Context, r *probeRound, key signingKey, request string, jump ssh.Signer) error {
	list, err := a.revoked.publish(ctx, false)
	if err != nil {
		return err
	}
	canary, err := a.issueProbe(ctx, key, request, probeCertificate{plain: a.CanarySigner()})
	if err != nil {
		return err
	}
	r.canary = &ProbeLogin{User: a.rotation.ProbeUser, Signer: canary, Jump: jump}
	serial, err := a.freeMarker(ctx, list.version)
	if err != nil || serial == 0 {
		return err
	}
	marker, err := a.issueProbe(ctx, key, request, probeCertificate{serial: serial})
	if err != nil {
		return err
	}
	r.version = list.version
	r.marker = &ProbeLogin{User: a.rotation.ProbeUser, Signer: marker, Jump: jump}
	return nil
}

// freeMarker returns a marker that the ledger has not, since it takes no serial twice;
// 0 if none is found. Then this round goes without: a list that stood unchanged for
// very long has used up most of its own.
func (a *Authority) freeMarker(ctx context.Context, version uint64) (uint64, error) {
	const tries = 64
	for range tries {
		serial := newMarker(version)
		_, err := a.Lookup(ctx, serial)
		switch {
		case errors.Is(err, ErrNotFound):
			return serial, nil
		case errors.Is(err, ErrUnavailable):
			return 0, err
		}
	}
	a.logger.WarnContext(ctx, "no marker of the revocation list is left: which list a node has is not asked", slog.Uint64("version", version))
	return 0, nil
}

// A probeCertificate is what a probe's certificate has that others have not.
type probeCertificate struct {
	plain      ssh.Signer    // nil: a new key
	serial     uint64        // 0: a random one
	ttl        time.Duration // 0: two minutes
	extensions map[string]string
}

// issueProbe makes a certificate for the probe's account, in the ledger and the
// audit log as all others.
func (a *Authority) issueProbe(ctx context.Context, key signingKey, request string, p probeCertificate) (ssh.Signer, error) {
	if p.plain == nil {
		plain, err := newProbeKey()
		if err != nil {
			return nil, err
		}
		p.plain = plain
	}
	now := time.Now()
	d := &draft{
		profile: profileProbe, key: p.plain.PublicKey(), serial: cmp.Or(p.serial, newSerial()), keyID: "v1:probe::" + a.rotation.ProbeUser + ":" + request,
		principals: []string{a.rotation.ProbeUser}, options: a.probeOptions(ProbeCommand), extensions: p.extensions,
		validAfter: uint64(now.Add(-probeBackdate).Unix()), validBefore: uint64(now.Add(cmp.Or(p.ttl, probeTTL)).Unix()), //nolint:gosec // after 1970
	}
	cert, err := a.issue(ctx, d, key, request)
	if err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, p.plain)
}

// probeOptions limit a certificate to one command, from the service's addresses.
func (a *Authority) probeOptions(command string) map[string]string {
	options := map[string]string{"force-command": command}
	if sources := a.profiles[ProfileExecutor].sources; len(sources) > 0 {
		options["source-address"] = joinNetworks(sources)
	}
	return options
}

// newProbeKey makes a key for one certificate.
func newProbeKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	plain, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	return plain, nil
}
