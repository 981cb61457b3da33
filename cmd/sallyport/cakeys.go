package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"sallyport/ca"
)

// caKeys is where the CA's private keys are.
type caKeys struct {
	// initial is the key of ca.key; nil once a rotation has destroyed it.
	initial *ca.Key
	// folder has those that rotations make.
	folder ca.KeyFolder
}

// loadCAKey loads the CA key, and asks the terminal for its passphrase if nothing
// else gave it. The same passphrase protects the keys that follow.
func loadCAKey(s streams, f File) (caKeys, error) {
	keys := caKeys{folder: ca.KeyFolder{Dir: filepath.Join(f.DataDir, "keys"), Initial: f.CA.Key, Algorithm: f.CA.Rotation.KeyType}}
	if !f.CA.Enabled {
		return keys, nil
	}
	var err error
	if keys.folder.Passphrase, err = keyPassphrase(s, f.CA.PassphraseFile); err != nil {
		return keys, err
	}
	keys.initial, err = keys.initialOrLater()
	if errors.Is(err, ca.ErrPassphraseNeeded) {
		if keys.folder.Passphrase, err = askOnce(s, "Passphrase of the CA key: "); err != nil {
			return keys, err
		}
		keys.initial, err = keys.initialOrLater()
	}
	return keys, err
}

// initialOrLater opens the initial key. When a rotation has destroyed it, it opens
// another instead, only to see whether the passphrase is the right one.
func (k *caKeys) initialOrLater() (*ca.Key, error) {
	passphrase := k.folder.Passphrase
	if ca.IsAgent(k.folder.Initial) {
		passphrase = nil // one that systemd gives is not for this key
	}
	key, err := ca.OpenKey(k.folder.Initial, passphrase)
	if !errors.Is(err, fs.ErrNotExist) || ca.IsAgent(k.folder.Initial) {
		return key, err
	}
	later, listErr := os.ReadDir(k.folder.Dir)
	if listErr != nil || len(later) == 0 {
		return nil, err
	}
	for _, entry := range later {
		if _, err := k.folder.Load(entry.Name()); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// watchNodes probes the nodes for as long as the daemon runs.
func (d *daemon) watchNodes(p *parts) {
	r := p.file.CA.Rotation
	if r.ProbeLogin == "" || r.ProbeInterval == 0 {
		return
	}
	d.background(func(ctx context.Context) { p.authority.Watch(ctx, r.ProbeInterval) })
}

// background runs work until the daemon is closed.
func (d *daemon) background(work func(context.Context)) {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { work(ctx) })
	d.closers = append(d.closers, func() error {
		stop()
		running.Wait()
		return nil
	})
}
