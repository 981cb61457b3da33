package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestTrustReferenceHasEverySettingThatDecidesTrust(t *testing.T) {
	t.Parallel()
	f := oneOfEach()
	paths := map[any]bool{}
	for _, p := range f.paths() {
		paths[p.value] = true
	}
	rows := map[string]trustRule{}
	for _, r := range trustRules() {
		if r.decides == "" || r.check == nil && r.file == nil {
			t.Errorf("%s: the row checks nothing, or does not say what it decides", r.key)
		}
		rows[r.key] = r
	}
	seen := map[string]bool{}
	eachSetting(reflect.ValueOf(&f).Elem(), "", func(key string, v reflect.Value, field reflect.StructField) {
		key = generic(key)
		seen[key] = true
		r, ok := rows[key]
		isPath := paths[v.Addr().Interface()] || key == "systems[].known_hosts"
		switch field.Tag.Get("check") {
		case "url", "cidr", "listen":
			if !ok || r.check == nil {
				t.Errorf("%s is a %s and has no row in trustRules: what does it decide, and what of it is refused?", key, field.Tag.Get("check"))
			}
		default:
			if isPath && (!ok || r.file == nil) {
				t.Errorf("%s names a file and has no row in trustRules: what does it decide, and is it secret?", key)
			}
		}
	})
	for key := range rows {
		if !seen[key] {
			t.Errorf("%s: there is no such setting", key)
		}
	}
	golden(t, filepath.Join("..", "..", "docs", "trust.md"), markdownTrust())
}

// oneOfEach is a configuration with one of each list of tables, and every part switched on.
func oneOfEach() File {
	f := File{Issuers: make([]IssuerSection, 1), Systems: make([]SystemSection, 1), StaticKeys: make([]StaticKeySection, 1)}
	f.Systems[0].KnownHosts = make([]string, 1)
	f.Systems[0].FirecREST.FileSystems = make([]FileSystemSection, 1)
	f.Policy.Rules, f.Rates = make([]PolicyRuleSection, 1), make([]RateSection, 1)
	f.Audit.Syslog, f.Audit.OTLP = make([]AuditSyslogSection, 1), make([]AuditOTLPSection, 1)
	f.CA.Enabled, f.Executor.Enabled, f.Executor.Credentials = true, true, "remote"
	f.Policy.OpenFGA.URL, f.FirecREST.S3.PublicURL, f.FirecREST.Streamer.Listen = "https://x", "https://x", "127.0.0.1:1"
	return f
}

// found is what a configuration with more text is told.
func found(t *testing.T, top, more string) (mistakes, warnings string) {
	t.Helper()
	text := top + strings.Replace(goodConfig, "[[issuers]]\n", "[[issuers]]\nlogin_namespace = \"centre\"\n", 1) + more
	_, d, err := readConfig(writeConfig(t, text), noEnv)
	if err != nil {
		if bad, ok := errors.AsType[*configError](err); !ok || len(bad.mistakes) == 0 {
			t.Fatal(err)
		}
		return err.Error(), ""
	}
	var lines []string
	for _, w := range d.warnings {
		lines = append(lines, w.in("FILE"))
	}
	return "", strings.Join(lines, "\n")
}

