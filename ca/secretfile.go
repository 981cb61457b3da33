package ca

import (
	"bytes"
	"fmt"

	"sallyport/internal/private"
)

const (
	maxKeyFileBytes    = 64 << 10 // an encrypted RSA-8192 key is 7 KiB
	maxPassphraseBytes = 1 << 10
)

// ReadPassphrase reads a passphrase from a file of at most 1 KiB and removes one
// trailing line end. The file must be private to the service: its own with mode
// 0600 or stricter, or root's and closed to all others, as systemd makes the files
// below $CREDENTIALS_DIRECTORY (it shows an access list as group bits, so 0440 is
// accepted there). Otherwise the error wraps [ErrKeyMode].
func ReadPassphrase(path string) ([]byte, error) {
	text, err := private.ReadCredential(path, maxPassphraseBytes)
	if err != nil {
		return nil, fmt.Errorf("passphrase file: %w", err)
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) == 0 {
		return nil, fmt.Errorf("passphrase file %q is empty", path)
	}
	return text, nil
}
