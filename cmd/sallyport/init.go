package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport/ca"
)

const initLong = `Make a folder with all that "sallyport serve" needs: a CA key, and a
configuration file in which every option stands as a comment.

Nothing that exists is overwritten. The key is encrypted if you give a
passphrase: --passphrase asks the terminal for one, --passphrase-file reads it,
and under systemd the credential "ca-passphrase" is used.`

type initOptions struct {
	keyType        string
	passphrase     bool
	passphraseFile string
}

func newInit(s streams) *cobra.Command {
	var opt initOptions
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Make a data folder: CA key and configuration", GroupID: "service",
		Long: initLong, Args: exactArgs("DIR"),
		Example: "  sallyport init /etc/sallyport --passphrase",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInit(s, args[0], opt)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.keyType, "key-type", "ed25519", "ed25519, ecdsa-p256, ecdsa-p384, rsa-3072 or rsa-4096")
	f.BoolVar(&opt.passphrase, "passphrase", false, "ask for a passphrase that encrypts the CA key")
	f.StringVar(&opt.passphraseFile, "passphrase-file", "", "read the passphrase from this file (mode 0600)")
	return cmd
}

func runInit(s streams, dir string, opt initOptions) error {
	passphrase, err := initPassphrase(s, opt)
	if err != nil {
		return err
	}
	private, public, err := ca.GenerateKey(opt.keyType, passphrase)
	if err != nil {
		return usageError{err}
	}
	distribution, distributionPublic, err := ca.GenerateKey("ed25519", passphrase)
	if err != nil {
		return err
	}
	auditing, auditingPublic, err := ca.GenerateKey("ed25519", passphrase)
	if err != nil {
		return err
	}
	config, err := initialConfig(opt.passphraseFile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkDataDir(dir); err != nil {
		return err
	}
	files := []struct {
		name    string
		content []byte
		mode    fs.FileMode
	}{
		{"ca_key", private, 0o600},
		{"ca_key.pub", ssh.MarshalAuthorizedKey(public), 0o644},
		{distributionKey, distribution, 0o600},
		{distributionKey + ".pub", ssh.MarshalAuthorizedKey(distributionPublic), 0o644},
		{auditKey, auditing, 0o600},
		{auditKey + ".pub", ssh.MarshalAuthorizedKey(auditingPublic), 0o644},
		{"sallyport.toml", []byte(config), 0o600},
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%q exists already; nothing was changed", filepath.Join(dir, f.name))
		}
	}
	for _, f := range files {
		if err := writeNew(filepath.Join(dir, f.name), f.content, f.mode); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.out, `Made %s:
  ca_key, ca_key.pub   the CA key, %s
  distribution_key     signs what login nodes fetch; 'sallyport node files' tells them
  audit_key            signs the audit log; keep audit_key.pub elsewhere, to check it with
  sallyport.toml       the configuration; your [[issuers]] and [[systems]] belong there
Next:
  edit %[3]s: say whose tokens count, and where commands run
  sallyport check-config --config %[3]s
  sallyport serve --config %[3]s
`, dir, ssh.FingerprintSHA256(public), filepath.Join(dir, "sallyport.toml"))
	if len(passphrase) == 0 {
		fmt.Fprintln(s.err, "sallyport: note: the CA key is not encrypted; whoever reads the file can sign. See --passphrase.")
	}
	return nil
}

func initPassphrase(s streams, opt initOptions) ([]byte, error) {
	switch {
	case opt.passphraseFile != "" && opt.passphrase:
		return nil, usageError{errors.New("--passphrase and --passphrase-file exclude each other")}
	case opt.passphraseFile != "":
		return ca.ReadPassphrase(opt.passphraseFile)
	case opt.passphrase:
		passphrase, err := askTwice(s)
		if errors.Is(err, errNoTerminal) {
			err = fmt.Errorf("%w; use --passphrase-file", err)
		}
		return passphrase, err
	}
	return keyPassphrase(s, "") // a systemd credential, or none
}

// initialConfig is the configuration that init writes.
func initialConfig(passphraseFile string) (string, error) {
	sections, err := reference()
	if err != nil {
		return "", err
	}
	set := map[string]string{}
	if passphraseFile != "" {
		path, err := filepath.Abs(passphraseFile)
		if err != nil {
			return "", err
		}
		set["ca.passphrase_file"] = fmt.Sprintf("%q", path)
	}
	return templateFile(sections, set), nil
}

// writeNew writes a file that must not exist, and makes it durable.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