func TestDangerousSettingsAreRefusedOrWarnedOf(t *testing.T) {
	t.Parallel()
	const (
		refused = "refused"
		warned  = "warned"
		silent  = "silent"
	)
	proxies := func(nets ...string) string {
		return fmt.Sprintf("[server]\ntrusted_proxies = [\"%s\"]\n", strings.Join(nets, `", "`))
	}
	profile := func(setting string) string { return "[ca.profiles.user]\n" + setting + "\n" }
	remote := func(setting string) string {
		return "[executor]\ncredentials = \"remote\"\n[executor.remote]\nca_keys = \"k\"\n" + setting + "\n"
	}
	s3 := func(setting string) string {
		return "[firecrest.s3]\nbucket = \"b\"\naccess_key_id = \"k\"\nsecret_key_file = \"f\"\n" + setting + "\n"
	}
	fga := func(setting string) string {
		return "[policy.openfga]\nstore = \"01JQ3V0000000000000000STRE\"\n" + setting + "\n"
	}
	issuer := func(setting string) string {
		return "[[issuers]]\nalias = \"b\"\naudiences = [\"a\"]\nlogin_namespace = \"centre\"\n" + setting + "\n"
	}
	for _, test := range []struct{ text, key, want string }{
		{proxies("0.0.0.0/0"), "server.trusted_proxies", refused},
		{proxies("::/0"), "server.trusted_proxies", refused},
		{proxies("0.0.0.0/1", "128.0.0.0/1"), "server.trusted_proxies", refused},
		{proxies("64.0.0.0/2"), "server.trusted_proxies", refused},
		{proxies("8.0.0.0/7"), "server.trusted_proxies", refused},
		{proxies("8.0.0.0/9", "9.0.0.0/9", "11.0.0.0/9"), "server.trusted_proxies", refused},
		{proxies("8.0.0.0/8", "8.1.0.0/16"), "server.trusted_proxies", warned},
		{proxies("2000::/3"), "server.trusted_proxies", refused},
		{proxies("2001::/15"), "server.trusted_proxies", refused},
		{proxies("::ffff:0:0/96"), "server.trusted_proxies", refused},
		{proxies("::ffff:10.0.0.0/104"), "server.trusted_proxies", refused},
		{proxies("::/80"), "server.trusted_proxies", refused},
		{proxies("64:ff9b::/96"), "server.trusted_proxies", refused},
		{proxies("2002::/16"), "server.trusted_proxies", refused},
		{proxies("64:ff9b:1::/48"), "server.trusted_proxies", refused},
		{proxies("2001::/32"), "server.trusted_proxies", refused},
		{proxies("10.1.2.3/8"), "server.trusted_proxies", warned},
		{proxies("10.0.0.0/8", "fc00::/7", "192.168.0.0/16", "::1/128", "127.0.0.0/8"), "server.trusted_proxies", silent},
		{proxies("192.0.2.0/24", "2001:db8::/32"), "server.trusted_proxies", silent},
		{"[server]\nplain_http = true\nlisten = \"0.0.0.0:80\"\n", "server.plain_http", warned},
		{"[server]\nlisten = \"0.0.0.0:80\"\n", "server.listen", refused},
		{"[server]\nplain_http = true\n", "server.plain_http", silent},
		{"[server]\nsandbox = \"off\"\n", "server.sandbox", warned},
		{"[metrics]\nlisten = \"0.0.0.0:9464\"\n", "metrics.listen", warned},
		{"[metrics]\nlisten = \":9464\"\n", "metrics.listen", warned},
		{"[metrics]\nlisten = \"192.0.2.10:9464\"\n", "metrics.listen", warned},
		{"[metrics]\nlisten = \"10.0.0.1:9464\"\n", "metrics.listen", silent},
		{"[metrics]\nlisten = \"[::1]:9464\"\n", "metrics.listen", silent},
		{"[audit]\ncommands = true\n", "audit.commands", warned},
		{profile(`source_addresses = ["0.0.0.0/0"]`), "ca.profiles.user.source_addresses", warned},
		{profile(`source_addresses = ["0.0.0.0/1", "128.0.0.0/1"]`), "ca.profiles.user.source_addresses", warned},
		{profile(`source_addresses = ["::ffff:0:0/96"]`), "ca.profiles.user.source_addresses", refused},
		{profile(`source_addresses = ["192.0.2.10/32"]`), "ca.profiles.user.source_addresses", silent},
		{profile("max_ttl = \"24h\""), "ca.profiles.user.max_ttl", warned},
		{profile("max_ttl = \"1h\""), "ca.profiles.user.max_ttl", silent},
		{profile("expiry_grace = \"5m\""), "ca.profiles.user.expiry_grace", warned},
		{profile("extensions = [\"permit-agent-forwarding\"]"), "ca.profiles.user.extensions", warned},
		{profile("extensions = [\"permit-pty\"]"), "ca.profiles.user.extensions", silent},
		{"[ca.compat]\nssh_keys = true\n", "ca.compat.ssh_keys", warned},
		{remote(`url = "http://ca.example.org"`), "executor.remote.url", refused},
		{remote("url = \"http://ca.example.org\"\nallow_http = true"), "executor.remote.url", warned},
		{remote(`url = "http://127.0.0.1:8080"`), "executor.remote.url", silent},
		{remote(`url = "http://127.0.0.1.example.org"`), "executor.remote.url", refused},
		{remote(`url = "https://bob:secret@ca.example.org"`), "executor.remote.url", refused},
		{remote(`url = "https://ca.example.org/#x"`), "executor.remote.url", refused},
		{remote(`url = "https://ca.example.org/?x=1"`), "executor.remote.url", refused},
		{remote("url = \"https://ca.example.org\"\nrevocation_list = \"http://ca.example.org/l\""), "executor.remote.revocation_list", refused},
		{remote("url = \"https://ca.example.org\"\nrevocation_list = \"http://ca.example.org/l\"\nallow_http = true"), "executor.remote.revocation_list", warned},
		{remote("url = \"https://ca.example.org\"\nmax_ttl = \"24h\""), "executor.remote.max_ttl", warned},
		{fga(`url = "http://fga.example.org"`), "policy.openfga.url", refused},
		{fga("url = \"http://fga.example.org\"\nallow_http = true"), "policy.openfga.url", warned},
		{fga(`url = "http://localhost:8080"`), "policy.openfga.url", silent},
		{fga("url = \"https://fga.example.org\"\nremember = \"5m\""), "policy.openfga.remember", warned},
		{s3(`public_url = "http://s3.example.org"`), "firecrest.s3.public_url", refused},
		{s3("public_url = \"https://s3.example.org\"\nprivate_url = \"http://10.0.0.9:9000\""), "firecrest.s3.private_url", warned},
		{s3("public_url = \"http://s3.example.org\"\nallow_http = true"), "firecrest.s3.public_url", warned},
		{s3(`public_url = "http://[::1]:9000"`), "firecrest.s3.public_url", silent},
		{issuer(`url = "http://idp.example.net"`), "issuers[1].url", refused},
		{issuer("url = \"http://idp.example.net\"\nallow_http = true"), "issuers[1].url", warned},
		{issuer("url = \"http://127.0.0.1:1\"\nallow_http = true"), "issuers[1].url", silent},
		{issuer("url = \"https://idp.example.net\"\njwks_url = \"http://idp.example.net/k\""), "issuers[1].jwks_url", refused},
		{issuer("url = \"https://idp.example.net\"\njwks_url = \"http://idp.example.net/k\"\nallow_http = true"), "issuers[1].jwks_url", warned},
		{issuer(`url = "https://a:b@idp.example.net"`), "issuers[1].url", refused},
		{issuer("url = \"https://idp.example.net\"\nleeway = \"5m\""), "issuers[1].leeway", warned},
	} {
		mistakes, warnings := found(t, "", test.text)
		got := silent
		if strings.Contains(mistakes, ": "+test.key+": ") {
			got = refused
		} else if mistakes != "" {
			t.Errorf("%s: another mistake: %s", test.text, mistakes)
		}
		if strings.Contains(warnings, ": "+test.key+": ") {
			got = warned
		}
		if got != test.want {
			t.Errorf("%s%s is %s, want %s: %s%s", test.text, test.key, got, test.want, mistakes, warnings)
		}
		for line := range strings.Lines(warnings + mistakes) {
			if !strings.Contains(line, "FILE:") && !strings.Contains(line, "sallyport.toml:") {
				t.Errorf("%s: no line in %q", test.text, line)
			}
		}
	}
}

