package loginnode

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

func (c Config) hostKeyKinds() []string {
	if c.SecondHostKey == "" {
		return []string{"ed25519"}
	}
	return []string{"ed25519", c.SecondHostKey}
}

func generateKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "ecdsa":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		return rsa.GenerateKey(rand.Reader, 3072)
	default:
		return nil, fmt.Errorf("unknown kind of key %q", kind)
	}
}

// writeHostKeys makes the host keys and what a known_hosts line needs of them.
func (l layout) writeHostKeys(cfg Config) error {
	var caSigner ssh.Signer
	if cfg.HostCA {
		var err error
		if caSigner, err = l.writeHostKey("ca"); err != nil {
			return err
		}
	}
	for _, kind := range cfg.hostKeyKinds() {
		signer, err := l.writeHostKey(kind)
		if err != nil {
			return err
		}
		if caSigner == nil {
			continue
		}
		if err := l.writeHostCertificate(kind, caSigner, signer.PublicKey()); err != nil {
			return err
		}
	}
	return nil
}

// writeHostKey writes a new private key and its public half. The kind "ca" is an ed25519 key that signs host keys.
func (l layout) writeHostKey(kind string) (ssh.Signer, error) {
	algorithm := kind
	if kind == "ca" {
		algorithm = "ed25519"
	}
	key, err := generateKey(algorithm)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "login node")
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(l.hostKey(kind), pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	public := ssh.MarshalAuthorizedKey(signer.PublicKey())
	return signer, os.WriteFile(l.hostKey(kind)+".pub", public, 0o644) //nolint:gosec // a public key
}

func (l layout) writeHostCertificate(kind string, authority ssh.Signer, key ssh.PublicKey) error {
	cert := &ssh.Certificate{
		Key:             key,
		Serial:          1,
		CertType:        ssh.HostCert,
		KeyId:           "login node",
		ValidPrincipals: []string{"127.0.0.1", "localhost"},
		ValidBefore:     ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		return err
	}
	return os.WriteFile(l.hostKey(kind)+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o644) //nolint:gosec // a public key
}

// writeKnownHosts names the keys, or the CA, that a client of this port must see.
func (l layout) writeKnownHosts(cfg Config, port int) error {
	kinds, marker := cfg.hostKeyKinds(), ""
	if cfg.HostCA {
		kinds, marker = []string{"ca"}, "@cert-authority "
	}
	host := "[127.0.0.1]:" + strconv.Itoa(port)
	var lines strings.Builder
	for _, kind := range kinds {
		public, err := os.ReadFile(l.hostKey(kind) + ".pub")
		if err != nil {
			return err
		}
		lines.WriteString(marker + host + " " + string(public))
	}
	return os.WriteFile(l.knownHosts(), []byte(lines.String()), 0o644) //nolint:gosec // public keys
}
