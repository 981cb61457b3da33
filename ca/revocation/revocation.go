// Package revocation knows whose access was revoked: the acts of administrators that
// stand, durable in the store and in memory for those who ask at each request.
//
// The guarantee: an act that stands is seen by whoever asks, from the moment at which
// [Register.Put] returns until it is lifted. All layers ask one function what an act
// covers ([Act.Covers]), so that what one layer refuses no other lets pass. An
// answer comes from memory, without a lock, and costs the same however many acts stand.
//
// The threat: access that goes on after somebody was told that it is over. Hence a
// person is named by the URL of the issuer and the subject, which no change of an alias
// moves to somebody else, and an account counts wherever it stands, as login or as any
// principal of a certificate.
//
// The caveat: this is one process. What another process, a login node or a certificate
// authority elsewhere goes on believing is told to the administrator, not changed.
package revocation

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

var (
	// ErrInvalid is wrapped by every [Error].
	ErrInvalid = errors.New("revocation is not acceptable")
	// ErrNotRevoked says that there is no such revocation to lift.
	ErrNotRevoked = errors.New("no such revocation stands")
	// ErrRevoked says that somebody's access was revoked. HTTP: 403.
	ErrRevoked = errors.New("access was revoked")
	// ErrUnavailable says that the store could not be read or written. HTTP: 503.
	ErrUnavailable = errors.New("revocations cannot be read or written")
)

// An Error says what is wrong with a revocation. Its text is for administrators.
type Error struct {
	// Field is the kind of the revocation, or "reason".
	Field string
	// Detail is one sentence without a full stop.
	Detail string
}

// Error returns field and detail.
func (e *Error) Error() string { return e.Field + ": " + e.Detail }

// Unwrap returns ErrInvalid.
func (e *Error) Unwrap() error { return ErrInvalid }

// A Kind says by what access is revoked.
type Kind string

// The kinds of revocation. Those of a person, an account or a key also refuse what is
// new until they are lifted.
const (
	// Serial: one certificate; the value is its serial in decimal.
	Serial Kind = "serial"
	// KeyID: the certificates with this key ID.
	KeyID Kind = "key_id"
	// User: an account, whoever uses it and wherever it stands.
	User Kind = "user"
	// Subject: a person; the value is "URL#SUBJECT", of the issuer and its tokens.
	// Neither has a "#" before that one: an issuer's URL has no fragment.
	Subject Kind = "subject"
	// Key: a public key; the value is its fingerprint ("SHA256:…").
	Key Kind = "key"
	// IssuedBefore: all certificates that were issued before a time, in RFC 3339.
	IssuedBefore Kind = "issued_before"
)

// An Act is one act of an administrator that stands.
type Act struct {
	Kind  Kind   `json:"kind"`
	Value string `json:"value"`
	// Reason, UID and At say why, by whom and when.
	Reason string    `json:"reason,omitempty"`
	UID    int       `json:"uid"`
	At     time.Time `json:"at"`
	// Expires is when the last certificate that it revokes is past its end; zero
	// means that it stands until it is lifted.
	Expires time.Time `json:"expires,omitzero"`
}

// New checks value and brings it into its one form: a key may be given as a public key
// line or a fingerprint, a time with any offset, a person with the alias of one of the
// issuers. An error is an [*Error].
func New(kind Kind, value string, issuers Issuers) (Act, error) {
	canonical, err := canonicalValue(kind, value, issuers)
	if err != nil {
		return Act{}, &Error{Field: string(kind), Detail: err.Error()}
	}
	return Act{Kind: kind, Value: canonical}, nil
}

// id names the records of an act. Values are arbitrary text, hence a hash.
func (a Act) id() string {
	sum := sha256.Sum256([]byte(a.Value))
	return string(a.Kind) + "/" + hex.EncodeToString(sum[:])
}

// ID names the act among all, as a part of a store's key.
func (a Act) ID() string { return a.id() }

// OfPerson says whether the act is about people rather than about certificates: what
// they hold may be in other hands, so that lifting it brings no certificate back.
func (a Act) OfPerson() bool { return a.Kind == User || a.Kind == Subject }

func canonicalValue(kind Kind, value string, issuers Issuers) (string, error) {
	switch kind {
	case Serial:
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || n == 0 {
			return "", fmt.Errorf("%q is no serial: a decimal number above 0, as sshd logs it", clip(value))
		}
		return strconv.FormatUint(n, 10), nil
	case KeyID:
		if value == "" || len(value) > 1024 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "", fmt.Errorf("%q is not 1 to 1024 bytes of printable ASCII", clip(value))
		}
		return value, nil
	case User:
		if !isAccount(value) {
			return "", fmt.Errorf("%q is not an account name", clip(value))
		}
		return value, nil
	case Subject:
		return issuers.person(value)
	case Key:
		return canonicalKey(value)
	case IssuedBefore:
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return "", fmt.Errorf("%q is no time as in 2026-01-31T08:00:00Z", clip(value))
		}
		if t.After(time.Now()) {
			return "", fmt.Errorf("%q is in the future: a revocation cannot wait", clip(value))
		}
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	return "", fmt.Errorf("%q is no kind of revocation", clip(string(kind)))
}

// maxKeyBytes bounds a public key line.
const maxKeyBytes = 16 << 10

func canonicalKey(value string) (string, error) {
	if hash, ok := strings.CutPrefix(value, "SHA256:"); ok {
		sum, err := base64.RawStdEncoding.Strict().DecodeString(hash)
		if err != nil || len(sum) != 32 {
			return "", fmt.Errorf("%q is no SHA-256 fingerprint", clip(value))
		}
		return value, nil
	}
	if len(value) > maxKeyBytes {
		return "", fmt.Errorf("public key is longer than %d bytes", maxKeyBytes)
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(value))
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		return "", fmt.Errorf("%q is neither a public key nor a fingerprint (SHA256:…)", clip(value))
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return ssh.FingerprintSHA256(key), nil
}

// clip bounds what an error text repeats of a hostile input.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
