package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"sallyport/ca"
)

// credentialName is the systemd credential that holds the passphrase of the CA
// key (systemd.exec(5), LoadCredentialEncrypted).
const credentialName = "ca-passphrase"

// backupCredentialName is the one with the passphrase of backups.
const backupCredentialName = "backup-passphrase"

// keyPassphrase finds the passphrase of the CA key: the configured file, the
// systemd credential, or none. The terminal is asked only by askOnce, after the
// key turned out to be encrypted.
func keyPassphrase(s streams, file string) ([]byte, error) {
	if file != "" {
		return ca.ReadPassphrase(file)
	}
	if dir := s.getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		secret, err := ca.ReadPassphrase(filepath.Join(dir, credentialName))
		if !errors.Is(err, fs.ErrNotExist) {
			return secret, err
		}
	}
	return nil, nil
}

// askOnce asks the terminal for the passphrase of the CA key.
func askOnce(s streams, prompt string) ([]byte, error) {
	secret, err := askTerminal(s, prompt)
	if errors.Is(err, errNoTerminal) {
		err = fmt.Errorf("the CA key is encrypted: %w; set ca.passphrase_file, or the systemd credential %q", err, credentialName)
	}
	return secret, err
}

// errNoTerminal says that there is nobody to ask for a passphrase.
var errNoTerminal = errors.New("there is no terminal to ask for the passphrase")

func askTerminal(s streams, prompt string) ([]byte, error) {
	tty, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return nil, errNoTerminal
	}
	fmt.Fprint(s.err, prompt)
	secret, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(s.err)
	if err == nil && len(secret) == 0 {
		err = errors.New("the passphrase is empty")
	}
	return secret, err
}

// backupPassphrase finds the passphrase of a backup: the given file, the systemd
// credential, or the terminal, which is asked twice for a new one.
func backupPassphrase(s streams, file string, fresh bool) ([]byte, error) {
	if file != "" {
		return ca.ReadPassphrase(file)
	}
	if dir := s.getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		secret, err := ca.ReadPassphrase(filepath.Join(dir, backupCredentialName))
		if !errors.Is(err, fs.ErrNotExist) {
			return secret, err
		}
	}
	first, err := askTerminal(s, "Passphrase of the backup: ")
	if err != nil {
		return nil, fmt.Errorf("passphrase of the backup: %w; use --passphrase-file", err)
	}
	if !fresh {
		return first, nil
	}
	second, err := askTerminal(s, "The same again: ")
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

func askTwice(s streams) ([]byte, error) {
	first, err := askTerminal(s, "Passphrase for the CA key: ")
	if err != nil {
		return nil, err
	}
	second, err := askTerminal(s, "The same again: ")
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}
