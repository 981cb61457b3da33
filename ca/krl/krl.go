// Package krl reads and writes key revocation lists, the binary files that sshd
// takes as RevokedKeys (OpenSSH, PROTOCOL.krl).
//
// The guarantee: what [List.Marshal] writes is valid for every sshd since OpenSSH
// 7.9, [Parse] takes and refuses what ssh-keygen does, and [List.Revokes] answers
// as sshd would. The tests compare all three with ssh-keygen.
//
// The threat is on both sides of valid: sshd refuses every login when the file is
// damaged or missing, and refuses none when it is empty. A list that revokes
// nothing is therefore not an empty file; it has 44 bytes.
//
// The caveat: a list carries no signature that an sshd would check. Whoever can
// replace the file decides what is revoked.
package krl

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // lists that others wrote can name keys by it
	"crypto/sha256"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// MaxBytes bounds a list, read or written. sshd reads the whole file at each
// login: 1 MB costs a tenth of a second.
const MaxBytes = 8 << 20

// A List is what one revocation list says. The zero List is valid and revokes
// nothing.
type List struct {
	// Version rises with each list of one issuer. sshd does not look at it.
	Version uint64
	// Generated is when the list was made, with a resolution of one second; the
	// zero time is written as 0.
	Generated time.Time
	// Comment is for people: no NUL.
	Comment string
	// Certificates revokes certificates by what they say.
	Certificates []Certificates
	// Keys revokes keys, each certificate over one of them, and each certificate
	// that one of them has signed. A certificate here stands for its plain key.
	Keys []ssh.PublicKey
	// SHA256 does what Keys does by the hash of the key's wire form: the bytes of
	// the fingerprint.
	SHA256 [][sha256.Size]byte
	// SHA1 is the same by SHA-1. It is here so that reading loses nothing; do not
	// use it for new entries.
	SHA1 [][sha1.Size]byte
}

// Certificates revokes certificates of one CA, or of any.
type Certificates struct {
	// CA is the plain key of the CA; nil means any CA.
	CA ssh.PublicKey
	// Serials are the serial numbers that are revoked.
	Serials Serials
	// KeyIDs are matched byte for byte: no NUL.
	KeyIDs []string
}

// Revokes says whether the list revokes key, which may be a certificate: by its
// serial or key ID, by its key, or by the key of its CA (krl.c,
// ssh_krl_check_key). sshd asks the same.
func (l *List) Revokes(key ssh.PublicKey) bool {
	if key == nil {
		return false
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return l.revokesKey(key)
	}
	return l.revokesKey(cert.Key) || l.revokesKey(cert.SignatureKey) || l.revokesCertificate(cert)
}

func (l *List) revokesKey(key ssh.PublicKey) bool {
	if key == nil {
		return false
	}
	wire := key.Marshal()
	listed := func(k ssh.PublicKey) bool { return k != nil && bytes.Equal(plain(k).Marshal(), wire) }
	return slices.ContainsFunc(l.Keys, listed) ||
		slices.Contains(l.SHA256, sha256.Sum256(wire)) ||
		slices.Contains(l.SHA1, sha1.Sum(wire)) //nolint:gosec // see the field
}

func (l *List) revokesCertificate(cert *ssh.Certificate) bool {
	var ca []byte
	if cert.SignatureKey != nil {
		ca = cert.SignatureKey.Marshal()
	}
	for _, c := range l.Certificates {
		if c.CA != nil && !bytes.Equal(c.CA.Marshal(), ca) {
			continue
		}
		if slices.Contains(c.KeyIDs, cert.KeyId) || c.Serials.Contains(cert.Serial) {
			return true
		}
	}
	return false
}

// plain returns the key that a certificate certifies, and any other key as it is.
func plain(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}
