package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files and generated documents anew")

const goodConfig = `
[[issuers]]
alias = "centre"
url = "https://idp.example.org"
audiences = ["sallyport"]

[[systems]]
name = "daint"
nodes = ["login1.example.org:22"]
known_hosts = ["known_hosts"]
`

func noEnv(string) string { return "" }

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sallyport.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAGoodConfigurationGetsDefaultsAndAbsolutePaths(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, goodConfig)
	f, err := loadConfig(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	got := []any{
		f.Server.Listen, f.Server.DrainTimeout, f.CA.Key, f.Audit.Dir, f.Systems[0].KnownHosts[0],
		f.Systems[0].MaxSessions, f.CA.Profiles.User.Extensions, f.CA.Profiles.Executor.Extensions, f.Executor.Enabled,
	}
	want := []any{
		"127.0.0.1:8080", 30 * time.Second, filepath.Join(dir, "ca_key"), filepath.Join(dir, "audit"), filepath.Join(dir, "known_hosts"),
		int64(10),
		[]string{"permit-pty"},
		[]string(nil), true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
}

func TestEveryMistakeIsReportedAtOnceWithLineAndKey(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `datadir = "x"
[server]
listen = "0.0.0.0:80"
max_in_flight = 0
drain_timeout = 5
trusted_proxies = ["10.0.0.1"]

[[issuers]]
alias = "Centre!"
url = "http://idp.example.org"

[[systems]]
name = "daint"
nodes = ["login1"]

[[systems]]
name = "daint"
nodes = ["login1:22"]
known_hosts = "file"
default_timeout = "2h"

[ca.profiles.user]
extensions = ["permit-root"]
default_ttl = "1h"

[[rates]]
issuer = "other"
user_per_minute = 1.5
client_burst = 3

[ca.rotation]
probe_login = "root"
`)
	_, err := loadConfig(path, noEnv)
	if _, ok := errors.AsType[*configError](err); !ok {
		t.Fatalf("got %v, want a *configError", err)
	}
	text := strings.ReplaceAll(err.Error(), path, "FILE")
	for _, want := range []string{
		`FILE:1: datadir: unknown key; allowed here: data_dir, `,
		`FILE:3: server.listen: "0.0.0.0:80" is not a loopback address: `,
		`FILE:4: server.max_in_flight: 0 must be from 1 to 100000`,
		`FILE:5: server.drain_timeout: must be a time span in quotes`,
		`FILE:6: server.trusted_proxies: "10.0.0.1" must be a network such as`,
		`FILE:9: issuers[0].alias: "Centre!" must be 1 to 16 of`,
		`FILE:10: issuers[0].url: must begin with https://`,
		`FILE: issuers[0].audiences: is missing`,
		`FILE:14: systems[0].nodes: "login1" must be host:port`,
		`FILE: systems[0].known_hosts: is missing`,
		`FILE:17: systems[1].name: "daint" stands twice`,
		`FILE:19: systems[1].known_hosts: must be a list of strings`,
		`FILE:20: systems[1].default_timeout: "2h0m0s" is above max_timeout`,
		`FILE:27: rates[0].issuer: "other" is the alias of no [[issuers]] table`,
		`FILE:28: rates[0].user_per_minute: must be a whole number`,
		`FILE:29: rates[0].client_burst: needs client_per_minute`,
		`FILE:23: ca.profiles.user.extensions: "permit-root" must be "permit-pty", `,
		`FILE:24: ca.profiles.user.default_ttl: "1h0m0s" is above max_ttl`,
		`FILE:32: ca.rotation.probe_login: "root" is refused by every node`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s\nin:\n%s", want, text)
		}
	}
}

