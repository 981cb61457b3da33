package main

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/identity"
	"sallyport/internal/loginnode"
)

// A policy decides in the service that runs, by claims of tokens, and whom it denies gets
// its words.
func TestTheServiceGoesByItsPolicy(t *testing.T) {
	t.Parallel()
	issuer, address := startIssuer(t), freeAddress(t)
	in, trusted := initialize(t)
	in.extra = fmt.Sprintf("[metrics]\nlisten = %q\n", address) + `
[policy]
groups_claim = "realm.roles"
[[policy.rules]]
name = "maintenance"
effect = "deny"
operations = ["exec"]
groups = ["guests"]
message = "Guests run no commands."
[[policy.rules]]
name = "members"
when = "has(claims.acr) && claims.acr == 'mfa'"
`
	in.node = startNode(t, loginnode.Config{}, trusted)
	in.serve(t, []identity.IssuerConfig{issuer.IssuerConfig("centre")})
	token := func(claims map[string]any) string {
		claims["sub"], claims["preferred_username"] = "s", in.node.Users()[0]
		token, err := issuer.Mint(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	a, err := in.exec(t.Context(), token(map[string]any{"acr": "mfa"}), "echo yes")
	if err != nil || a.Stdout != "yes\n" {
		t.Errorf("a member: %+v %v", a, err)
	}
	for name, c := range map[string]struct {
		claims map[string]any
		says   string
	}{
		"guest":      {map[string]any{"acr": "mfa", "realm": map[string]any{"roles": []string{"guests"}}}, "Guests run no commands"},
		"one factor": {map[string]any{"acr": "pwd"}, "policy_denied"},
		"no acr":     {map[string]any{}, "policy_denied"},
	} {
		if a, err := in.exec(t.Context(), token(c.claims), "echo no"); err == nil || !strings.Contains(err.Error(), c.says) || a.Stdout != "" {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
	_, text := fetch(t, "http://"+address+"/metrics")
	if want := `sallyport_audit_events_total{action="call.denied",outcome="failure",system="daint"} 3`; !strings.Contains(text, want+"\n") {
		t.Errorf("no line %s", want)
	}
}
