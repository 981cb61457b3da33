package sshdconfig_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	sshdconfig "sallyport/sshd-config"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func TestRenderedText(t *testing.T) {
	t.Parallel()
	cases := map[string]sshdconfig.Config{
		"default": {Addresses: prefixes("192.0.2.10/32")},
		"openssh-7.4": {
			Addresses: prefixes("192.0.2.10/32"), Version: sshdconfig.Version{Major: 7, Minor: 4}, JumpTargets: []string{"node1:22"},
		},
		"openssh-10-everything-set": {
			Addresses:         prefixes("192.0.2.0/28", "2001:db8::10/128"),
			TrustedUserCAKeys: "/etc/ssh/ca.d/trusted", RevokedKeys: "/etc/ssh/ca.d/revoked",
			CAFingerprints:        []string{"SHA256:" + strings.Repeat("a", 43)},
			CASignatureAlgorithms: []string{"ssh-ed25519", "rsa-sha2-512"}, DenyGroups: []string{"admins", "hpc-staff"},
			MaxSessions: 20, MaxStartups: "50:30:200", JumpTargets: []string{"node1:22", "[2001:db8::7]:2222"},
			Version: sshdconfig.Version{Major: 10, Minor: 0},
		},
	}
	for name, cfg := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dropIn, err := sshdconfig.Render(cfg)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".conf")
			if *update {
				if err := os.WriteFile(golden, []byte(dropIn.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), dropIn.String()); diff != "" {
				t.Errorf("differs from %s (write it anew with -update):\n%s", golden, diff)
			}
			eachKeywordHasItsReason(t, dropIn.String())
		})
	}
}

func eachKeywordHasItsReason(t *testing.T, text string) {
	t.Helper()
	previous := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		isKeyword := line != "" && !strings.HasPrefix(line, "# ") && line != "#"
		if isKeyword && !strings.HasPrefix(previous, "# ") {
			t.Errorf("no comment before %q", line)
		}
		previous = line
	}
}

func TestKeywordsThatANodeDoesNotKnowAreComments(t *testing.T) {
	t.Parallel()
	cases := []struct{ version, keyword, of string }{ // of: the first version that has it
		{"7.4", "LogLevel", "8.0"},
		{"7.4", "CASignatureAlgorithms", "8.0"},
		{"7.7", "PermitListen", "7.8"},
		{"9.7p1", "PerSourcePenaltyExemptList", "9.8"},
	}
	active := func(version, keyword string) bool {
		v, err := sshdconfig.ParseVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		d, err := sshdconfig.Render(sshdconfig.Config{Addresses: prefixes("192.0.2.10/32"), JumpTargets: []string{"a:22"}, Version: v})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(strings.Split(d.String(), "\n"), func(line string) bool {
			return strings.HasPrefix(strings.TrimSpace(line), keyword+" ")
		})
	}
	for _, c := range cases {
		if active(c.version, c.keyword) {
			t.Errorf("%s is active for %s", c.keyword, c.version)
		}
		if !active(c.of, c.keyword) {
			t.Errorf("%s is not active for %s", c.keyword, c.of)
		}
	}
}

// What cannot stand in a Match block, by servconf.c.
func TestGlobalKeywordsStayOutOfTheMatchBlock(t *testing.T) {
	t.Parallel()
	d, err := sshdconfig.Render(sshdconfig.Config{Addresses: prefixes("192.0.2.10/32"), Version: sshdconfig.Version{Major: 10, Minor: 0}})
	if err != nil {
		t.Fatal(err)
	}
	for _, keyword := range []string{"MaxStartups ", "PerSourcePenaltyExemptList "} {
		if strings.Contains(d.Match, "\n    "+keyword) || !strings.Contains(d.Global, "\n"+keyword) {
			t.Errorf("%sis not in the global part alone", keyword)
		}
	}
	if strings.Contains(d.Global, "\nMatch ") {
		t.Error("the global part holds a Match block")
	}
}

func TestMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := sshdconfig.Render(sshdconfig.Config{
		Addresses:         append(prefixes("192.0.2.10/24", "0.0.0.0/0", "::ffff:192.0.2.1/128"), netip.Prefix{}),
		TrustedUserCAKeys: "relative", RevokedKeys: "/etc/a\nPermitRootLogin yes", CAFingerprints: []string{"MD5:aa"},
		CASignatureAlgorithms: []string{"ssh-rsa"}, DenyGroups: []string{"a b", "*"}, MaxSessions: -1, MaxStartups: "10",
		JumpTargets: []string{"*:22", "host:*", "host:0", "host:022", "a b:22", "fe80::1%eth0:22", "[fe80::1%eth0]:22", "host"},
		Version:     sshdconfig.Version{Major: 6, Minor: 9},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`did you mean "192.0.2.0/24"`, `"0.0.0.0/0" would trust`, `"::ffff:192.0.2.1/128"`, "empty prefix", `"relative"`, `"/etc/a\nPermitRootLogin yes"`,
		`"MD5:aa"`, `"ssh-rsa"`, `"a b"`, `"*"`, "-1 is not", `"10"`, `"*:22"`, `"host:*"`, `"host:0"`, `"host:022"`, `"a b:22"`, `"[fe80::1%eth0]:22"`, `"host"`, "6.9",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s:\n%v", want, err)
		}
	}
	for _, startups := range []string{"10:0:100", "10:101:100", "101:30:100", "0:30:100", " 10:30:100", "10:30:100 20"} {
		if _, err := sshdconfig.Render(sshdconfig.Config{Addresses: prefixes("192.0.2.10/32"), MaxStartups: startups}); err == nil {
			t.Errorf("max startups %q is taken", startups)
		}
	}
	if _, err := sshdconfig.Render(sshdconfig.Config{}); err == nil || !strings.Contains(err.Error(), "at least one") {
		t.Errorf("no addresses: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.10": "192.0.2.10/32", "2001:db8::10": "2001:db8::10/128", "192.0.2.0/24": "192.0.2.0/24", "2001:DB8::/32": "2001:db8::/32",
	} {
		if got, err := sshdconfig.ParseAddress(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "host", "192.0.2.10/24", "192.0.2.10/33", "0.0.0.0/0", "::/0", "fe80::1%eth0", "::ffff:192.0.2.1", "192.0.2.010", "*", "192.0.2.1,192.0.2.2",
		"!192.0.2.1", "192.0.2.1\nMatch all",
	} {
		if got, err := sshdconfig.ParseAddress(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"9.2": "9.2", "9.2p1": "9.2", "10.0p2": "10.0", "OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026": "9.2",
		"SSH-2.0-OpenSSH_8.0": "8.0", "SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.10": "8.9",
	} {
		if got, err := sshdconfig.ParseVersion(text); err != nil || got.String() != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "9", "9.", "v9.2", "SSH-2.0-dropbear_2022.83", "9.2.1", "9999.1", "-1.2"} {
		if got, err := sshdconfig.ParseVersion(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// A value must never become a second line or keyword: the text is loaded by root.
func FuzzRenderedKeywordsComeFromUsOnly(f *testing.F) {
	if seeds, err := filepath.Glob("testdata/fuzz/FuzzRenderedKeywordsComeFromUsOnly/*"); err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	plain, err := sshdconfig.Render(sshdconfig.Config{Addresses: prefixes("192.0.2.10/32"), JumpTargets: []string{"a:22"}})
	if err != nil {
		f.Fatal(err)
	}
	want := keywords(plain.String())
	f.Fuzz(func(t *testing.T, path, group, target, startups, algorithm, fingerprint string) {
		d, err := sshdconfig.Render(sshdconfig.Config{
			Addresses: prefixes("192.0.2.10/32"), TrustedUserCAKeys: path, RevokedKeys: path, DenyGroups: []string{group, group},
			JumpTargets: []string{target}, MaxStartups: startups, CASignatureAlgorithms: []string{algorithm}, CAFingerprints: []string{fingerprint},
		})
		if err != nil {
			return
		}
		if diff := cmp.Diff(want, keywords(d.String())); diff != "" {
			t.Errorf("other keywords:\n%s", diff)
		}
	})
}

// keywords are the first words of the lines that sshd reads; it ends lines at \n only, but we look for \r too.
func keywords(text string) []string {
	var found []string
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
			found = append(found, fields[0])
		}
	}
	return found
}
