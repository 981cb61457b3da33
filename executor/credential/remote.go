package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/identity"
)

var _ executor.CredentialProvider = (*Remote)(nil)

// maxPrivateKeyBytes bounds what is parsed as a private key: RSA-8192 takes 6.3
// KiB, and larger numbers take long to check.
const maxPrivateKeyBytes = 8 << 10

// RemoteConfig is what a [Remote] needs.
type RemoteConfig struct {
	ServiceConfig
	// Lifetime is how long certificates are to be good, in whole minutes; 0 means
	// one minute, which FirecREST asks for and every such service knows. A service
	// of ours grants up to its profile's maximum.
	Lifetime time.Duration
}

// Remote gets certificates from a service that speaks the format of FirecREST's
// SSHService: POST /api/v1/ssh-keys, for which Sallyport's own "ca.compat" is one.
// That format has the service make the private key; prefer [DeiC], which has not.
//
// A certificate is used only if it is a user certificate over the private key that
// came with it, names the caller's login and nothing else, is good now and for no
// longer than allowed, has no critical option but source-address (and force-command
// "internal-sftp" if the caller may run no commands, when it must) and no extension
// but those allowed, and is signed by an expected CA. Anything else is
// [executor.ErrNoCredential], with the reason.
type Remote struct {
	service  *service
	expect   Expectation
	duration string
}

// NewRemote checks cfg and reports its mistakes; nothing is sent.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	s, err := newService(cfg.ServiceConfig, "/api/v1/ssh-keys")
	duration, durationErr := serviceDuration(cfg.Lifetime)
	if err := errors.Join(err, cfg.Expect.check(), durationErr); err != nil {
		return nil, fmt.Errorf("remote credentials: %w", err)
	}
	return &Remote{service: s, expect: cfg.Expect, duration: duration}, nil
}

// serviceDuration writes a time as SSHService has it: "5min", "1d".
func serviceDuration(d time.Duration) (string, error) {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return "1min", nil
	case d < time.Minute || d > day || d%time.Minute != 0:
		return "", fmt.Errorf("lifetime %s is not whole minutes, 1 to 1440", d)
	case d == day:
		return "1d", nil
	}
	return strconv.Itoa(int(d/time.Minute)) + "min", nil
}

// Close closes idle connections to the service.
func (p *Remote) Close() error { return p.service.close() }

// Credential asks the service for a key and a certificate, as the caller.
func (p *Remote) Credential(ctx context.Context, caller identity.Identity, _ executor.Node) (executor.Credential, error) {
	if err := ready(caller); err != nil {
		return executor.Credential{}, err
	}
	ask := map[string]string{"duration": p.duration, "username": caller.Login()}
	if caller.Narrow() { // an addition of ours: what comes without it is refused
		ask["force_command"] = identity.NarrowCommand
	}
	answer, err := p.service.post(ctx, caller.Bearer(), ask, http.StatusCreated)
	if err != nil {
		return executor.Credential{}, err
	}
	var keys struct {
		SSHKey struct {
			PrivateKey string `json:"privateKey"`
			PublicKey  string `json:"publicKey"`
		} `json:"sshKey"`
	}
	if json.Unmarshal(answer, &keys) != nil { // whose error would quote the answer
		return executor.Credential{}, p.service.unusable(errors.New("answer is not the JSON of an SSHService"))
	}
	cert, err := parseCertificate(keys.SSHKey.PublicKey)
	if err != nil {
		return executor.Credential{}, p.service.unusable(err)
	}
	return p.service.accept(p.expect.of(caller), cert, caller.Login(), func() (ssh.Signer, error) {
		return parsePrivateKey(keys.SSHKey.PrivateKey)
	})
}

func parsePrivateKey(text string) (ssh.Signer, error) {
	if len(text) > maxPrivateKeyBytes {
		return nil, fmt.Errorf("private key is larger than %d bytes", maxPrivateKeyBytes)
	}
	signer, err := ssh.ParsePrivateKey([]byte(text))
	if err != nil {
		return nil, errors.New("private key cannot be read") // the cause might quote it
	}
	return signer, nil
}

// accept makes a credential of a certificate that stands all checks. The private
// key is looked at last, when the size of its public half is known to be sane.
func (s *service) accept(expect *Expectation, cert *ssh.Certificate, login string, private func() (ssh.Signer, error)) (executor.Credential, error) {
	if err := expect.verify(cert, login, time.Now()); errors.Is(err, executor.ErrWideCredential) {
		return executor.Credential{}, fmt.Errorf("certificate of %s: %w", s.url, err)
	} else if err != nil {
		return executor.Credential{}, s.unusable(err)
	}
	key, err := private()
	if err != nil {
		return executor.Credential{}, s.unusable(err)
	}
	if !bytes.Equal(key.PublicKey().Marshal(), cert.Key.Marshal()) {
		return executor.Credential{}, s.unusable(errors.New("it is not over the key that it came for"))
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		return executor.Credential{}, s.unusable(err)
	}
	return executor.Credential{User: login, Signer: signer, Certificate: cert, NotAfter: notAfter(cert)}, nil
}

// unusable is a certificate that must not be used. It is no failure that another
// attempt could mend.
func (s *service) unusable(reason error) error {
	return fmt.Errorf("%w: certificate of %s is refused: %w", executor.ErrNoCredential, s.url, reason)
}
