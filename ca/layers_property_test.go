package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"sallyport/ca/krl"
	"sallyport/ca/revocation"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store"
	"sallyport/store/audit"
)

type noAudit struct{}

func (noAudit) Record(context.Context, audit.Event) error { return nil }

// TestWhatOneLayerRefusesNoOtherLetsPass: for certificates of people of two issuers, with
// accounts that both have and that stand as other principals, and for acts of each kind.
// What an act covers of a certificate, the list for nodes revokes, whoever has the
// connection open is cut, a login with it is not begun, and it is not issued again; who
// is refused at admission is refused by all of them; and nothing else is.
func TestWhatOneLayerRefusesNoOtherLetsPass(t *testing.T) {
	t.Parallel()
	signer := newTestKey(t, "ed25519")
	var people []identity.Identity
	for _, issuer := range []string{"one", "two"} {
		for _, who := range [][2]string{{"s1", "alice"}, {"s2", "bob"}, {"s3", "alice"}} {
			people = append(people, identitytest.IdentityFrom(t, issuer, who[0], who[1], time.Hour))
		}
	}
	keys := []ssh.PublicKey{newPublicKey(t), newPublicKey(t), newPublicKey(t)}
	rapid.Check(t, func(t *rapid.T) {
		records := &memoryStore{entries: make(map[string]store.Entry)}
		a, err := New(Config{
			Key: signer, Store: records, Audit: noAudit{},
			Profiles: []ProfileConfig{{Name: ProfileUser, ExtraPrincipals: []string{"shared", "Team", "bob"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		type issued struct {
			request Request
			cert    *ssh.Certificate
		}
		var all []issued
		for range rapid.IntRange(1, 5).Draw(t, "certificates") {
			caller := rapid.SampledFrom(people).Draw(t, "caller")
			principals := slices.Compact(slices.Sorted(slices.Values(append(
				rapid.SliceOfN(rapid.SampledFrom([]string{"shared", "Team", "bob"}), 0, 2).Draw(t, "principals"), caller.Login()))))
			r := Request{Caller: caller, Profile: ProfileUser, PublicKey: rapid.SampledFrom(keys).Draw(t, "key"), Principals: principals}
			cert, err := a.Issue(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, issued{r, cert})
		}
		some := rapid.SampledFrom(all).Draw(t, "of")
		act := rapid.SampledFrom([]revocation.Act{
			{Kind: revocation.User, Value: rapid.SampledFrom([]string{"alice", "bob", "shared", "team", "ALICE", "carol"}).Draw(t, "account")},
			{Kind: revocation.Subject, Value: some.request.Caller.Issuer() + "#" + some.request.Caller.Subject()},
			{Kind: revocation.Key, Value: ssh.FingerprintSHA256(some.cert.Key)},
			{Kind: revocation.Serial, Value: strconv.FormatUint(some.cert.Serial, 10)},
			{Kind: revocation.KeyID, Value: some.cert.KeyId},
		}).Draw(t, "act")
		if _, err := a.Revoke(context.Background(), admin, act, nil); err != nil {
			t.Fatal(err)
		}
		list, err := krl.Parse(a.RevocationList())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			caller := c.request.Caller
			use := revocation.UseOf(caller)
			use.Grants = []revocation.Grant{revocation.GrantOf(c.cert)}
			covered := act.Covers(use)
			_, again := a.Issue(context.Background(), c.request)
			renewed := act.Kind == revocation.Serial || act.Kind == revocation.KeyID // another certificate is another
			layers := map[string]bool{
				"the list for nodes":       list.Revokes(c.cert),
				"what is open, and logins": errors.Is(a.register.Refuse(use), revocation.ErrRevoked),
				"cached credentials":       a.standing(context.Background(), caller, c.cert, 0) != nil,
				"new certificates":         errors.Is(again, ErrPolicy) || (renewed && covered),
			}
			for layer, refused := range layers {
				if refused != covered {
					t.Errorf("%s %s covers %s %v: %t, but %s: %t", act.Kind, act.Value, caller, c.cert.ValidPrincipals, covered, layer, refused)
				}
			}
			if admitted := a.register.Admit(caller) == nil; !admitted && !covered {
				t.Errorf("%s %s: %s is refused at admission, and the certificate is good", act.Kind, act.Value, caller)
			} else if admitted && act.Covers(revocation.UseOf(caller)) {
				t.Errorf("%s %s: %s is admitted", act.Kind, act.Value, caller)
			}
		}
	})
}

// TestRowsOfOlderVersionsAreMatchedBySubject: they have the alias of the issuer alone,
// which may be another's by now, so that a person is revoked by the subject.
func TestRowsOfOlderVersionsAreMatchedBySubject(t *testing.T) {
	t.Parallel()
	old := Issued{Serial: 7, Issuer: "centre", Subject: "sub", Login: "alice", Principals: nil}
	for act, want := range map[revocation.Act]bool{
		{Kind: revocation.Subject, Value: "https://idp.example.org#sub"}:   true,
		{Kind: revocation.Subject, Value: "https://other.example.org#sub"}: true,
		{Kind: revocation.Subject, Value: "https://idp.example.org#su"}:    false,
		{Kind: revocation.User, Value: "alice"}:                            true,
		{Kind: revocation.User, Value: "alic"}:                             false,
	} {
		if got := act.Covers(old.use()); got != want {
			t.Errorf("%s %s: %t", act.Kind, act.Value, got)
		}
		if _, got := revocation.NewIndex([]revocation.Act{act}).Covers(old.use()); got != want {
			t.Errorf("%s %s, by index: %t", act.Kind, act.Value, got)
		}
	}
	now := old
	now.IssuerURL = "https://idp.example.org"
	if act := (revocation.Act{Kind: revocation.Subject, Value: "https://other.example.org#sub"}); act.Covers(now.use()) {
		t.Error("a row with a URL is another issuer's person")
	}
	if text := fmt.Sprint(now.use().Grants[0].Serial); text != "7" {
		t.Errorf("serial is %s", text)
	}
}
