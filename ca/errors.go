package ca

import (
	"errors"
	"fmt"

	"sallyport/ca/revocation"
	"sallyport/internal/private"
)

var (
	// ErrPolicy is wrapped by every [RequestError].
	ErrPolicy = errors.New("certificate request is refused by policy")
	// ErrUnavailable says that ledger or audit log could not be written or read.
	// No certificate was released. HTTP: 503.
	ErrUnavailable = errors.New("certificate authority cannot record what it does")
	// ErrSigner says that the CA key cannot sign at the moment, because the agent
	// that holds it does not answer, is locked, or has lost it. HTTP: 503.
	ErrSigner = errors.New("CA key is not available")
	// ErrNotFound says that the ledger knows no such certificate, or no longer.
	ErrNotFound = errors.New("no such certificate in the ledger")
	// ErrStep is wrapped by every [StepError]. HTTP: 409.
	ErrStep = errors.New("step of a CA key is refused")
	// ErrKeyMode says that a secret file is open to others than its owner.
	ErrKeyMode = private.ErrExposed
	// ErrPassphraseNeeded says that the key is encrypted and that no passphrase
	// was given.
	ErrPassphraseNeeded = errors.New("private key is encrypted and no passphrase was given")
	// ErrWrongPassphrase says that the passphrase does not open the key.
	ErrWrongPassphrase = errors.New("passphrase does not open the private key")
)

// unavailable makes errors of the register's store ErrUnavailable.
func unavailable(err error) error {
	if errors.Is(err, revocation.ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// The codes of [RequestError]. They are stable: clients branch on them.
const (
	// CodeIdentity: the caller is nobody, or the token has expired meanwhile.
	CodeIdentity = "identity_not_valid"
	// CodeProfile: no such profile.
	CodeProfile = "unknown_profile"
	// CodePublicKey: the public key is malformed, weak, or of a refused type.
	CodePublicKey = "public_key_not_allowed"
	// CodePrincipal: a principal is malformed or not the caller's.
	CodePrincipal = "principal_not_allowed"
	// CodeTTL: the lifetime is negative or below one second.
	CodeTTL = "ttl_not_allowed"
	// CodeSourceAddress: an address is malformed or outside the profile's.
	CodeSourceAddress = "source_address_not_allowed"
	// CodeForceCommand: the forced command is too long or not printable ASCII.
	CodeForceCommand = "force_command_not_allowed"
	// CodeRevoked: the caller or the key was revoked, and nobody has lifted that.
	CodeRevoked = "caller_revoked"
	// CodeManifest is of a manifest that somebody signed and that cannot be published.
	CodeManifest = "manifest_not_acceptable"
)

// A RequestError says what a request must change to be granted. Its text is safe
// for clients: it speaks of the request only, and quotes at most 64 bytes of it.
type RequestError struct {
	// Code is one of the Code constants.
	Code string
	// Field is the request's field in snake_case, as in POST /v1/certificates.
	Field string
	// Detail is one sentence without a full stop.
	Detail string
}

// Error returns field and detail.
func (e *RequestError) Error() string { return e.Field + ": " + e.Detail }

// Unwrap returns ErrPolicy.
func (e *RequestError) Unwrap() error { return ErrPolicy }

// clip bounds what an error text repeats of a hostile input.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
