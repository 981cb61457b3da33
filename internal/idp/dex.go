package idp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/crypto/bcrypt"
)

// StartDex starts dex with these logins (default: alice and bob), its files in
// dir. Its access tokens are RS256 without a "typ", made by the password grant,
// with the login in "preferred_username" and a subject that is dex's own. The
// context bounds build and start; the caller must Close the provider.
func StartDex(ctx context.Context, dir string, logins ...string) (*Provider, error) {
	program, err := buildDex(ctx)
	if err != nil {
		return nil, err
	}
	password, secret := rand.Text(), rand.Text()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "dex.json")
	return launch(ctx, dir, "dex", func(p *Provider, base string) error {
		p.url, p.token = base+"/dex", base+"/dex/token"
		p.command = func(ctx context.Context, _ int) *exec.Cmd {
			return exec.CommandContext(ctx, program, "serve", config)
		}
		p.request = func(login string) (url.Values, string, string) {
			form := url.Values{
				"grant_type": {"password"}, "scope": {"openid profile email"},
				"username": {login + "@example.org"}, "password": {password},
			}
			return form, audience, secret
		}
		text, err := dexConfig(p.url, string(hash), secret, withDefault(logins))
		if err != nil {
			return err
		}
		return os.WriteFile(config, text, 0o600)
	})
}

// dexConfig is dex's configuration, in JSON, which is YAML too. Storage is in
// memory, so a restart makes new keys.
func dexConfig(issuer, hash, secret string, logins []string) ([]byte, error) {
	address, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	var passwords []object
	for _, login := range logins {
		passwords = append(passwords, object{
			"email": login + "@example.org", "username": login, "preferredUsername": login,
			"userID": "id-" + login, "hash": hash,
		})
	}
	return json.Marshal(object{
		"issuer":           issuer,
		"storage":          object{"type": "memory"},
		"web":              object{"http": address.Host},
		"oauth2":           object{"passwordConnector": "local", "skipApprovalScreen": true},
		"expiry":           object{"idTokens": "10m"},
		"enablePasswordDB": true,
		"staticPasswords":  passwords,
		"staticClients": []object{{
			"id": audience, "name": "Sallyport", "secret": secret, "redirectURIs": []string{"http://127.0.0.1/unused"},
		}},
	})
}

func withDefault(logins []string) []string {
	if len(logins) == 0 {
		return []string{"alice", "bob"}
	}
	return logins
}