// An exposure lets somebody else change what a path leads to; it returns the path to give.
type exposure struct {
	name string
	make func(t *testing.T, dir string) string
	says string
}

func exposures() []exposure {
	file := func(t *testing.T, mode os.FileMode, parts ...string) string {
		t.Helper()
		path := filepath.Join(parts...)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		mustWrite(t, path, []byte("x"), mode)
		return path
	}
	chmod := func(t *testing.T, mode os.FileMode, parts ...string) {
		t.Helper()
		check(t, os.Chmod(filepath.Join(parts...), mode))
	}
	list := []exposure{
		{"everyone may write the file", func(t *testing.T, dir string) string { return file(t, 0o602, dir, "f") }, "can be written by others"},
		{"a group may write the file", func(t *testing.T, dir string) string { return file(t, 0o620, dir, "f") }, "can be written by others"},
		{"everyone may write its folder", func(t *testing.T, dir string) string {
			path := file(t, 0o600, dir, "d", "f")
			chmod(t, 0o777, dir, "d")
			return path
		}, "can be written by others"},
		{"a group may write a folder far above", func(t *testing.T, dir string) string {
			path := file(t, 0o600, dir, "a", "b", "c", "f")
			chmod(t, 0o775, dir, "a")
			return path
		}, "can be written by others"},
		{"a link into a folder of everybody", func(t *testing.T, dir string) string {
			target := file(t, 0o600, dir, "w", "f")
			chmod(t, 0o777, dir, "w")
			check(t, os.Symlink(target, filepath.Join(dir, "link")))
			return filepath.Join(dir, "link")
		}, "can be written by others"},
		{"a relative link of a folder, up and into one", func(t *testing.T, dir string) string {
			file(t, 0o600, dir, "w", "s", "f")
			chmod(t, 0o777, dir, "w")
			check(t, errors.Join(os.Mkdir(filepath.Join(dir, "x"), 0o755), os.Symlink("../w/s", filepath.Join(dir, "x", "s"))))
			return filepath.Join(dir, "x", "s", "f")
		}, "can be written by others"},
		{"links in a ring", func(t *testing.T, dir string) string {
			check(t, errors.Join(os.Symlink("b", filepath.Join(dir, "a")), os.Symlink("a", filepath.Join(dir, "b"))))
			return filepath.Join(dir, "a")
		}, "too many links"},
	}
	if os.Geteuid() == 0 { // only root can give files away
		give := func(t *testing.T, path string) {
			t.Helper()
			check(t, os.Lchown(path, 4711, 4711))
		}
		list = append(list,
			exposure{"a file of somebody else", func(t *testing.T, dir string) string {
				path := file(t, 0o600, dir, "f")
				give(t, path)
				return path
			}, "belongs to uid 4711"},
			exposure{"a folder of somebody else", func(t *testing.T, dir string) string {
				path := file(t, 0o600, dir, "d", "f")
				give(t, filepath.Dir(path))
				return path
			}, "belongs to uid 4711"},
			exposure{"a link of somebody else in a sticky folder", func(t *testing.T, dir string) string {
				target := file(t, 0o600, dir, "f")
				check(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o755))
				chmod(t, 0o777|os.ModeSticky, dir, "tmp")
				link := filepath.Join(dir, "tmp", "link")
				check(t, os.Symlink(target, link))
				give(t, link)
				return link
			}, "belongs to uid 4711"})
	}
	return list
}

