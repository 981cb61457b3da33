package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// revocations are attacks by whose access was revoked.
func revocations() []attack {
	return []attack{
		{"a command, files and a certificate after revoke --user, with static keys", "200, then 403 caller_revoked", revokedWithStaticKeys},
		{"a certificate that names a revoked account beside the login", "201, then 403 caller_revoked", revokedAsPrincipal},
		{"a person who was revoked, when the issuer has another alias", "403 caller_revoked", revokedUnderAnotherAlias},
		{"a login of another issuer that is the same account, unsaid", "refused", collidingIssuers},
	}
}

// admin runs an admin command on the service's data folder or socket.
func (v *service) admin(ctx context.Context, command string, args ...string) error {
	out, err := exec.CommandContext(ctx, v.site.binary, append([]string{command, "--config", v.config()}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("sallyport %s: %w\n%s", command, err, out)
	}
	return nil
}

// before and after are what calls answer before somebody is revoked and after it.
func (v *service) beforeAndAfter(ctx context.Context, revoke []string, calls ...call) (string, error) {
	first, err := v.call(ctx, calls[0])
	if err != nil {
		return "", err
	}
	if err := v.admin(ctx, "revoke", revoke...); err != nil {
		return "", err
	}
	var seen []string
	for _, c := range calls {
		a, err := v.call(ctx, c)
		if err != nil {
			return "", err
		}
		if len(seen) == 0 || seen[len(seen)-1] != a.String() {
			seen = append(seen, a.String())
		}
	}
	return first.String() + ", then " + strings.Join(seen, ", "), nil
}

func revokedWithStaticKeys(ctx context.Context, s *site) (string, error) {
	ca, key := filepath.Join(s.dir, "static-ca"), filepath.Join(s.dir, "static")
	for _, args := range [][]string{
		{"-q", "-t", "ed25519", "-N", "", "-f", ca},
		{"-q", "-t", "ed25519", "-N", "", "-f", key},
		{"-q", "-s", ca, "-I", "static", "-n", login(0), "-V", "-1m:+1h", key + ".pub"},
	} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	if err := s.trust(ca + ".pub"); err != nil {
		return "", err
	}
	keys := fmt.Sprintf("[[static_keys]]\nlogin = %q\nkey_file = %q\ncertificate_file = %q\n", login(0), key, key+"-cert.pub")
	v, err := s.serve(ctx, settings{executor: `credentials = "static"`, system: keys, more: "[firecrest]\nenabled = true\n"})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	line, err := newKey()
	if err != nil {
		return "", err
	}
	return v.beforeAndAfter(ctx, []string{"--user", login(0)},
		call{path: "/v1/systems/node/exec", token: token, body: map[string]any{"command": "true"}},
		call{path: "/v1/certificates", token: token, body: map[string]any{"public_key": line}},
		call{path: "/filesystem/node/ops/ls?path=/tmp", token: token})
}

func revokedAsPrincipal(ctx context.Context, s *site) (string, error) {
	v, err := s.serve(ctx, settings{more: fmt.Sprintf("[ca.profiles.user]\nextra_principals = [%q]\n", login(1))})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	line, err := newKey()
	if err != nil {
		return "", err
	}
	return v.beforeAndAfter(ctx, []string{"--user", login(1)},
		call{path: "/v1/certificates", token: token, body: map[string]any{"public_key": line, "principals": []string{login(0), login(1)}}})
}

func newKey() (string, error) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	return string(ssh.MarshalAuthorizedKey(key)), nil
}

// rewrite changes the configuration.
func (v *service) rewrite(change func(string) string) error {
	text, err := os.ReadFile(v.config())
	if err != nil {
		return err
	}
	return os.WriteFile(v.config(), []byte(change(string(text))), 0o600)
}

func revokedUnderAnotherAlias(ctx context.Context, s *site) (string, error) {
	v, err := s.serve(ctx, settings{})
	if err != nil {
		return "", err
	}
	if err := v.admin(ctx, "revoke", "--subject", "test:person-0"); err != nil {
		return "", err
	}
	other := func(text string) string { return strings.Replace(text, `alias = "test"`, `alias = "other"`, 1) }
	if err := errors.Join(v.stop(), v.rewrite(other)); err != nil {
		return "", err
	}
	if err := v.start(ctx); err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	a, err := v.call(ctx, call{path: "/v1/whoami", token: token})
	return a.String(), err
}

func collidingIssuers(ctx context.Context, s *site) (string, error) {
	v, err := s.serve(ctx, settings{})
	if err != nil {
		return "", err
	}
	second := "\n[[issuers]]\nalias = \"second\"\nurl = \"https://second.example.org\"\naudiences = [\"sallyport\"]\n"
	if err := v.rewrite(func(text string) string { return text + second }); err != nil {
		return "", err
	}
	if err := v.admin(ctx, "check-config"); err == nil || !strings.Contains(err.Error(), "login_namespace: is missing") {
		return "accepted", nil
	}
	return "refused", nil
}
