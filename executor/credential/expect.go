package credential

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/identity"
)

const (
	// maxCAKeysBytes bounds the file of CA keys.
	maxCAKeysBytes = 64 << 10
	// clockSkew is how much later than ours the service's clock may be.
	clockSkew = time.Minute
	// forceCommand is the critical option that has sshd run one thing whatever is asked.
	forceCommand = "force-command"
)

// An Expectation says which certificates of a service elsewhere are used.
type Expectation struct {
	// CAFingerprints are those of the keys that may sign, as "ssh-keygen -l" prints
	// them ("SHA256:…").
	CAFingerprints []string
	// CAKeysFile has such keys one a line, in authorized_keys form, as sshd's
	// TrustedUserCAKeys does. It is read for each certificate, so that a rotation of
	// the CA needs no restart. One of both is required; a key may be in either.
	CAKeysFile string
	// MaxLifetime is how long a certificate may still be good when it arrives; 0
	// means 15 minutes, and 24 hours is the most.
	MaxLifetime time.Duration
	// Extensions are those that a certificate may have. The executor needs none,
	// and permit-port-forwarding on a jump host.
	Extensions []string

	narrow bool // the caller may run no commands
}

// of is what is expected for a caller.
func (e Expectation) of(caller identity.Identity) *Expectation {
	e.narrow = caller.Narrow()
	return &e
}

// fingerprint is that of ssh-keygen -l: 32 bytes in base64 without padding.
var fingerprint = regexp.MustCompile(`\ASHA256:[A-Za-z0-9+/]{43}\z`)

// check reports all mistakes at once, and sets defaults.
func (e *Expectation) check() error {
	var errs []error
	if len(e.CAFingerprints) == 0 && e.CAKeysFile == "" {
		errs = append(errs, errors.New("neither fingerprints nor a file of CA keys are given: any CA would be believed"))
	}
	for _, f := range e.CAFingerprints {
		if !fingerprint.MatchString(f) {
			errs = append(errs, fmt.Errorf("%q is no fingerprint such as ssh-keygen -l prints (SHA256:…)", f))
		}
	}
	if e.CAKeysFile != "" {
		if _, err := readCAKeys(e.CAKeysFile); err != nil {
			errs = append(errs, err)
		}
	}
	e.MaxLifetime = cmp.Or(e.MaxLifetime, 15*time.Minute)
	if e.MaxLifetime < 0 || e.MaxLifetime > 24*time.Hour {
		errs = append(errs, fmt.Errorf("max lifetime %s is not between 0 and 24h", e.MaxLifetime))
	}
	e.CAFingerprints, e.Extensions = slices.Clone(e.CAFingerprints), slices.Clone(e.Extensions)
	return errors.Join(errs...)
}