// Every row about a file, with every way to expose it.
func TestEveryFileThatDecidesTrustIsRefusedWhenOthersCanChangeIt(t *testing.T) {
	t.Parallel()
	config := writeConfig(t, goodConfig)
	rows := 0
	for _, r := range trustRules() {
		if r.file == nil {
			continue
		}
		rows++
		for _, e := range exposures() {
			if r.file.above && !strings.Contains(e.name, "folder") || r.file.above && strings.HasPrefix(e.name, "a link") {
				continue // what it is itself is for those who use it: see private.CheckDir
			}
			errs := checkWith(t, config, r.key, e.make(t, t.TempDir()))
			if !strings.Contains(errs, e.says) || !strings.Contains(errs, config+":7: "+r.key[:3]) {
				t.Errorf("%s, %s: got %q", r.key, e.name, errs)
			}
		}
		good := filepath.Join(t.TempDir(), "sticky")
		check(t, errors.Join(os.Mkdir(good, 0o755), os.Chmod(good, 0o777|os.ModeSticky)))
		mustWrite(t, filepath.Join(good, "f"), []byte("x"), 0o600)
		check(t, os.Symlink(filepath.Join(good, "f"), filepath.Join(good, "link")))
		for _, path := range []string{filepath.Join(good, "f"), filepath.Join(good, "link"), filepath.Join(good, "missing")} {
			if errs := checkWith(t, config, r.key, path); errs != "" {
				t.Errorf("%s, %s: %s", r.key, path, errs)
			}
		}
		mustWrite(t, filepath.Join(good, "f"), []byte("x"), 0o644)
		if errs := checkWith(t, config, r.key, filepath.Join(good, "f")); (errs != "") != r.file.secret {
			t.Errorf("%s, which everyone can read: %q", r.key, errs)
		}
	}
	if rows < 15 {
		t.Errorf("only %d rows are about files", rows)
	}
}

