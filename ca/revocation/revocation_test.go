package revocation

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/identity/identitytest"
	"sallyport/store"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

var issuers = Issuers{
	{Alias: "centre", URL: "https://idp.example.org/realms/hpc", Former: []string{"old", "https://old.example.org"}},
	{Alias: "other", URL: "https://x.example.org"},
}

// trail is an audit log in memory.
type trail struct{ events []audit.Event }

func (l *trail) Record(_ context.Context, e audit.Event) error {
	l.events = append(l.events, e)
	return nil
}

func open(t testing.TB, records store.Store, who Issuers) (*Register, *trail) {
	t.Helper()
	log := new(trail)
	r, err := Open(t.Context(), Config{Store: records, Audit: log, Issuers: who})
	if err != nil {
		t.Fatal(err)
	}
	return r, log
}

func disk(t testing.TB) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestAPersonIsNamedByTheIssuersURL(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"centre:alice": "https://idp.example.org/realms/hpc#alice",
		"centre:a:b#c": "https://idp.example.org/realms/hpc#a:b#c",
		"old:alice":    "https://idp.example.org/realms/hpc#alice",
		"https://idp.example.org/realms/hpc#alice": "https://idp.example.org/realms/hpc#alice",
		"https://idp.example.org/realms/hpc:alice": "https://idp.example.org/realms/hpc#alice",
		"https://idp.example.org/realms/hpc:4711":  "https://idp.example.org/realms/hpc#4711",
		"https://old.example.org#alice":            "https://idp.example.org/realms/hpc#alice",
		"https://x.example.org#a#b":                "https://x.example.org#a#b",
		"https://x.example.org:8443#alice":         "", // another issuer
		"https://x.example.org:8443:alice":         "",
		"https://x.example.org:8443/realm:alice":   "",
		"https://x.example.org/#alice":             "",
		"https://x.example.org":                    "",
		"https://x.example.org#":                   "",
		"nobody:alice":                             "",
		"centre:":                                  "",
		":alice":                                   "",
		"centre":                                   "",
		"centre:al\nice":                           "",
		"centre:" + strings.Repeat("a", 2000):      "",
	} {
		act, err := New(Subject, value, issuers)
		if act.Value != want || (err != nil) != (want == "") || (err != nil && !errors.Is(err, ErrInvalid)) {
			t.Errorf("%.60q is %q, %v; want %q", value, act.Value, err, want)
		}
	}
}

// TestTheIndexSaysWhatTheActsSay, for uses that name no key, certificate or account twice.
func TestTheIndexSaysWhatTheActsSay(t *testing.T) {
	t.Parallel()
	names := rapid.SampledFrom([]string{"alice", "Alice", "bob", "shared", "ſ", "s", ""})
	urls := rapid.SampledFrom([]string{"https://a", "https://b", ""})
	subjects := rapid.SampledFrom([]string{"1", "2", "alice", "https://a", ""})
	words := rapid.SampledFrom([]string{"SHA256:x", "SHA256:y", "v1:x", "1", "2"})
	times := rapid.Custom(func(t *rapid.T) time.Time { return time.Unix(rapid.Int64Range(1000, 1010).Draw(t, "second"), 0).UTC() })
	acts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Act {
		a := Act{Kind: rapid.SampledFrom([]Kind{Serial, KeyID, User, Subject, Key, IssuedBefore}).Draw(t, "kind"), At: times.Draw(t, "at")}
		switch a.Kind {
		case User:
			a.Value = names.Filter(func(s string) bool { return s != "" }).Draw(t, "name")
		case Subject:
			a.Value = urls.Draw(t, "url") + "#" + subjects.Draw(t, "subject")
		case IssuedBefore:
			a.Value = times.Draw(t, "before").Format(time.RFC3339Nano)
		case Serial, KeyID, Key:
			a.Value = words.Draw(t, "value")
		}
		return a
	}), 0, 6)
	uses := rapid.Custom(func(t *rapid.T) Use {
		u := Use{
			Issuer: urls.Draw(t, "issuer"), Subject: subjects.Draw(t, "subject"),
			Accounts: rapid.SliceOfN(names, 0, 2).Draw(t, "accounts"), Keys: rapid.SliceOfN(words, 0, 2).Draw(t, "keys"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "grants") {
			u.Grants = append(u.Grants, Grant{
				Serial: rapid.Uint64Range(0, 3).Draw(t, "serial"), KeyID: words.Draw(t, "id"), Key: words.Draw(t, "key"),
				Principals: rapid.SliceOfN(names, 0, 2).Draw(t, "principals"), Issued: times.Draw(t, "issued"),
			})
		}
		return u
	})
	rapid.Check(t, func(t *rapid.T) {
		list, use := acts.Draw(t, "acts"), uses.Draw(t, "use")
		want := false
		for _, a := range list {
			want = want || a.Covers(use)
		}
		found, got := NewIndex(list).Covers(use)
		if got != want || (got && !found.Covers(use)) {
			t.Errorf("index says %t by %+v, the acts %t", got, found, want)
		}
	})
}

