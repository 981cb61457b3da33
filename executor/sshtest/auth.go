package sshtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

const forceCommand = "force-command"

var errKeyNotAuthorized = errors.New("key is not authorized")

// serverConfig is made anew for each connection, because a Login is noted once
// for each.
func (s *Server) serverConfig() *ssh.ServerConfig {
	algorithms := ssh.SupportedAlgorithms()
	cfg := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: algorithms.KeyExchanges,
			Ciphers:      algorithms.Ciphers,
			MACs:         algorithms.MACs,
		},
		MaxAuthTries:      6,
		PublicKeyCallback: s.authorize,
		ServerVersion:     "SSH-2.0-Sallyport_sshtest",
	}
	for _, key := range s.hostKeys {
		cfg.AddHostKey(key)
	}
	return cfg
}

// authorize decides about one key. The Login in the permissions is noted when
// the client has proved that it holds the key, not when it asks.
func (s *Server) authorize(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		if s.cfg.AuthorizedKey == nil || !s.cfg.AuthorizedKey(conn.User(), key) {
			return nil, errKeyNotAuthorized
		}
		login := Login{User: conn.User(), Fingerprint: ssh.FingerprintSHA256(key)}
		return withLogin(&ssh.Permissions{}, login), nil
	}
	// CertChecker takes a certificate without principals as good for every
	// account; sshd takes it for none (auth2-pubkey.c).
	if len(cert.ValidPrincipals) == 0 {
		return nil, fmt.Errorf("certificate %q has no principals", cert.KeyId)
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{forceCommand},
		IsUserAuthority:          s.trusts,
	}
	permissions, err := checker.Authenticate(conn, cert)
	if err != nil {
		return nil, err
	}
	return withLogin(permissions, Login{
		User: conn.User(), KeyID: cert.KeyId, Serial: cert.Serial,
		Fingerprint: ssh.FingerprintSHA256(cert.Key),
	}), nil
}

func (s *Server) trusts(authority ssh.PublicKey) bool {
	if s.cfg.TrustedCAs == nil {
		return false
	}
	return slices.ContainsFunc(s.cfg.TrustedCAs(), func(ca ssh.PublicKey) bool {
		return bytes.Equal(ca.Marshal(), authority.Marshal())
	})
}

type loginKey struct{}

// withLogin copies p, because Authenticate returns the certificate's own maps.
func withLogin(p *ssh.Permissions, l Login) *ssh.Permissions {
	return &ssh.Permissions{
		CriticalOptions: p.CriticalOptions,
		Extensions:      p.Extensions,
		ExtraData:       map[any]any{loginKey{}: l},
	}
}
