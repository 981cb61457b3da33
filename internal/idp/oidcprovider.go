package idp

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"os/exec"
	"strconv"
)

// What server.mjs calls the clients whose tokens are bound to a certificate, and the
// header in which it is told of one.
const (
	certificateClient = ".certificate"
	certificateHeader = "X-Client-Certificate"
)

// StartOIDCProvider starts npm's oidc-provider with these logins (default:
// alice and bob) as service accounts, its log in dir. Its access tokens are
// RS256 of type "at+jwt" with scope "exec", made by the client credentials grant,
// with the login in "preferred_username", "sub" and "client_id". It binds them to a key
// or a certificate as well (BoundToken, CertificateToken). The context
// bounds installation and start; the caller must Close the provider.
func StartOIDCProvider(ctx context.Context, dir string, logins ...string) (*Provider, error) {
	folder, err := installOIDCProvider(ctx)
	if err != nil {
		return nil, err
	}
	secret := rand.Text()
	return launch(ctx, dir, "oidc-provider", func(p *Provider, base string) error {
		p.url, p.token, p.typ = base, base+"/token", "at+jwt"
		p.command = func(ctx context.Context, port int) *exec.Cmd {
			args := append([]string{"server.mjs", strconv.Itoa(port)}, withDefault(logins)...)
			node := exec.CommandContext(ctx, "node", args...)
			node.Dir = folder
			node.Env = append(os.Environ(), "SALLYPORT_E2E_SECRET="+secret)
			return node
		}
		p.request = func(login string) (url.Values, string, string) {
			return url.Values{"grant_type": {"client_credentials"}, "scope": {"exec"}}, login, secret
		}
		return nil
	})
}
