package ca

import (
	"bytes"
	"encoding/binary"

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
// first line that it does not understand.
func (a *Authority) TrustBundle() []byte { return bytes.Clone(a.ring.latest.Load().text) }

// BundleVersion is that of TrustBundle; it rises with each change.
func (a *Authority) BundleVersion() uint64 { return a.ring.latest.Load().Version }

// Distrusted are the CA keys that were retired or compromised. They belong in the
// revocation list for good, so that not even a trust file from a backup brings
// one back.
func (a *Authority) Distrusted() []ssh.PublicKey { return a.ring.latest.Load().distrusted() }

// RevocationList is the content of the nodes' RevokedKeys file: a key revocation
// list (OpenSSH PROTOCOL.krl) that revokes nothing. A node must have a valid one,
// for sshd refuses every login if the file is missing or damaged. The bytes stay
// the same as long as the process runs.
func (a *Authority) RevocationList() []byte {
	list := []byte("SSHKRL\n\x00")
	list = binary.BigEndian.AppendUint32(list, 1)                        // format version
	list = binary.BigEndian.AppendUint64(list, 1)                        // version of the list
	list = binary.BigEndian.AppendUint64(list, uint64(a.started.Unix())) //nolint:gosec // after 1970
	list = binary.BigEndian.AppendUint64(list, 0)                        // flags
	list = binary.BigEndian.AppendUint32(list, 0)                        // reserved
	return binary.BigEndian.AppendUint32(list, 0)                        // comment
}
