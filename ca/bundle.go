package ca

import (
	"golang.org/x/crypto/ssh"
)

// Fingerprint is the SHA-256 fingerprint of the active CA key, as sshd logs it.
// It is empty while no key is active, after a compromise without a standby.
func (a *Authority) Fingerprint() string {
	v := a.ring.latest.Load()
	if i := v.in(KeyActive); i >= 0 {
		return v.Keys[i].fingerprint()
	}
	return ""
}

// TrustBundle is the content of the nodes' TrustedUserCAKeys file: lines in
// authorized_keys form, the active key first, because sshd stops reading at the
// first line that it does not understand. It MUST NOT be changed, and is the same
// bytes until the keys change.
func (a *Authority) TrustBundle() []byte { return a.ring.latest.Load().text }

// BundleVersion is that of TrustBundle; it rises with each change.
func (a *Authority) BundleVersion() uint64 { return a.ring.latest.Load().Version }

// Distrusted are the CA keys that were retired or compromised. They belong in the
// revocation list for good, so that not even a trust file from a backup brings
// one back.
func (a *Authority) Distrusted() []ssh.PublicKey { return a.ring.latest.Load().distrusted() }
