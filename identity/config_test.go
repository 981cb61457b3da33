package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/identity"
)

func goodRule() identity.IssuerConfig {
	return identity.IssuerConfig{Alias: "site", URL: "https://idp.test", Audiences: []string{"sallyport"}}
}

func TestEveryMistakeInAConfigurationIsReported(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, []byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*identity.IssuerConfig)
		want   string
	}{
		"no alias":                 {func(c *identity.IssuerConfig) { c.Alias = "" }, `alias ""`},
		"alias with a colon":       {func(c *identity.IssuerConfig) { c.Alias = "a:b" }, `alias "a:b"`},
		"alias is long":            {func(c *identity.IssuerConfig) { c.Alias = strings.Repeat("a", 17) }, "alias"},
		"no URL":                   {func(c *identity.IssuerConfig) { c.URL = "" }, "issuer URL"},
		"URL is relative":          {func(c *identity.IssuerConfig) { c.URL = "idp.test" }, `"idp.test"`},
		"URL is http":              {func(c *identity.IssuerConfig) { c.URL = "http://idp.test" }, "not https"},
		"URL is a file":            {func(c *identity.IssuerConfig) { c.URL = "file:///etc/passwd"; c.AllowHTTP = true }, "absolute https"},
		"URL with a query":         {func(c *identity.IssuerConfig) { c.URL = "https://idp.test?x=1" }, "query"},
		"URL with a fragment":      {func(c *identity.IssuerConfig) { c.URL = "https://idp.test#x" }, "fragment"},
		"JWKS URL is http":         {func(c *identity.IssuerConfig) { c.JWKSURL = "http://idp.test/keys" }, "JWKS URL"},
		"two sources of keys":      {func(c *identity.IssuerConfig) { c.JWKSURL, c.JWKSFile = "https://idp.test/k", empty }, "choose one"},
		"JWKS file is missing":     {func(c *identity.IssuerConfig) { c.JWKSFile = empty + ".not" }, "no such file"},
		"JWKS file has no key":     {func(c *identity.IssuerConfig) { c.JWKSFile = empty }, "no usable key"},
		"no audience":              {func(c *identity.IssuerConfig) { c.Audiences = nil }, "no audiences"},
		"empty audience":           {func(c *identity.IssuerConfig) { c.Audiences = []string{"a", ""} }, "audiences: an empty value"},
		"empty scope":              {func(c *identity.IssuerConfig) { c.RequiredScopes = []string{""} }, "scopes"},
		"empty client":             {func(c *identity.IssuerConfig) { c.AllowedClients = []string{""} }, "clients"},
		"algorithm none":           {func(c *identity.IssuerConfig) { c.Algorithms = []string{"RS256", "none"} }, `"none"`},
		"algorithm HS256":          {func(c *identity.IssuerConfig) { c.Algorithms = []string{"HS256"} }, `"HS256"`},
		"algorithm in lower case":  {func(c *identity.IssuerConfig) { c.Algorithms = []string{"rs256"} }, `"rs256"`},
		"login claim has a hole":   {func(c *identity.IssuerConfig) { c.LoginClaim = "a..b" }, `"a..b"`},
		"login claim ends in dot":  {func(c *identity.IssuerConfig) { c.LoginClaim = "a." }, `"a."`},
		"login claim with NUL":     {func(c *identity.IssuerConfig) { c.LoginClaim = "a\x00b" }, "NUL"},
		"required claim is empty":  {func(c *identity.IssuerConfig) { c.RequiredClaims = map[string]string{"": "x"} }, "claim path"},
		"login pattern is broken":  {func(c *identity.IssuerConfig) { c.Login.Pattern = "(" }, "login pattern"},
		"negative interval":        {func(c *identity.IssuerConfig) { c.MinRefreshInterval = -1 }, "min refresh interval"},
		"negative lifetime":        {func(c *identity.IssuerConfig) { c.MinLifetime = -time.Second }, "min lifetime"},
		"leeway of an hour":        {func(c *identity.IssuerConfig) { c.Leeway = time.Hour }, "leeway"},
		"stale before the refresh": {func(c *identity.IssuerConfig) { c.MaxStale = time.Second }, "max stale"},
		"no token can live":        {func(c *identity.IssuerConfig) { c.MaxLifetime = time.Second }, "max lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule := goodRule()
			test.change(&rule)
			verifier, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{rule}})
			if err == nil {
				_ = verifier.Close()
				t.Fatal("the configuration is accepted")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error does not mention %q: %v", test.want, err)
			}
		})
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{
		{Alias: "BAD", URL: "http://one.test", Algorithms: []string{"none"}},
		{Alias: "two", URL: "https://two.test", LoginClaim: "."},
	}})
	if err == nil {
		t.Fatal("the configuration is accepted")
	}
	for _, want := range []string{`issuer "BAD"`, "not https", `"none"`, "no audiences", `issuer "two"`, `claim path "."`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q: %v", want, err)
		}
	}
}

func TestAPasswordInAURLIsNotShown(t *testing.T) {
	t.Parallel()
	rule := goodRule()
	rule.URL = "https://user:hunter2@idp.test"
	_, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{rule}})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error is %v", err)
	}
}

func TestIssuersMustBeDistinctAndAtLeastOne(t *testing.T) {
	t.Parallel()
	if _, err := identity.New(identity.Config{}); err == nil || !strings.Contains(err.Error(), "no issuers") {
		t.Errorf("error is %v", err)
	}
	other := goodRule()
	other.Alias = "other"
	if _, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{goodRule(), other}}); err == nil {
		t.Error("two issuers have one URL")
	}
	other.URL, other.Alias = "https://other.test", "site"
	if _, err := identity.New(identity.Config{Issuers: []identity.IssuerConfig{goodRule(), other}}); err == nil {
		t.Error("two issuers have one alias")
	}
}