func TestAnActOutlivesTheProcessAndIsLifted(t *testing.T) {
	t.Parallel()
	db := disk(t)
	r, log := open(t, db, issuers)
	alice := identitytest.Identity(t, "alice", time.Hour)
	cuts := 0
	done, err := r.Revoke(t.Context(), Actor{UID: 7, Reason: "lost"}, Act{Kind: User, Value: "alice"}, func(a Act) {
		if cuts++; a.Value != "alice" || !errors.Is(r.Admit(alice), ErrRevoked) {
			t.Error("what is open is cut before the act stands")
		}
	})
	if err != nil || cuts != 2 || done.UID != 7 || done.At.IsZero() {
		t.Fatalf("done is %+v after %d cuts, %v", done, cuts, err)
	}
	again, _ := open(t, db, issuers)
	if err := again.Admit(alice); !errors.Is(err, ErrRevoked) {
		t.Errorf("after a restart: %v", err)
	}
	if err := again.Admit(identitytest.Identity(t, "bob", time.Hour)); err != nil {
		t.Errorf("bob: %v", err)
	}
	if err := again.Admit(identitytest.Identity(t, "bob", time.Hour), "alice"); !errors.Is(err, ErrRevoked) {
		t.Errorf("bob, who uses alice's account: %v", err)
	}
	if _, err := r.Lift(t.Context(), Actor{}, Act{Kind: User, Value: "alice"}); err != nil || r.Admit(alice) != nil {
		t.Errorf("lift: %v, then %v", err, r.Admit(alice))
	}
	if _, err := r.Lift(t.Context(), Actor{}, Act{Kind: User, Value: "alice"}); !errors.Is(err, ErrNotRevoked) {
		t.Errorf("second lift: %v", err)
	}
	if len(log.events) != 6 || log.events[0].Outcome != audit.Unknown || log.events[5].Outcome != audit.Failure {
		t.Errorf("the audit log has %+v", log.events)
	}
}

// TestActsOfOlderVersionsAreBoundOrTold: they name the issuer by its alias.
func TestActsOfOlderVersionsAreBoundOrTold(t *testing.T) {
	t.Parallel()
	db := disk(t)
	before, _ := open(t, db, nil)
	for _, value := range []string{"centre:alice", "old:bob", "gone:carol", "https://x.example.org:8443#dave", "https://x.example.org#eve"} {
		if err := before.Put(t.Context(), Act{Kind: Subject, Value: value, UID: 7, Reason: "why", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	r, log := open(t, db, issuers)
	err := r.Bind(t.Context())
	if err == nil || strings.Contains(err.Error(), "alice") || strings.Contains(err.Error(), "bob") || strings.Contains(err.Error(), "eve") {
		t.Fatalf("error is %v", err)
	}
	for _, want := range []string{
		`"gone", into former_names`, `revoke --lift --subject 'gone:carol'`, `"https://x.example.org:8443", into former_names`, `--lift --subject 'https://x.example.org:8443#dave'`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	for _, value := range []string{"gone:carol", "https://x.example.org:8443#dave"} {
		if _, err := r.Lift(t.Context(), Actor{}, Act{Kind: Subject, Value: value}); err != nil {
			t.Errorf("lift %q: %v", value, err)
		}
	}
	again, _ := open(t, db, issuers)
	if err := again.Bind(t.Context()); err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, a := range again.Index().Acts() {
		values = append(values, a.Value)
		if a.UID != 7 || a.Reason != "why" {
			t.Errorf("%+v has lost who and why", a)
		}
	}
	if got := strings.Join(values, " "); got != "https://idp.example.org/realms/hpc#alice https://idp.example.org/realms/hpc#bob https://x.example.org#eve" {
		t.Errorf("acts are %s", got)
	}
	if e := log.events[0]; e.Detail["act"] != "revoke.rename" || e.Detail["revoked_subject"] == "" || e.Outcome != audit.Unknown {
		t.Errorf("first record is %+v", e)
	}
}

// BenchmarkAdmit is the cost of admission with many revocations.
func BenchmarkAdmit(b *testing.B) {
	alice := identitytest.Identity(b, "alice", time.Hour)
	for _, n := range []int{1, 100_000} {
		acts := make([]Act, 0, n)
		for i := range n {
			acts = append(acts, Act{Kind: User, Value: "user" + strconv.Itoa(i)})
		}
		r := new(Register)
		r.index.Store(NewIndex(acts))
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Admit(alice, "svc"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
