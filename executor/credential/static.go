package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
)

var _ executor.CredentialProvider = (*Static)(nil)

// maxCertificateBytes bounds a certificate file.
const maxCertificateBytes = 64 << 10

// StaticConfig lists the keys.
type StaticConfig struct {
	Keys []StaticKey
}

// A StaticKey maps one identity to a private key in files. The identity is either
// Issuer and Subject, or Login alone.
type StaticKey struct {
	// Issuer is the alias of an identity provider, Subject the "sub" of its token.
	Issuer, Subject string
	// Login is the login that the token maps to, with any issuer. A key for an
	// issuer and subject takes precedence.
	Login string
	// User is the account on the node; empty means the caller's login.
	User string
	// KeyFile is a private key in OpenSSH format, as [ca.LoadKey] demands.
	KeyFile string
	// PassphraseFile opens the key, as [ca.ReadPassphrase] demands; empty means
	// that the key is not encrypted.
	PassphraseFile string
	// CertificateFile is a user certificate over the key ("…-cert.pub"); empty
	// means that the node knows the plain key.
	CertificateFile string
}

// Static provides keys from the configuration. The files are read once, by
// NewStatic.
type Static struct {
	keys map[staticID]executor.Credential
}

// staticID is an issuer and a subject, or a login.
type staticID struct{ issuer, subject, login string }

// NewStatic reads and checks every file, and reports all mistakes at once.
func NewStatic(cfg StaticConfig) (*Static, error) {
	s := &Static{keys: make(map[staticID]executor.Credential)}
	var errs []error
	if len(cfg.Keys) == 0 {
		errs = append(errs, errors.New("no key is configured"))
	}
	for i, k := range cfg.Keys {
		id := staticID{k.Issuer, k.Subject, k.Login}
		credential, err := k.load()
		if _, twice := s.keys[id]; twice {
			err = errors.Join(err, errors.New("identity stands twice"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("key %d (%s): %w", i+1, id, err))
		}
		s.keys[id] = credential
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("static credentials: %w", err)
	}
	return s, nil
}

func (id staticID) String() string {
	if id.login != "" {
		return fmt.Sprintf("login %q", id.login)
	}
	return fmt.Sprintf("issuer %q, subject %q", id.issuer, id.subject)
}

// Credential returns the caller's key, or an error that wraps
// [executor.ErrNoCredential].
func (s *Static) Credential(_ context.Context, caller identity.Identity, _ executor.Node) (executor.Credential, error) {
	if !caller.Valid() {
		return executor.Credential{}, fmt.Errorf("%w: caller is nobody", executor.ErrNoCredential)
	}
	c, ok := s.of(caller)
	if !ok {
		return executor.Credential{}, fmt.Errorf("%w: no key is configured for %s", executor.ErrNoCredential, caller)
	}
	if c.User == "" {
		c.User = caller.Login()
	}
	if c.Certificate != nil {
		if err := checkCertificate(c.Certificate, c.User); err != nil {
			return executor.Credential{}, fmt.Errorf("%w: %w", executor.ErrNoCredential, err)
		}
	}
	return c, nil
}

// Accounts are those on nodes that the caller's key opens beside their login: that of the
// configuration, and the principals of the key's certificate.
func (s *Static) Accounts(caller identity.Identity) []string {
	c, ok := s.of(caller)
	if !ok || (c.User == "" && c.Certificate == nil) {
		return nil
	}
	var accounts []string
	if c.User != "" {
		accounts = []string{c.User}
	}
	if c.Certificate != nil {
		accounts = append(accounts, c.Certificate.ValidPrincipals...)
	}
	return accounts
}

// of is the caller's key.
func (s *Static) of(caller identity.Identity) (executor.Credential, bool) {
	c, ok := s.keys[staticID{issuer: caller.Alias(), subject: caller.Subject()}]
	if !ok {
		c, ok = s.keys[staticID{login: caller.Login()}]
	}
	return c, ok
}

func (k StaticKey) load() (executor.Credential, error) {
	var errs []error
	if (k.Login == "") == (k.Issuer == "" && k.Subject == "") || (k.Issuer == "") != (k.Subject == "") {
		errs = append(errs, errors.New("give either issuer and subject, or login"))
	}
	if k.User != "" && (k.User == "root" || strings.HasPrefix(k.User, "-") || strings.ContainsFunc(k.User, unfit)) {
		errs = append(errs, fmt.Errorf("user %q is not an account name, or is root", k.User))
	}
	signer, err := k.signer()
	if err != nil {
		return executor.Credential{}, errors.Join(append(errs, err)...)
	}
	c := executor.Credential{User: k.User, Signer: signer}
	if k.CertificateFile != "" {
		errs = append(errs, k.certify(&c))
	}
	return c, errors.Join(errs...)
}

func unfit(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.@-", r)
}

func (k StaticKey) signer() (ssh.Signer, error) {
	var passphrase []byte
	if k.PassphraseFile != "" {
		var err error
		if passphrase, err = ca.ReadPassphrase(k.PassphraseFile); err != nil {
			return nil, err
		}
	}
	key, err := ca.LoadKey(k.KeyFile, passphrase)
	if err != nil {
		return nil, err
	}
	return key.Signer(), nil
}

// certify adds the certificate file to c.
func (k StaticKey) certify(c *executor.Credential) error {
	cert, err := readCertificate(k.CertificateFile)
	if err != nil {
		return fmt.Errorf("certificate %q: %w", k.CertificateFile, err)
	}
	user := k.User
	if user == "" {
		user = k.Login
	}
	if err := checkCertificate(cert, user); err != nil {
		return fmt.Errorf("certificate %q: %w", k.CertificateFile, err)
	}
	if !bytes.Equal(cert.Key.Marshal(), c.Signer.PublicKey().Marshal()) {
		return fmt.Errorf("certificate %q is not over the key in %q", k.CertificateFile, k.KeyFile)
	}
	signer, err := ssh.NewCertSigner(cert, c.Signer)
	if err != nil {
		return fmt.Errorf("certificate %q: %w", k.CertificateFile, err)
	}
	c.Signer, c.Certificate, c.NotAfter = signer, cert, notAfter(cert)
	return nil
}

func readCertificate(path string) (*ssh.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxCertificateBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxCertificateBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxCertificateBytes)
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("is not readable: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("is not a file with one certificate")
	}
	return cert, nil
}

// checkCertificate says whether sshd would take the certificate for user now. User
// is empty if it depends on the caller.
func checkCertificate(cert *ssh.Certificate, user string) error {
	now := uint64(max(0, time.Now().Unix()))
	switch {
	case cert.CertType != ssh.UserCert:
		return errors.New("is not a user certificate")
	case now >= cert.ValidBefore:
		return fmt.Errorf("expired at %s", notAfter(cert).UTC().Format(time.RFC3339))
	case now < cert.ValidAfter:
		return errors.New("is not valid yet")
	case len(cert.ValidPrincipals) == 0: // sshd refuses it
		return errors.New("names no user")
	case user != "" && !slices.Contains(cert.ValidPrincipals, user):
		return fmt.Errorf("is not for user %q but for %q", user, cert.ValidPrincipals)
	}
	return nil
}
