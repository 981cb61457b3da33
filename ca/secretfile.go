package ca

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
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
	text, err := readSecret(path, maxPassphraseBytes, func(uid int, mode fs.FileMode) bool {
		own := uid == os.Geteuid() && mode&0o177 == 0
		return own || uid == 0 && mode&0o337 == 0
	})
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) == 0 {
		return nil, fmt.Errorf("passphrase file %q is empty", path)
	}
	return text, nil
}

// readSecret reads a small regular file that private approves of. Everything is
// asked of the open file, so that it cannot be swapped between check and use.
func readSecret(path string, limit int64, private func(uid int, mode fs.FileMode) bool) ([]byte, error) {
	// O_NONBLOCK keeps a named pipe from holding the start up for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // the operator's path
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %q is a symbolic link; give the path of the file itself", ErrKeyMode, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open secret file: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written

	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspect secret file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %q is not a regular file", ErrKeyMode, path)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%w: owner of %q is not known on this system", ErrKeyMode, path)
	}
	if mode := info.Mode().Perm(); !private(int(owner.Uid), mode) {
		return nil, fmt.Errorf("%w: %q belongs to uid %d with mode %04o, and this process is uid %d; run: chown %d %q && chmod 0600 %q",
			ErrKeyMode, path, owner.Uid, mode, os.Geteuid(), os.Geteuid(), path, path)
	}
	return readBounded(f, path, limit)
}

func readBounded(f *os.File, path string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%q is larger than %d bytes", path, limit)
	}
	return text, nil
}