// readCAKeys reads every line or none: a line that cannot be read may be the one
// that matters.
func readCAKeys(path string) ([]ssh.PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("CA keys: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxCAKeysBytes+1))
	if err != nil || len(text) > maxCAKeysBytes {
		return nil, errors.Join(fmt.Errorf("CA keys %q: not readable, or larger than %d bytes", path, maxCAKeysBytes), err)
	}
	var keys []ssh.PublicKey
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, err := ca.ParsePublicKey(line)
		if err != nil {
			return nil, fmt.Errorf("CA keys %q, line %d: %w", path, n, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("CA keys %q: no key in it", path)
	}
	return keys, nil
}

// parseCertificate reads one line of authorized_keys form, and nothing else: x/crypto
// would find a certificate in the middle of a web page.
func parseCertificate(text string) (*ssh.Certificate, error) {
	text = strings.Trim(text, " \r\n")
	if len(text) > maxCertificateBytes || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, errors.New("answer is not one line with a certificate")
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, errors.New("answer is not one line with a certificate")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || len(options) > 0 || len(rest) > 0 {
		return nil, errors.New("answer is not one line with a certificate")
	}
	return cert, nil
}

// verify says why a certificate is not to be used for login. Everything in it is
// looked at: a service that was taken over, or that is not the one expected, must
// not get more by way of this executor than a refusal.
func (e *Expectation) verify(cert *ssh.Certificate, login string, now time.Time) error {
	switch {
	case cert.CertType != ssh.UserCert:
		return fmt.Errorf("it has type %d, which is no user's", cert.CertType)
	case !slices.Equal(cert.ValidPrincipals, []string{login}):
		// sshd takes one without principals for nobody's, x/crypto for everybody's.
		return fmt.Errorf("it names %s instead of %q alone", shown(cert.ValidPrincipals...), login)
	}
	if err := e.verifyTime(cert, now); err != nil {
		return err
	}
	if err := e.verifyOptions(cert); err != nil {
		return err
	}
	return e.verifySignature(cert, login, now)
}

// shown is what an error quotes of names that somebody else has chosen: enough to
// find a mistake in a configuration, and too little for a token.
func shown(names ...string) string {
	if len(names) == 0 {
		return "nobody"
	}
	rest := ""
	if n := len(names) - 1; n > 0 {
		rest = fmt.Sprintf(" and %d more", n)
	}
	if first := names[0]; len(first) <= 64 && utf8.ValidString(first) {
		return strconv.Quote(first) + rest
	}
	return fmt.Sprintf("a name of %d bytes", len(names[0])) + rest
}

func (e *Expectation) verifyTime(cert *ssh.Certificate, now time.Time) error {
	after, before := unixTime(cert.ValidAfter), unixTime(cert.ValidBefore)
	switch {
	case !now.Before(before):
		return fmt.Errorf("it ended at %s", before.Format(time.RFC3339))
	case now.Before(after):
		return fmt.Errorf("it begins only at %s; do the clocks agree?", after.Format(time.RFC3339))
	case before.Sub(now) > e.MaxLifetime+clockSkew:
		return fmt.Errorf("it is good until %s, which is longer than %s", before.Format(time.RFC3339), e.MaxLifetime)
	}
	return nil
}

// unixTime reads a certificate's time; the far future stands for all that Go's
// times cannot hold, ssh.CertTimeInfinity included.
func unixTime(seconds uint64) time.Time {
	const farthest = 1 << 40 // the year 36812
	return time.Unix(int64(min(seconds, farthest)), 0).UTC()
}

// verifyOptions allows one critical option: source-address, which is the service's
// to set and can only narrow. A force-command would run in place of what the
// caller asked for; of who may run no commands SFTP alone is taken, and demanded.
func (e *Expectation) verifyOptions(cert *ssh.Certificate) error {
	for name, value := range cert.CriticalOptions {
		if name != "source-address" && (!e.narrow || name != forceCommand || value != identity.NarrowCommand) {
			return fmt.Errorf("it has the critical option %s", shown(name))
		}
	}
	if _, ok := cert.CriticalOptions[forceCommand]; e.narrow && !ok {
		return fmt.Errorf("%w: the service was asked for force-command=%q, and the certificate has none", executor.ErrWideCredential, identity.NarrowCommand)
	}
	for name := range cert.Extensions {
		if !slices.Contains(e.Extensions, name) {
			return fmt.Errorf("it has the extension %s, which is not among those expected", shown(name))
		}
	}
	return nil
}

func (e *Expectation) verifySignature(cert *ssh.Certificate, login string, now time.Time) error {
	if _, nested := cert.Key.(*ssh.Certificate); nested {
		return errors.New("it certifies a certificate")
	}
	if _, err := ca.ParsePublicKey(string(ssh.MarshalAuthorizedKey(cert.Key))); err != nil {
		return fmt.Errorf("it certifies a key that is not acceptable: %w", err)
	}
	if err := e.verifyCA(cert.SignatureKey); err != nil {
		return err
	}
	if cert.Signature == nil || cert.Signature.Format == ssh.KeyAlgoRSA { // SHA-1, which sshd refuses since 8.2
		return errors.New("its signature is of an algorithm that nodes refuse")
	}
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{"source-address", forceCommand}, Clock: func() time.Time { return now }}
	if err := checker.CheckCert(login, cert); err != nil {
		return fmt.Errorf("it does not verify: %w", err)
	}
	return nil
}

// verifyCA says whether key may sign.
func (e *Expectation) verifyCA(key ssh.PublicKey) error {
	if slices.Contains(e.CAFingerprints, ssh.FingerprintSHA256(key)) {
		return nil
	}
	if e.CAKeysFile != "" {
		keys, err := readCAKeys(e.CAKeysFile)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if bytes.Equal(k.Marshal(), key.Marshal()) {
				return nil
			}
		}
	}
	return fmt.Errorf("it is signed by %s, which is no CA that is expected", ssh.FingerprintSHA256(key))
}
