package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/identity/identitytest"
	"sallyport/internal/loginnode"
)

const (
	// users is how many people send commands; client i is user i modulo users.
	users = 20
	// maxClients is what the connections of 20 users with 10 sessions each can
	// carry, 4 connections a user.
	maxClients = users * connectionsPerUser * sessionsPerConnection
	maxIdle    = 2000

	connectionsPerUser    = 4
	sessionsPerConnection = 10 // MaxSessions of sshd's default configuration

	// command is external: the shell has to start a program for it.
	command = "/bin/true"
)

// A site is what is measured: a login node, an identity provider and a service.
type site struct {
	dir     string
	binary  string
	node    *loginnode.Node
	issuer  *identitytest.Issuer
	service *service
	before  *service // of another binary, or nil
	tokens  []string // of the users
	rawCA   ssh.Signer
	trusted []byte // authorized_keys text
	files   string // folder that users read
}

func startSite(ctx context.Context, dir, binary, before string) (s *site, err error) {
	s = &site{dir: dir, binary: binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.binary == "" {
		if s.binary, err = build(ctx, dir); err != nil {
			return s, err
		}
	}
	if s.rawCA, err = newSigner(); err != nil {
		return s, err
	}
	if s.issuer, err = identitytest.Start(identitytest.Config{}); err != nil {
		return s, err
	}
	s.trusted = ssh.MarshalAuthorizedKey(s.rawCA.PublicKey())
	cfg := loginnode.Config{TrustedUserCAKeys: s.trusted}
	if os.Geteuid() == 0 { // else everybody is mapped to the account that this runs as
		for i := range users {
			cfg.Users = append(cfg.Users, loginnode.User{Name: fmt.Sprintf("user%02d", i)})
		}
	}
	if s.node, err = loginnode.Start(ctx, cfg); err != nil {
		return s, err
	}
	if s.files, err = makeFiles(); err != nil {
		return s, err
	}
	for i := range users {
		token, err := s.token(i)
		if err != nil {
			return s, err
		}
		s.tokens = append(s.tokens, token)
	}
	if s.service, err = s.startService(ctx, s.binary, "service"); err != nil {
		return s, err
	}
	if before != "" {
		s.before, err = s.startService(ctx, before, "before")
	}
	return s, err
}

// login is the account of a user.
func (s *site) login(user int) string {
	logins := s.node.Users()
	return logins[user%len(logins)]
}

// token makes a token of a person. Those above the users are further people on the
// same accounts; they share no connection with anybody.
func (s *site) token(person int) (string, error) {
	return s.issuer.Mint(map[string]any{
		"sub": fmt.Sprintf("person-%d", person), "preferred_username": s.login(person % users),
		"exp": time.Now().Add(2 * time.Hour).Unix(),
	})
}

func (s *site) close() error {
	var errs []error
	for _, v := range []*service{s.service, s.before} {
		if v != nil {
			errs = append(errs, v.stop())
		}
	}
	if s.issuer != nil {
		errs = append(errs, s.issuer.Close())
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	if s.files != "" {
		errs = append(errs, os.RemoveAll(s.files))
	}
	return errors.Join(errs...)
}

// dial logs in on the node without Sallyport, with a certificate of another CA.
func (s *site) dial(user int) (*ssh.Client, error) {
	signer, err := newSigner()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cert := &ssh.Certificate{
		Key: signer.PublicKey(), Serial: 1, CertType: ssh.UserCert, KeyId: "raw", ValidPrincipals: []string{s.login(user)},
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(2 * time.Hour).Unix()), //nolint:gosec // after 1970
	}
	if err := cert.SignCert(rand.Reader, s.rawCA); err != nil {
		return nil, err
	}
	certified, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, err
	}
	verify, err := knownhosts.New(s.node.KnownHosts())
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", s.node.Addr(), &ssh.ClientConfig{
		User: s.login(user), Auth: []ssh.AuthMethod{ssh.PublicKeys(certified)},
		HostKeyCallback: verify, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, Timeout: 30 * time.Second,
	})
}

func newSigner() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// trust makes the node trust the CA in a file, beside those that it trusts.
func (s *site) trust(file string) error {
	key, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err
	}
	s.trusted = append(s.trusted, key...)
	return s.node.SetTrustedUserCAKeys(s.trusted)
}
