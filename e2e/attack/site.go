package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sallyport/identity/identitytest"
	"sallyport/internal/loginnode"
)

// A site is what is attacked: a login node with the accounts user0 to user3, an identity
// provider, and the services that the attacks start.
type site struct {
	dir      string
	binary   string
	node     *loginnode.Node
	issuer   *identitytest.Issuer
	trusted  []byte // authorized_keys text that the node has
	services []*service
	started  int
}

func startSite(ctx context.Context, binary string) (s *site, err error) {
	s = &site{binary: binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "attack-"); err != nil {
		return s, err
	}
	if s.binary == "" {
		s.binary = filepath.Join(s.dir, "sallyport")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.binary, "sallyport/cmd/sallyport")
		if out, err := build.CombinedOutput(); err != nil {
			return s, fmt.Errorf("build sallyport: %w\n%s", err, out)
		}
	}
	if s.issuer, err = identitytest.Start(identitytest.Config{}); err != nil {
		return s, err
	}
	var users []loginnode.User
	for i := range 4 {
		u := loginnode.User{Name: login(i)}
		if i == bashPerson {
			u.Shell = "/bin/bash"
		}
		users = append(users, u)
	}
	s.node, err = loginnode.Start(ctx, loginnode.Config{Users: users})
	return s, err
}

// bashPerson has a shell that runs ~/.bashrc before each command.
const bashPerson = 3

// login is the account of a person.
func login(person int) string { return fmt.Sprintf("user%d", person) }

// token is a good token of a person; claims overrule what it says.
func (s *site) token(person int, claims map[string]any) (string, error) {
	all := map[string]any{
		"sub": fmt.Sprintf("person-%d", person), "preferred_username": login(person), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(all, claims)
	return s.issuer.Mint(all)
}

// trust has the node trust the CA in a file beside those that it trusts.
func (s *site) trust(file string) error {
	key, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err
	}
	s.trusted = append(s.trusted, key...)
	return s.node.SetTrustedUserCAKeys(s.trusted)
}

func (s *site) endServices() error {
	var errs []error
	for _, v := range s.services {
		errs = append(errs, v.stop())
	}
	s.services = nil
	return errors.Join(errs...)
}

func (s *site) close() error {
	errs := []error{s.endServices()}
	if s.issuer != nil {
		errs = append(errs, s.issuer.Close())
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