// checkWith checks the files of a configuration in which one setting, on line 7, names a path.
func checkWith(t *testing.T, config, key, path string) string {
	t.Helper()
	f := oneOfEach()
	if strings.HasPrefix(key, "static_keys") {
		f.Executor.Credentials = "static"
	}
	d := &decoder{path: config, lines: map[string]int{}, from: map[string]string{}}
	eachSetting(reflect.ValueOf(&f).Elem(), "", func(name string, v reflect.Value, _ reflect.StructField) {
		if generic(name) != key {
			return
		}
		d.lines[name] = 7
		if v.Kind() == reflect.Slice {
			v = v.Index(0)
		}
		v.SetString(path)
	})
	if err := d.checkFiles(&f); err != nil {
		return err.Error()
	}
	return ""
}

func TestAConfigurationThatOthersCanReplaceIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etc", "sallyport")
	check(t, os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, "sallyport.toml")
	mustWrite(t, path, []byte(goodConfig), 0o600)
	f, d, err := readConfig(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.checkFiles(&f); err != nil {
		t.Errorf("a good one: %v", err)
	}
	check(t, os.Chmod(filepath.Dir(dir), 0o777))
	if err := d.checkFiles(&f); err == nil || !strings.Contains(err.Error(), "this file: ") {
		t.Errorf("in a folder below one of everybody: %v", err)
	}
}

// What has no effect is told, and what could never match is refused, each with its line.
func TestSettingsWithoutEffectAreTold(t *testing.T) {
	t.Parallel()
	for more, want := range map[string][2]string{
		"[[rates]]\n[[rates]]\nlogin = \"alice\"\nuser_per_minute = 5":            {"", ": rates[1]: has no effect: rates[0]"},
		"[[rates]]\nclient = \"x\"\n[[rates]]\nclient = \"x\"\nlogin = \"alice\"": {"", ": rates[1]: has no effect: rates[0]"},
		"[[rates]]\nclient = \"x\"\n[[rates]]\nlogin = \"alice\"\n[[rates]]\n":    {"", ""},
		"[approval]\nadmin_groups = [\"admins\"]":                                 {"", ": approval.admin_groups: has no effect"},
		"[approval]\nacts = [\"lift\"]\nadmin_groups = [\"\"]":                    {`: approval.admin_groups: "" must be`, ""},
		"[approval]\nacts = [\"lift\"]\nadmin_groups = [\"admins\", \" admins\"]": {`: approval.admin_groups: " admins" must be`, ""},
		"[approval]\nacts = [\"lift\"]\nadmin_groups = [\"admins\", \"\\t\"]":     {`: approval.admin_groups: "\t" must be`, ""},
		"[approval]\nacts = [\"lift\"]\nadmin_groups = [\"HPC admins\"]":          {"", ""},
	} {
		mistakes, warnings := found(t, "", more)
		for _, told := range [][2]string{{mistakes, want[0]}, {warnings, want[1]}} {
			if !strings.Contains(told[0], told[1]) || told[1] == "" && strings.Contains(told[0], "no effect") {
				t.Errorf("%s\nis told %q, want %q", more, told[0], told[1])
			}
		}
	}
}
