package ca

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/crypto/ssh"
)

// Fingerprint is the SHA-256 fingerprint of the active CA key, as sshd logs it.
func (a *Authority) Fingerprint() string { return ssh.FingerprintSHA256(a.key.PublicKey()) }

// TrustBundle is the content of the nodes' TrustedUserCAKeys file: lines in
// authorized_keys form, the active key first, because sshd stops reading at the
// first line that it does not understand.
func (a *Authority) TrustBundle() []byte {
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(a.key.PublicKey()), []byte("\n"))
	return append(line, " sallyport-user-ca\n"...)
}

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
