package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// approvals are attacks by one administrator on acts that take two.
func approvals() []attack {
	return []attack{
		{"the end of a CA key, by one person, who approves it themselves", "held, then refused", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{more: heldActs})
			if err != nil {
				return "", err
			}
			id, out, err := v.propose(ctx)
			if err != nil || id == "" {
				return out, err
			}
			if out, code, err := v.command(ctx, "approve", id); err != nil || code == 0 {
				return "approved by its proposer: " + out, err
			}
			if _, out, err := v.propose(ctx); err != nil || !strings.Contains(out, "this takes two people") {
				return "done: " + out, err
			}
			return "held, then refused", nil
		}},
		{"an approval by a token without the role, of every path", "403 policy_denied", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{more: heldActs})
			if err != nil {
				return "", err
			}
			id, out, err := v.propose(ctx)
			if err != nil || id == "" {
				return out, err
			}
			token, err := s.token(0, map[string]any{"groups": []string{"users"}})
			if err != nil {
				return "", err
			}
			var a answer
			for _, path := range []string{"/v1/approvals/" + id + "/reject", "/v1/approvals/" + id + "/approve"} {
				if a, err = v.call(ctx, call{method: "POST", path: path, token: token}); err != nil || a.status != 403 {
					break
				}
			}
			return a.String(), err
		}},
		{"a service from a restored backup that nobody else has approved", "refused", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{more: heldActs})
			if err != nil {
				return "", err
			}
			pass, saved, again := filepath.Join(v.dir, "pass"), filepath.Join(s.dir, "saved"), filepath.Join(s.dir, "restored")
			if err := os.WriteFile(pass, []byte("correct horse battery staple\n"), 0o600); err != nil {
				return "", err
			}
			for _, args := range [][]string{{"backup", saved, "--passphrase-file", pass}, {"restore", saved, again, "--passphrase-file", pass}} {
				if out, code, err := v.command(ctx, args...); err != nil || code != 0 {
					return out, err
				}
			}
			out, code, err := v.command(ctx, "serve", "--config", filepath.Join(again, "sallyport.toml"))
			if err != nil || code != 1 || !strings.Contains(out, "this takes two people") {
				return fmt.Sprintf("exit %d: %s", code, out), err
			}
			return "refused", nil
		}},
	}
}

// heldActs is the configuration of a site where these acts take two people.
const heldActs = "[approval]\nacts = [\"compromise\", \"restore\"]\nadmin_groups = [\"admins\"]\n"

// propose asks for the end of the service's CA key; id is that of the proposal, if it is held.
func (v *service) propose(ctx context.Context) (id, out string, err error) {
	status, _, err := v.command(ctx, "ca", "status", "-o", "json")
	if err != nil {
		return "", "", err
	}
	key := regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`).FindString(status)
	out, _, err = v.command(ctx, "ca", "compromise", key, "--reason", "attack")
	if m := regexp.MustCompile(`sallyport approve ([0-9a-f]{16})`).FindStringSubmatch(out); m != nil {
		id = m[1]
	}
	return id, out, err
}
