package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/private"
)

// A KeyFolder is the [KeyStore] of an installation: one file of mode 0600 for each
// key, in OpenSSH format.
type KeyFolder struct {
	// Dir holds the keys that [Authority] makes; it is created when needed, with
	// mode 0700.
	Dir string
	// Initial is the file of the initial key, which lies elsewhere; empty if it is
	// in no file.
	Initial string
	// Algorithm of new keys; see [GenerateKey].
	Algorithm string
	// Passphrase encrypts new keys and opens all; empty if they are plain.
	Passphrase []byte
}

// Create makes a key file, durably. It overwrites none.
func (f KeyFolder) Create(name string) (*Key, error) {
	path, err := f.path(name)
	if err != nil {
		return nil, err
	}
	if path == "" || IsAgent(name) {
		return nil, fmt.Errorf("key %q cannot be made here", name)
	}
	text, _, err := GenerateKey(f.Algorithm, f.Passphrase)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(f.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("folder of CA keys: %w", err)
	}
	if err := private.CheckDir(f.Dir, 0o077); err != nil {
		return nil, fmt.Errorf("folder of CA keys: %w", err)
	}
	if err := writeSynced(path, text); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if err := private.SyncDir(f.Dir); err != nil {
		return nil, fmt.Errorf("folder of CA keys: %w", err)
	}
	return LoadKey(path, f.Passphrase)
}

func writeSynced(path string, text []byte) error {
	file, err := private.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// Load reads a key. A name such as "agent:/socket#SHA256:…" is that of a key which
// an ssh-agent holds.
func (f KeyFolder) Load(name string) (*Key, error) {
	if IsAgent(name) {
		return OpenKey(name, nil)
	}
	path, err := f.path(name)
	if err != nil {
		return nil, err
	}
	return LoadKey(path, f.Passphrase)
}

// Destroy overwrites and removes a key file. On a disk that writes elsewhere than
// it is told (SSD, snapshots), overwriting helps little: there, the passphrase is
// what protects a key that was destroyed. What an agent holds is the
// administrator's to destroy.
func (f KeyFolder) Destroy(name string) error {
	if IsAgent(name) {
		return nil
	}
	path, err := f.path(name)
	if err != nil || path == "" || IsAgent(path) {
		return err
	}
	file, err := private.OpenFile(path, os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Write(make([]byte, info.Size()))
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return private.SyncDir(filepath.Dir(path))
}

// path is where a key lies; empty for an initial key in no file.
func (f KeyFolder) path(name string) (string, error) {
	if name == "" {
		return f.Initial, nil
	}
	if f.Dir == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("key %q cannot be in folder %q", name, f.Dir)
	}
	return filepath.Join(f.Dir, name), nil
}
