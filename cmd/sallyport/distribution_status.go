package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store"
)

// A distributionStatus is what nodes are given. Its version is what a new node can be told to expect.
type distributionStatus struct {
	Version   int64     `json:"version"` // 0: there is no manifest yet
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Key       string    `json:"key"` // the fingerprint of the distribution key
	Custody   string    `json:"custody"`
	// Due is why a signature of the distribution key is due: nodes do not get what has changed.
	Due string `json:"due,omitempty"`
	// Failure is why nodes are given none.
	Failure string `json:"failure,omitempty"`
}

// Status says what a node that asked now would be given.
func (p *publisher) Status(ctx context.Context) distributionStatus {
	status := distributionStatus{Key: ssh.FingerprintSHA256(p.signer.PublicKey()), Custody: p.custody()}
	if _, _, err := p.Manifest(ctx); err != nil {
		status.Failure = err.Error()
	}
	m := p.latest.Load()
	if w := p.waits.Load(); w != nil {
		m, status.Due = w.last, w.why
	}
	if m != nil {
		status.Version, status.ExpiresAt = m.parsed.Version, m.parsed.ExpiresAt
	}
	return status
}

// Ready says whether there is a manifest for nodes. That a signature is due is not enough to be not ready.
func (p *publisher) Ready(ctx context.Context) error {
	_, _, err := p.Manifest(ctx)
	return err
}

// readDistribution asks the running service, or the data folder while none runs.
func readDistribution(ctx context.Context, f File) (status distributionStatus, err error) {
	var answer struct {
		Parts struct {
			Distribution distributionStatus `json:"distribution"`
		} `json:"parts"`
	}
	err = adminClient(f).call(ctx, http.MethodGet, "/v1/admin/status", nil, &answer)
	if !errors.Is(err, errNoDaemon) {
		return answer.Parts.Distribution, err
	}
	d, p := &daemon{}, &parts{file: f}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := errors.Join(checkDataDir(f.DataDir), d.openRecords(p)); err != nil {
		return status, err
	}
	return lastPublished(ctx, p.db)
}

// lastPublished reads the newest manifest of a store, and makes none.
func lastPublished(ctx context.Context, s store.Store) (status distributionStatus, err error) {
	e, err := s.Get(ctx, manifestRecord)
	if errors.Is(err, store.ErrNotFound) {
		return status, nil
	}
	if err != nil {
		return status, err
	}
	m, err := readManifest(e.Value)
	if err != nil {
		return status, err
	}
	return distributionStatus{Version: m.parsed.Version, ExpiresAt: m.parsed.ExpiresAt}, nil
}

func printDistribution(s streams, d distributionStatus) error {
	var err error
	switch {
	case d.Version == 0 && d.Failure == "":
		_, err = fmt.Fprintln(s.out, "manifest: none was published yet")
	case d.Failure != "":
		_, err = fmt.Fprintf(s.out, "manifest: NONE FOR THE NODES: %s\n", d.Failure)
	default:
		if d.Due != "" {
			fmt.Fprintf(s.out, "A SIGNATURE IS DUE: login nodes do not get what has changed: %s\n", d.Due)
		}
		_, err = fmt.Fprintf(s.out, "manifest %d, good until %s; a new node takes nothing older with --at-least %[1]d\n", d.Version, stamp(d.ExpiresAt))
	}
	return err
}