func TestOneMistakeIsOneLine(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ old, new, want string }{
		"syntax":          {`alias = "centre"`, `alias = `, `:3: `},
		"half of TLS":     {"[[issuers]]", "[server]\ntls_key = \"k\"\n[[issuers]]", `server.tls_certificate: must be set together with`},
		"twice the keys":  {`audiences`, "jwks_url = \"https://a.b\"\njwks_file = \"f\"\naudiences", `:6: issuers[0].jwks_file: excludes jwks_url`},
		"nothing to do":   {"[[issuers]]", "[ca]\nenabled = false\n[executor]\nenabled = false\n[[issuers]]", `executor.enabled: must be true if ca.enabled is false`},
		"no CA":           {"[[issuers]]", "[ca]\nenabled = false\n[[issuers]]", `executor.credentials: "builtin" needs ca.enabled = true`},
		"no static keys":  {"[[issuers]]", "[executor]\ncredentials = \"static\"\n[[issuers]]", `:3: executor.credentials: "static" needs at least one`},
		"a list of names": {`name = "daint"`, `name = ["daint"]`, `:8: systems[0].name: must be a string in quotes`},
		"not a table":     {"[[issuers]]", "log = 3\n[[issuers]]", `:2: log: must be a table: [log]`},
		"not tables":      {"[[systems]]", "[systems]", `:7: systems: must be a list of tables: [[systems]]`},
		"nothing to run":  {"[[issuers]]", "[executor]\nenabled = false\n[firecrest]\nenabled = true\n[[issuers]]", `:5: firecrest.enabled: needs executor.enabled = true`},
		"name of a call":  {"[[systems]]\nname = \"daint\"", "[firecrest]\nenabled = true\n[[systems]]\nname = \"liveness\"", `is the name of a call`},
		"file systems":    {`known_hosts = ["known_hosts"]`, "known_hosts = [\"known_hosts\"]\n[[systems.firecrest.file_systems]]\npath = \"/home/\"", `:12: systems[0].firecrest.file_systems[0].path: "/home/" must be an absolute path`},
		"regexp":          {`name = "daint"`, "name = \"daint\"\nlogin_pattern = \"(\"", `:9: systems[0].login_pattern: "(" must be a regular expression`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := writeConfig(t, strings.Replace(goodConfig, tc.old, tc.new, 1))
			_, err := loadConfig(path, noEnv)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("got %q, want one line with %q", err, tc.want)
			}
		})
	}
}

func TestTheEnvironmentOverrulesTheFile(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"SALLYPORT_SERVER_LISTEN":                        "127.0.0.1:0",
		"SALLYPORT_SERVER_TRUSTED_PROXIES":               "10.0.0.0/8,::1/128",
		"SALLYPORT_SERVER_DRAIN_TIMEOUT":                 "5s",
		"SALLYPORT_CA_PROFILES_EXECUTOR_DEFAULT_TTL":     "2m",
		"SALLYPORT_SERVER_MAX_IN_FLIGHT":                 "7",
		"SALLYPORT_CA_PROFILES_EXECUTOR_EXTRA_UNRELATED": "x",
	}
	f, err := loadConfig(writeConfig(t, goodConfig), func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	got := []any{f.Server.Listen, f.Server.TrustedProxies, f.Server.DrainTimeout, f.CA.Profiles.Executor.DefaultTTL, f.Server.MaxInFlight}
	want := []any{"127.0.0.1:0", []string{"10.0.0.0/8", "::1/128"}, 5 * time.Second, 2 * time.Minute, int64(7)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = loadConfig(writeConfig(t, goodConfig), func(k string) string {
		return map[string]string{"SALLYPORT_SERVER_MAX_IN_FLIGHT": "many"}[k]
	})
	if err == nil || !strings.Contains(err.Error(), `environment variable SALLYPORT_SERVER_MAX_IN_FLIGHT: "many" is not a whole number`) {
		t.Errorf("got %v", err)
	}
	// One line for each mistake, which does not blame the file.
	_, err = loadConfig(writeConfig(t, goodConfig), func(k string) string {
		return map[string]string{"SALLYPORT_SERVER_LISTEN": "x", "SALLYPORT_CA_PROFILES_USER_MAX_TTL": "5"}[k]
	})
	if err == nil || strings.Count(err.Error(), "\n") != 1 || strings.Count(err.Error(), ": environment variable SALLYPORT_") != 2 {
		t.Errorf("got %v", err)
	}
}

func TestReferenceIsDocumentedAndUpToDate(t *testing.T) {
	t.Parallel()
	sections, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	settings := 0
	for _, s := range sections {
		if s.path != "" && s.doc == "" {
			t.Errorf("section %q has no comment", s.path)
		}
		for _, k := range s.settings {
			settings++
			if k.doc == "" {
				t.Errorf("setting %q has no comment", k.path)
			}
		}
	}
	if settings < 50 {
		t.Errorf("only %d settings found", settings)
	}
	golden(t, filepath.Join("..", "..", "docs", "configuration.md"), markdownReference(sections))
}

// golden compares text with a file, or writes the file under -update.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s is out of date; run with -update (-file +now):\n%s", path, diff)
	}
}

func TestTheWrittenFileHoldsEveryOptionAndLoads(t *testing.T) {
	t.Parallel()
	text, err := initialConfig("")
	if err != nil {
		t.Fatal(err)
	}
	// As written it lacks only what nobody can guess.
	_, err = loadConfig(writeConfig(t, text), noEnv)
	if err == nil || !strings.HasSuffix(err.Error(), "issuers: at least one [[issuers]] table is needed, with alias, url and audiences") {
		t.Errorf("the file as written: got %v", err)
	}
	// With every option taken out of its comment, no key is unknown.
	option := regexp.MustCompile(`(?m)^# (\[|[a-z_]+ = )`)
	all := option.ReplaceAllString(text, "$1")
	_, err = loadConfig(writeConfig(t, all), noEnv)
	if err == nil {
		t.Fatal("examples exclude each other, but nothing was said")
	}
	for line := range strings.Lines(err.Error()) {
		if strings.Contains(line, "unknown key") || strings.Contains(line, "must be a ") {
			t.Errorf("%s", line)
		}
	}
	sections, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		for _, k := range s.settings {
			if !strings.Contains(all, "\n"+k.key+" = ") {
				t.Errorf("option %q is not in the file", k.path)
			}
		}
	}
}

