package importfirecrest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// keycloakCerts are the keys of a realm of Keycloak, whose issuer stands before them.
var keycloakCerts = regexp.MustCompile(`\A(https?://.+/realms/[^/?#]+)/protocol/openid-connect/certs/?\z`)

// ourAlgorithms are those of issuers.algorithms.
func ourAlgorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

// issuers are auth.authentication, and auth.authorization after them.
func (c *conversion) issuers(auth *section) {
	in := auth.section("authentication")
	login := in.text("username_claim")
	least := time.Duration(in.number("min_token_ttl", 1, 3600)) * time.Second
	algorithm := in.text("jwk_algorithm")
	if algorithm != "" && !slices.Contains(ourAlgorithms(), algorithm) {
		in.note("jwk_algorithm", "%q is not accepted here: the default algorithms hold", algorithm)
		algorithm = ""
	}
	in.drop("scopes", "they are for FirecREST's documentation page alone; required_scopes of an issuer demands scopes")
	in.drop("token_url", "clients get their tokens there, and nobody else needs to")
	in.drop("token_endpoint_auth_method", "no tokens are fetched: there is no health check with an account of its own")
	certs := in.certs()
	if len(certs) == 0 {
		in.note("public_certs", "is missing: give the provider's URL in issuers.url")
		certs = []string{"https://idp.example.org"}
	} else {
		in.note("public_certs", "FirecREST checks neither \"iss\" nor \"aud\" of a token, and both are needed here: "+
			"compare issuers.url with \"iss\" of a real token, and set audiences to what the provider puts into \"aud\" for this service")
	}
	seen := map[string]bool{}
	for i, certs := range certs {
		address, guess := issuerOf(certs, i)
		if seen[address] {
			in.note("public_certs", "two of them are of the issuer %q: the first was taken", address)
			continue
		}
		seen[address] = true
		c.out.table("[[issuers]]")
		alias := "idp"
		if i > 0 {
			alias = fmt.Sprintf("idp%d", i+1)
		}
		c.out.set("alias", alias)
		if guess {
			in.note("public_certs", "%q does not tell the issuer: issuers.url is a guess", certs)
		}
		c.out.set("url", address)
		c.keys(in, certs)
		c.out.set("audiences", []string{"sallyport"})
		c.out.set("login_claim", login)
		c.out.set("min_lifetime", least)
		if algorithm != "" {
			c.out.set("algorithms", []string{algorithm})
		}
	}
	if len(seen) > 1 {
		in.note("public_certs", "there are %d issuers, and FirecREST takes a login of one for the same account as that login of the others: "+
			"if that is meant, and they are the same people, set the same login_namespace in each [[issuers]] table; it will not be served before", len(seen))
	}
	in.rest()
	c.authorization(auth)
	auth.rest()
}

// certs takes public_certs: URLs, and files as FirecREST takes them.
func (s *section) certs() (list []string) {
	for _, text := range s.texts("public_certs") {
		if !strings.HasPrefix(text, fileURL) {
			text = s.publicURL("public_certs", text)
		}
		if text != "" && text != fileURL {
			list = append(list, text)
		}
	}
	return list
}

const fileURL = "file://"

// issuerOf finds out the issuer from where its keys are, or makes a guess.
func issuerOf(certs string, i int) (address string, guess bool) {
	if strings.HasPrefix(certs, fileURL) {
		return fmt.Sprintf("https://idp%d.example.org", i+1), true
	}
	if realm := keycloakCerts.FindStringSubmatch(certs); realm != nil {
		return realm[1], false
	}
	address, _, _ = strings.Cut(certs, "#")
	return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(address, "/"), "/certs"), "/"), true
}

// keys says where the keys of an issuer are.
func (c *conversion) keys(in *section, certs string) {
	if path, ok := strings.CutPrefix(certs, fileURL); ok {
		c.out.set("jwks_file", path)
		return
	}
	certs, _, _ = strings.Cut(certs, "#")
	c.out.set("jwks_url", certs)
	if strings.HasPrefix(certs, "http://") {
		in.note("public_certs", "plain http: whoever sits on the path can make tokens for anybody; allow_http was set to keep it working")
		c.out.set("allow_http", true)
	}
}

// nativeCheck is the URL of OpenFGA's own check, which names the store.
var nativeCheck = regexp.MustCompile(`\A(https?://.+)/stores/([0-9A-HJKMNP-TV-Z]{26})/check/?\z`)

// authorization is OpenFGA. FirecREST posts to the URL as it stands and takes every 200
// for a yes; ours names the store and takes a yes for a yes.
func (c *conversion) authorization(auth *section) {
	in := auth.section("authorization")
	if !auth.has("authorization") {
		return
	}
	address := in.url("url")
	timeout := time.Duration(in.number("timeout", 1, 30)) * time.Second
	in.drop("max_connections", "callers who ask the same share one question")
	in.rest()
	if check := nativeCheck.FindStringSubmatch(address); check != nil {
		c.out.table("[policy.openfga]")
		c.out.set("url", check[1])
		c.out.set("store", check[2])
		c.out.set("object_type", "vcluster")
		c.out.set("timeout", timeout)
		in.note("url", "FirecREST takes every answer with status 200 for a yes; here it must say \"allowed\": true. "+
			"The caller's token is not sent any more: set token_file if the server wants one")
		return
	}
	in.note("url", "names no store of OpenFGA (…/stores/ID/check): all calls are denied by a rule until [policy.openfga] is set up")
	c.out.table("[[policy.rules]]")
	c.out.comment("Set up [policy.openfga] with url, store and object_type = \"vcluster\"; then remove this rule.")
	if address, _, _ = strings.Cut(address, "?"); address != "" {
		c.out.comment("FirecREST asked %s", oneLine(address))
	}
	c.out.set("name", "authorization-is-not-set-up")
	c.out.set("effect", "deny")
	c.out.set("message", "Authorization is not set up on this service yet.")
}
