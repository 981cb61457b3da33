package identity_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"sallyport/identity"
)

func TestRequiredScopesMustAllBeThere(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t, func(rule *identity.IssuerConfig) { rule.RequiredScopes = []string{"exec", "openid"} })
	for name, test := range map[string]struct {
		claims   map[string]any
		accepted bool
	}{
		"scope as a string":      {map[string]any{"scope": "profile openid  exec"}, true},
		"scope as a list":        {map[string]any{"scope": []string{"openid", "exec"}}, true},
		"scp as a list":          {map[string]any{"scp": []string{"openid", "exec"}}, true},
		"half in each":           {map[string]any{"scope": "openid", "scp": "exec"}, true},
		"none":                   {nil, false},
		"one is missing":         {map[string]any{"scope": "openid"}, false},
		"only a longer one":      {map[string]any{"scope": "openid exec:read"}, false},
		"another case":           {map[string]any{"scope": "openid EXEC"}, false},
		"separated by commas":    {map[string]any{"scope": "openid,exec"}, false},
		"an object":              {map[string]any{"scope": map[string]any{"openid": true, "exec": true}}, false},
		"a string within a list": {map[string]any{"scope": []string{"openid exec"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := f.token(t, goodHeader, f.claims(test.claims))
			if !test.accepted {
				refused(t, verifier, token, identity.ErrScope)
			} else if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRequiredClaimsMustHaveTheirValue(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t, func(rule *identity.IssuerConfig) {
		rule.RequiredClaims = map[string]string{"email_verified": "true", "realm.roles": "hpc", `https://a\.test/x`: "y"}
	})
	good := map[string]any{"email_verified": true, "realm": map[string]any{"roles": []string{"a", "hpc"}}, "https://a.test/x": "y"}
	if _, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(good))); err != nil {
		t.Errorf("a token with all claims gives %v", err)
	}
	for name, change := range map[string]map[string]any{
		"absent":             {"realm": nil},
		"false":              {"email_verified": false},
		"a number":           {"email_verified": 1},
		"list without it":    {"realm": map[string]any{"roles": []string{"hpc2"}}},
		"list of lists":      {"realm": map[string]any{"roles": [][]string{{"hpc"}}}},
		"path through list":  {"realm": []any{map[string]any{"roles": "hpc"}}},
		"path as one name":   {"realm": nil, "realm.roles": "hpc"},
		"escaped dot nested": {"https://a.test/x": nil, "https://a": map[string]any{"test/x": "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := map[string]any{}
			maps.Copy(claims, good)
			maps.Copy(claims, change)
			refused(t, verifier, f.token(t, goodHeader, f.claims(claims)), identity.ErrScope)
		})
	}
}

func TestTokensThatAreNoBearerAccessTokensAreRefused(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	for name, test := range map[string]struct {
		claims   map[string]any
		accepted bool
	}{
		"bound to a DPoP key":      {map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, false},
		"bound to a certificate":   {map[string]any{"cnf": map[string]any{"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}, false},
		"bound to nothing known":   {map[string]any{"cnf": map[string]any{}}, false},
		"cnf is a string":          {map[string]any{"cnf": ""}, false},
		"a logout token":           {map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}, false},
		"events is a list":         {map[string]any{"events": []string{}}, false},
		"typ ID":                   {map[string]any{"typ": "ID"}, false},
		"typ Refresh":              {map[string]any{"typ": "Refresh"}, false},
		"typ Offline":              {map[string]any{"typ": "Offline"}, false},
		"typ Logout":               {map[string]any{"typ": "Logout"}, false},
		"typ DPoP":                 {map[string]any{"typ": "DPoP"}, false},
		"typ is empty":             {map[string]any{"typ": ""}, false},
		"typ is a list":            {map[string]any{"typ": []string{"Bearer"}}, false},
		"typ Bearer":               {map[string]any{"typ": "Bearer"}, true},
		"typ bearer":               {map[string]any{"typ": "bearer"}, true},
		"typ JWT":                  {map[string]any{"typ": "JWT"}, true},
		"typ AT+JWT":               {map[string]any{"typ": "AT+JWT"}, true},
		"all three are null":       {map[string]any{"cnf": json.RawMessage("null"), "events": json.RawMessage("null"), "typ": json.RawMessage("null")}, true},
		"other names begin alike":  {map[string]any{"cnfx": 1, "event": 1, "typo": "ID"}, true},
		"deeper they mean nothing": {map[string]any{"ext": map[string]any{"cnf": 1, "events": 1, "typ": "ID"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := f.token(t, goodHeader, f.claims(test.claims))
			if !test.accepted {
				refused(t, verifier, token, identity.ErrInvalidToken)
			} else if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOnlyAllowedClientsAreAccepted(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t, func(rule *identity.IssuerConfig) { rule.AllowedClients = []string{"portal", "cli"} })
	for _, test := range []struct {
		claims map[string]any
		client string // "": refused
	}{
		{map[string]any{"azp": "portal"}, "portal"},
		{map[string]any{"client_id": "cli"}, "cli"},
		{map[string]any{"azp": "portal", "client_id": "cli"}, "portal"},
		{map[string]any{"azp": "portal", "client_id": "evil"}, ""},
		{map[string]any{"azp": "evil", "client_id": "cli"}, ""},
		{map[string]any{"azp": "Portal"}, ""},
		{map[string]any{"azp": ""}, ""},
		{nil, ""},
	} {
		t.Run(fmt.Sprint(test.claims), func(t *testing.T) {
			t.Parallel()
			token := f.token(t, goodHeader, f.claims(test.claims))
			if test.client == "" {
				refused(t, verifier, token, identity.ErrInvalidToken)
				return
			}
			if caller, err := verifier.Verify(t.Context(), token); err != nil || caller.Client() != test.client {
				t.Errorf("client is %q, error %v; want %q", caller.Client(), err, test.client)
			}
		})
	}
}

func TestTheLoginComesFromTheConfiguredClaim(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	for _, test := range []struct{ path, claims, login string }{
		{"", `{}`, "alice"},
		{"account", `{"account":"bob"}`, "bob"},
		{"ext.hpc.account", `{"ext":{"hpc":{"account":"bob"}}}`, "bob"},
		{"ext.hpc.account", `{"ext.hpc.account":"bob"}`, ""},
		{"ext.hpc.account", `{"ext":{"hpc":{"account":["bob"]}}}`, ""},
		{"ext.hpc.account", `{"ext":{"hpc":[{"account":"bob"}]}}`, ""},
		{"ext.hpc.account", `{"ext":"hpc"}`, ""},
		{"ext.hpc", `{"ext":{"hpc":{"account":"bob"}}}`, ""},
		{`https://hpc\.example\.org/account`, `{"https://hpc.example.org/account":"bob"}`, "bob"},
		{`https://hpc\.example\.org/claims.account`, `{"https://hpc.example.org/claims":{"account":"bob"}}`, "bob"},
		{"account", `{"Account":"bob"}`, ""},
		{"account", `{"account":42}`, ""},
		{"account", `{"account":null}`, ""},
		{"account", `{"account":""}`, ""},
	} {
		t.Run(test.path+" in "+test.claims, func(t *testing.T) {
			t.Parallel()
			verifier := f.verifier(t, func(rule *identity.IssuerConfig) { rule.LoginClaim = test.path })
			var claims map[string]any
			if err := json.Unmarshal([]byte(test.claims), &claims); err != nil {
				t.Fatal(err)
			}
			token := f.token(t, goodHeader, f.claims(claims))
			if test.login == "" {
				refused(t, verifier, token, identity.ErrNoLogin)
				return
			}
			if caller, err := verifier.Verify(t.Context(), token); err != nil || caller.Login() != test.login {
				t.Errorf("login is %q, error %v; want %q", caller.Login(), err, test.login)
			}
		})
	}
}

// hostileLogins are names that have broken something somewhere.
func hostileLogins() []string {
	return []string{
		"", " ", "root", "Root", "ROOT", "root ", " root", "root\n", "root\x00", "ｒoot", "rооt", "r\u200boot", "toor", "daemon", "nobody", "sshd", "slurm",
		"alice,root", "alice,bob", "alice bob", "alice\tbob", "alice\nroot", "alice\r", "alice\x00root", "Alice", "ALICE", "älice", "alicé", "ａlice", "alıce",
		"alice\u0301", "\u202ealice", "-alice", "--", "-oProxyCommand=x", ".alice", "..", ".", "../root", "alice/../root", "/root", "a:b", "a@b", "a;id", "$(id)", "`id`",
		"a|b", "a&b", "a*", "?", "[a]", "~alice", "~", "a\\b", `a"b`, "a'b", "a%b", "%u", "a=b", "#1000", "0", "1000", "4294967295", "007",
		strings.Repeat("a", 33), strings.Repeat("a", 65), strings.Repeat("a", 10000),
	}
}

func TestHostileLoginsAreRefused(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	verifier := f.verifier(t)
	for _, login := range hostileLogins() {
		t.Run(fmt.Sprintf("%.40q", login), func(t *testing.T) {
			t.Parallel()
			token := f.token(t, goodHeader, f.claims(map[string]any{"preferred_username": login}))
			refused(t, verifier, token, identity.ErrNoLogin)
		})
	}
	for _, login := range []string{"alice", "a", "_svc", "a.b-c_d", "u1234567", strings.Repeat("a", 32)} {
		caller, err := verifier.Verify(t.Context(), f.token(t, goodHeader, f.claims(map[string]any{"preferred_username": login})))
		if err != nil || caller.Login() != login {
			t.Errorf("login %q becomes %q, error %v", login, caller.Login(), err)
		}
	}
}
