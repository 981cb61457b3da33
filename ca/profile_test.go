package ca

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBuiltInProfiles(t *testing.T) {
	t.Parallel()
	profiles, err := compileProfiles(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, extensions := range map[string][]string{ProfileExecutor: nil, ProfileUser: {"permit-pty"}} {
		p := profiles[name]
		if got := slices.Sorted(maps.Keys(p.extensions)); !slices.Equal(got, extensions) {
			t.Errorf("%s: extensions are %q, want %q", name, got, extensions)
		}
		if p.ttl != 5*time.Minute || p.max != 15*time.Minute || p.backdate != time.Minute || p.grace != 30*time.Second {
			t.Errorf("%s: times are %s, %s, %s, %s", name, p.ttl, p.max, p.backdate, p.grace)
		}
	}
}

func TestProfilesReplaceTheBuiltInOnesByName(t *testing.T) {
	t.Parallel()
	profiles, err := compileProfiles([]ProfileConfig{
		{Name: "user", MaxTTL: time.Hour, Extensions: []string{}},
		{Name: "jobs", MaxTTL: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := profiles["user"]; p.max != time.Hour || len(p.extensions) != 0 {
		t.Errorf("user: %s, %v", p.max, p.extensions)
	}
	if p := profiles["jobs"]; p.ttl != time.Minute {
		t.Errorf("jobs: the default lifetime %s is longer than the longest", p.ttl)
	}
	if profiles["executor"] == nil {
		t.Error("executor is gone")
	}
}

func TestContradictoryProfilesAreRefusedWithAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		LedgerRetention: -time.Hour,
		Profiles: []ProfileConfig{
			{Name: "Bad Name", DefaultTTL: time.Hour, MaxTTL: time.Minute, Backdate: -time.Second, ExpiryGrace: time.Hour},
			{Name: "executor", Extensions: []string{"permit-pty"}},
			{Name: "user", Extensions: []string{"permit-everything", "permit-pty", "permit-pty"}},
			{Name: "long", MaxTTL: 25 * time.Hour},
			{Name: "short", MaxTTL: time.Millisecond},
			{Name: "nets", SourceAddresses: []netip.Prefix{
				{}, netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::ffff:10.0.0.0/104"),
			}},
			{Name: "more", SourceAddresses: slices.Repeat([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 33)},
			{Name: "extra", ExtraPrincipals: []string{"root", "*", "a,b", "", "grp", "grp"}},
			{Name: "twice"},
			{Name: "twice"},
		},
	})
	if err == nil {
		t.Fatal("was taken")
	}
	for _, want := range []string{
		"store is missing", "audit recorder is missing", "ledger retention -1h0m0s is negative",
		`profile "Bad Name": name is not`, "default ttl 1h0m0s is not between 1s and 1m0s", "backdate -1s", "expiry grace 1h0m0s",
		"the extensions of the executor's own certificates are fixed",
		`extension "permit-everything" is not known`, `extension "permit-pty" stands twice`,
		"max ttl 25h0m0s", "max ttl 1ms",
		"a network is not valid", `"10.1.2.3/8" has host bits; did you mean "10.0.0.0/8"?`, `"0.0.0.0/0" restricts nothing`, "IPv4 network in IPv6 form",
		"33 source addresses are more than 32",
		`extra principal "root"`, `extra principal "*"`, `extra principal "a,b"`, `extra principal ""`, `extra principal "grp" stands twice`,
		`profile "twice": configured twice`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
}

func TestPrincipalNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"alice", "a", "_svc", "alice.b-c_d", "u123", "alice@site.org", "a+b", strings.Repeat("a", 64)} {
		if !isPrincipal(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{
		"", "*", "?", "a*", "!alice", "alice,root", "alice root", " alice", "alice ", "alice\n", "alice\x00", "\x00", "al\tice",
		"root", "Root", "ROOT", "-oProxyCommand", ".alice", "@group", "+group", "a/b", `a\b`, "a:b", "a%b", "a$b", "ålice", "аlice",
		strings.Repeat("a", 65), "alice\"", "alice'", "a=b", "a;b", "a|b",
	} {
		if isPrincipal(name) {
			t.Errorf("%q is taken", name)
		}
	}
}
