package identity_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/identity"
)

func compile(t *testing.T, rule identity.LoginRule) *identity.LoginPolicy {
	t.Helper()
	policy, err := rule.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

func TestALoginRuleAcceptsWhatItSays(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rule      identity.LoginRule
		good, bad []string
	}{
		"default": {identity.LoginRule{}, []string{"alice", "_a", "a.b"}, []string{"root", "bin", "Alice", "a b", "9lives"}},
		"pattern without anchors": {
			identity.LoginRule{Pattern: `hpc[0-9]+`},
			[]string{"hpc1", "hpc42"},
			[]string{"xhpc1", "hpc1x", "hpc", "hpc1\n", "hpc1\nroot", "alice"},
		},
		"alternatives without anchors": {identity.LoginRule{Pattern: `a|ab|b`}, []string{"a", "ab", "b"}, []string{"abc", "aa", "xb"}},
		"multi-line flag":              {identity.LoginRule{Pattern: `(?m)^[a-z]+$`}, []string{"alice"}, []string{"alice\nroot", "root\nalice"}},
		"dot matches all": {
			identity.LoginRule{Pattern: `(?s).*`},
			[]string{"alice", "Alice", "a@b.test", "9lives"},
			[]string{"", "a,b", "a b", "a\nb", "a\x00b", "-a", ".a", "a/b", "a:b", "ä", "root", "ROOT", "123", strings.Repeat("a", 65)},
		},
		"own reserved names": {identity.LoginRule{Reserved: []string{"guru"}}, []string{"alice", "bin", "slurm"}, []string{"guru", "root"}},
		"nothing reserved":   {identity.LoginRule{Reserved: []string{}}, []string{"alice", "bin"}, []string{"root"}},
		"reserved names in any case": {
			identity.LoginRule{Pattern: `[A-Za-z]+`}, []string{"Alice"}, []string{"Root", "BIN", "SlurM"},
		},
		"allow": {identity.LoginRule{Allow: []string{"alice", "bob"}}, []string{"alice", "bob"}, []string{"carol", "root", "alic"}},
		"deny":  {identity.LoginRule{Deny: []string{"mallory"}}, []string{"alice"}, []string{"mallory", "bin"}},
		"deny in any case": {
			identity.LoginRule{Pattern: `[A-Za-z]+`, Deny: []string{"Mallory"}}, []string{"Mall"}, []string{"mallory", "MALLORY"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := compile(t, test.rule)
			for _, login := range test.good {
				if err := policy.Check(login); err != nil {
					t.Errorf("%q: %v", login, err)
				}
			}
			for _, login := range test.bad {
				if err := policy.Check(login); !errors.Is(err, identity.ErrNoLogin) {
					t.Errorf("%q gives %v, want %v", login, err, identity.ErrNoLogin)
				}
			}
		})
	}
}

func TestMistakesInALoginRuleAreReported(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rule identity.LoginRule
		want []string
	}{
		"pattern does not compile":      {identity.LoginRule{Pattern: `[a-z`}, []string{`"[a-z"`}},
		"pattern closes our brackets":   {identity.LoginRule{Pattern: `a)|(?:.*`}, []string{"pattern"}},
		"a reserved name is allowed":    {identity.LoginRule{Allow: []string{"alice", "root", "bin"}}, []string{`"root"`, `"bin"`}},
		"a denied name is allowed":      {identity.LoginRule{Allow: []string{"bob"}, Deny: []string{"bob"}}, []string{`"bob"`}},
		"an allowed name does not fit":  {identity.LoginRule{Allow: []string{"Bob", "b,c"}}, []string{`"Bob"`, `"b,c"`}},
		"a denied name can never match": {identity.LoginRule{Deny: []string{"bob, carol", ""}}, []string{`"bob, carol"`, `""`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy, err := test.rule.Compile()
			if err == nil || policy != nil {
				t.Fatal("the rule compiles")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not mention %s: %v", want, err)
				}
			}
		})
	}
}

func TestReservedNamesAreAccountNames(t *testing.T) {
	t.Parallel()
	reserved := identity.DefaultReserved()
	name := regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	for i, each := range reserved {
		if !name.MatchString(each) {
			t.Errorf("%q is not an account name", each)
		}
		if slices.Contains(reserved[:i], each) {
			t.Errorf("%q is there twice", each)
		}
	}
	for _, must := range []string{
		"root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data", "backup",
		"list", "irc", "_apt", "nobody", "systemd-network", "messagebus", "sshd", "adm", "shutdown", "halt", "operator", "ftp", "dbus", "polkitd",
		"sssd", "chrony", "tss", "rpc", "rpcuser", "slurm", "munge", "postgres", "bind", "saslauth", "oprofile", "pesign", "dhcpd", "etcd",
		"rabbitmq", "sddm", "lxd", "amandabackup", "stapusr", "oracle", "hadoop", "kube",
	} {
		if !slices.Contains(reserved, must) {
			t.Errorf("%q is not reserved", must)
		}
	}
	reserved[0] = "changed"
	if identity.DefaultReserved()[0] != "root" {
		t.Error("the caller's copy is the package's own")
	}
}
