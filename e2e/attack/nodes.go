package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca/krl"
	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

// nodes are attacks by a mirror, or by whoever answers in its place, on what login nodes
// trust.
func nodes() []attack {
	script := func(s *site, dir string) ([]string, error) {
		path := filepath.Join(dir, "sallyport-node-sync")
		return []string{"/bin/sh", path}, os.WriteFile(path, sshdconfig.NodeSyncScript, 0o700) //nolint:gosec // a program
	}
	program := func(s *site, _ string) ([]string, error) { return []string{s.binary, "node", "sync"}, nil }
	day := 24 * time.Hour
	return []attack{
		{"node sync, no state: a manifest that ended 199 days ago", "refused, nothing there", func(ctx context.Context, s *site) (string, error) {
			return s.adopts(ctx, program, -199*day, "")
		}},
		{"the script, no state: a manifest that ended 199 days ago", "refused, nothing there", func(ctx context.Context, s *site) (string, error) {
			return s.adopts(ctx, script, -199*day, "")
		}},
		{"node sync, no state: a manifest of next year", "refused, nothing there", func(ctx context.Context, s *site) (string, error) {
			return s.adopts(ctx, program, 366*day, "")
		}},
		{"the script, no state: a copy of yesterday, below the pin", "refused, nothing there", func(ctx context.Context, s *site) (string, error) {
			return s.adopts(ctx, script, time.Hour, "SALLYPORT_NODE_AT_LEAST=8")
		}},
		{"the script, no state: a good manifest", "installed", func(ctx context.Context, s *site) (string, error) {
			return s.adopts(ctx, script, time.Hour, "SALLYPORT_NODE_AT_LEAST=7")
		}},
	}
}

// adopts has a mirror show version 7, signed and with an end that long from now, to a new
// node, and says what the node makes of it.
func (s *site) adopts(ctx context.Context, syncer func(*site, string) ([]string, error), left time.Duration, variable string) (string, error) {
	home, err := os.MkdirTemp(s.dir, "mirror-")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(home, "node")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as on a node
		return "", err
	}
	files, signers, err := signedFiles(time.Now().Add(left))
	if err != nil {
		return "", err
	}
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(files[r.URL.Path]) }))
	defer mirror.Close()
	argv, err := syncer(s, home)
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, nodesync.SignersFile), signers, 0o600))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "SALLYPORT_URL="+mirror.URL, "SALLYPORT_NODE_DIR="+dir, "SALLYPORT_NODE_SSHD=none", variable)
	_, runErr := cmd.CombinedOutput()
	trust, err := os.ReadFile(filepath.Join(dir, nodesync.TrustFile))
	switch {
	case runErr == nil && bytes.Equal(trust, files[nodesync.TrustPath]):
		return "installed", nil
	case runErr != nil && errors.Is(err, os.ErrNotExist):
		return "refused, nothing there", nil
	}
	return fmt.Sprintf("%v, and the trust file has %d bytes", runErr, len(trust)), nil
}

// signedFiles are what a mirror serves, by path, and the signers that a node believes.
func signedFiles(end time.Time) (files map[string][]byte, signers []byte, err error) {
	var keys [2]ssh.Signer
	for i := range keys {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		if keys[i], err = ssh.NewSignerFromKey(key); err != nil {
			return nil, nil, err
		}
	}
	end = end.UTC().Truncate(time.Second)
	list, err := (&krl.List{Version: 7, Generated: end}).Marshal()
	if err != nil {
		return nil, nil, err
	}
	trust := ssh.MarshalAuthorizedKey(keys[1].PublicKey())
	text, err := nodesync.Manifest{
		CA: "attack", Version: 7, IssuedAt: end.Add(-24 * time.Hour), ExpiresAt: end, Trust: nodesync.Sum(trust), Revocation: nodesync.Sum(list),
		Keys: []nodesync.Key{{Fingerprint: ssh.FingerprintSHA256(keys[1].PublicKey()), State: nodesync.StateActive}},
	}.Marshal()
	if err != nil {
		return nil, nil, err
	}
	signature, err := nodesync.Sign(keys[0], nodesync.Namespace, text)
	return map[string][]byte{
		nodesync.ManifestPath: text, nodesync.SignaturePath: signature, nodesync.RevocationPath: list, nodesync.TrustPath: trust,
	}, []byte(nodesync.SignersLine(keys[0].PublicKey())), err
}