func FuzzConfigurationNeverPanics(f *testing.F) {
	f.Add(goodConfig)
	f.Add("[a]\nb.c = 1\n[[a.d]]\n")
	f.Add("x = \"\"\"\n[server]\n\"\"\"\nsystems = [[]]\n")
	f.Add("[[systems]]\nname = 1\n[[systems]]\n[systems.x]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfig(path, noEnv)
		if all, ok := errors.AsType[*configError](err); ok && len(all.mistakes) == 0 {
			t.Error("an error without a mistake")
		}
	})
}

// TestSeveralIssuersShareLoginsOnlyIfTheySaySo: on a node a login of one is the same
// account as that login of the other.
func TestSeveralIssuersShareLoginsOnlyIfTheySaySo(t *testing.T) {
	t.Parallel()
	issuer := func(alias, url, more string) string {
		return "[[issuers]]\nalias = \"" + alias + "\"\nurl = \"" + url + "\"\naudiences = [\"a\"]\n" + more + "\n"
	}
	one, two := "https://one.example.org/realms/hpc", "https://two.example.org"
	const shared = "login_namespace = \"centre\""
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"one":            {issuer("one", one, ""), nil},
		"one that says":  {issuer("one", one, shared), nil},
		"both say":       {issuer("one", one, shared) + issuer("two", two, shared), nil},
		"three say":      {issuer("one", one, shared) + issuer("two", two, shared) + issuer("three", "https://three.example.org", shared), nil},
		"neither":        {issuer("one", one, "") + issuer("two", two, ""), []string{`:1: issuers[0].login_namespace: is missing`, `:6: issuers[1].login_namespace: is missing: there are 2 issuers, and on a node a login of issuer "two" is the same account`}},
		"one of two":     {issuer("one", one, shared) + issuer("two", two, ""), []string{`:6: issuers[1].login_namespace: is missing`, `set the same login_namespace in each`}},
		"patterns":       {issuer("one", one, `login_pattern = "a.*"`) + issuer("two", two, `login_pattern = "b.*"`), []string{`issuers[0].login_namespace: is missing`, `issuers[1].login_namespace: is missing`}},
		"different":      {issuer("one", one, shared) + issuer("two", two, `login_namespace = "other"`), []string{`:10: issuers[1].login_namespace: "other" is not "centre", that of "one"`}},
		"third":          {issuer("one", one, shared) + issuer("two", two, shared) + issuer("three", "https://three.example.org", ""), []string{`:11: issuers[2].login_namespace: is missing`}},
		"empty":          {issuer("one", one, `login_namespace = ""`) + issuer("two", two, `login_namespace = ""`), []string{`:5: issuers[0].login_namespace: `, `:10: issuers[1].login_namespace: `}},
		"slash":          {issuer("one", one, shared) + issuer("two", one+"/", shared), []string{`:8: issuers[1].url: "https://one.example.org/realms/hpc/" stands twice`}},
		"capitals":       {issuer("one", one, shared) + issuer("two", "https://ONE.example.org/realms/hpc", shared), []string{`:8: issuers[1].url: `}},
		"port":           {issuer("one", one, shared) + issuer("two", "https://one.example.org:443/realms/hpc", shared), []string{`:8: issuers[1].url: `}},
		"same alias":     {issuer("one", one, shared) + issuer("one", two, shared), []string{`:7: issuers[1].alias: "one" stands twice`}},
		"former is new":  {issuer("one", one, shared) + issuer("two", two, shared+"\nformer_names = [\"one\"]"), []string{`:11: issuers[1].former_names: "one" is a name of issuer "one"`}},
		"former twice":   {issuer("one", one, shared+"\nformer_names = [\"old\"]") + issuer("two", two, shared+"\nformer_names = [\"old\"]"), []string{`:12: issuers[1].former_names: "old" is a name of issuer "one"`}},
		"former of both": {issuer("one", one, `former_names = ["old", "old"]`), []string{`:5: issuers[0].former_names: "old" is empty, or stands twice`}},
	} {
		path := writeConfig(t, c.text)
		_, err := loadConfig(path, noEnv)
		if (err != nil) != (c.want != nil) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range c.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error lacks %q: %v", name, want, err)
			}
		}
	}
}
