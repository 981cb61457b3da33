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

// errNoTerminal says that there is nobody to ask for a passphrase.
var errNoTerminal = errors.New("there is no terminal to ask for the passphrase")

// askOnce asks the terminal for a passphrase.
func askOnce(s streams, prompt string) ([]byte, error) {
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

func askTwice(s streams) ([]byte, error) {
	first, err := askOnce(s, "Passphrase for the CA key: ")
	if err != nil {
		return nil, err
	}
	second, err := askOnce(s, "The same again: ")
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}
