package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
)

// DistributionSection configures what login nodes fetch.
type DistributionSection struct {
	// The key that signs the manifests which nodes believe. A file as ca.key, with the same
	// passphrase; "agent:/path/to/socket#SHA256:…" for a key that an ssh-agent holds; or
	// "offline" for one that is on no machine of this service: then a person signs each
	// change ("sallyport ca manifest export", ssh-keygen, "import"), revocations too, and
	// nodes follow none until then. A relative path starts at data_dir.
	Key string `key:"key" default:"distribution_key"`
	// Its public half, if the key is offline. A relative path starts at data_dir.
	PublicKey string `key:"public_key" default:"distribution_key.pub"`
	// How long a manifest is good. The next one is due when half of that is over, so that
	// an offline key takes a life of weeks: a mirror can show an old state to a node without
	// state for as long.
	ManifestLife time.Duration `key:"manifest_life" default:"24h" check:"1h..8760h"`
}

// keyOffline is the place of a key that a person signs with.
const keyOffline = "offline"

// checkDistribution checks the key's place; that it is there is seen when it is opened.
func (d *decoder) checkDistribution(s DistributionSection) {
	if ca.IsAgent(s.Key) {
		if _, _, err := ca.ParseAgent(s.Key); err != nil {
			d.fail("ca.distribution.key", "%v", err)
		}
	}
	if s.Key == "" {
		d.fail("ca.distribution.key", `must be a file, agent:/path/to/socket#SHA256:…, or "offline"`)
	}
}

// openDistributionKey opens the key that signs manifests. The file in the data folder is made if it is not there.
func openDistributionKey(f File, keys caKeys) (ssh.Signer, error) {
	s := f.CA.Distribution
	if s.Key == keyOffline {
		public, err := readDistributionPublic(s.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("ca.distribution.public_key: %w", err)
		}
		return offlineSigner{public}, nil
	}
	if s.Key == "" || s.Key == filepath.Join(f.DataDir, distributionKey) {
		key, err := loadDistributionKey(f, keys)
		if err != nil {
			return nil, err
		}
		return key.Signer(), nil
	}
	passphrase := keys.folder.Passphrase
	if ca.IsAgent(s.Key) {
		passphrase = nil
	}
	key, err := ca.OpenKey(s.Key, passphrase)
	if err != nil {
		return nil, fmt.Errorf("ca.distribution.key: %w", err)
	}
	if err := replaceIfOther(s.PublicKey, ssh.MarshalAuthorizedKey(key.PublicKey())); err != nil { // "node files" reads it
		return nil, fmt.Errorf("ca.distribution.public_key: %w", err)
	}
	if ca.IsAgent(s.Key) {
		return agentSigner{key.Signer()}, nil
	}
	return key.Signer(), nil
}

// checkDistributionKey opens the key, and writes nothing.
func checkDistributionKey(f File, keys caKeys) error {
	if f.CA.Distribution.Key == keyOffline {
		_, err := openDistributionKey(f, keys)
		return err
	}
	passphrase := keys.folder.Passphrase
	if ca.IsAgent(f.CA.Distribution.Key) {
		passphrase = nil
	}
	if _, err := ca.OpenKey(f.CA.Distribution.Key, passphrase); err != nil {
		return fmt.Errorf("ca.distribution.key: %w", err)
	}
	return nil
}

func replaceIfOther(path string, text []byte) error {
	have, err := readBounded(path, 64<<10)
	if err == nil && string(have) == string(text) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return replaceFile(path, text)
}

func readDistributionPublic(path string) (ssh.PublicKey, error) {
	text, err := readBounded(path, 64<<10)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no public key file", path)
	}
	return key, nil
}
