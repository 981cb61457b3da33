package main

import (
	"strings"
	"testing"
	"time"
)

const remoteConfig = `
[ca]
enabled = false
[executor]
credentials = "remote"
[executor.remote]
url = "https://ca.example.org"
ca_keys = "trusted_ca.pub"
` + goodConfig

func TestMistakesAboutAServiceElsewhereHaveLineAndKey(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ old, new, want string }{
		"no URL":        {`url = "https://ca.example.org"`, "", `executor.remote.url: is missing`},
		"no URL at all": {`url = "https://ca.example.org"`, `url = "ca.example.org"`, `:7: executor.remote.url: "ca.example.org" must be a URL`},
		"clear text":    {"https://ca.", "http://ca.", `:7: executor.remote.url: must begin with https://`},
		"a query":       {"example.org\"", "example.org/?a=b\"", `:7: executor.remote.url: must have no query`},
		"any CA":        {`ca_keys = "trusted_ca.pub"`, "", `executor.remote.ca_fingerprints: is missing: give it, or ca_keys; else any CA would be believed`},
		"bad print":     {`ca_keys = "trusted_ca.pub"`, `ca_fingerprints = ["MD5:00"]`, `:8: executor.remote.ca_fingerprints: "MD5:00" must be a fingerprint`},
		"long":          {"ca_keys", "ttl = \"1h\"\nca_keys", `:8: executor.remote.ttl: "1h0m0s" is above max_ttl, "15m0s"`},
		"odd":           {"ca_keys", "ttl = \"90s\"\nca_keys", `:8: executor.remote.ttl: "1m30s" is not whole minutes`},
		"slow":          {"ca_keys", "timeout = \"5m\"\nca_keys", `:8: executor.remote.timeout: "5m0s" must be from 100ms to 1m`},
		"extension":     {"ca_keys", "extensions = [\"permit-root\"]\nca_keys", `:8: executor.remote.extensions: "permit-root" must be "permit-pty"`},
		"which":         {`"remote"`, `"vault"`, `:5: executor.credentials: "vault" must be "builtin", "static", "remote" or "deic"`},
		"unknown":       {"ca_keys", "token = \"x\"\nca_keys", `:8: executor.remote.token: unknown key; allowed here: url, `},
		"CA name":       {"enabled = false", "enabled = true\n[ca.compat]\ndeic = \"a/b\"", `:5: ca.compat.deic: "a/b" must be 1 to 64 of`},
		"CA profile":    {"enabled = false", "enabled = true\n[ca.compat]\nprofile = \"jump\"", `:5: ca.compat.profile: "jump" must be "executor" or "user"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(writeConfig(t, strings.Replace(remoteConfig, tc.old, tc.new, 1)), noEnv)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("got %q, want one line with %q", err, tc.want)
			}
		})
	}
}

func TestAServiceElsewhereHasSafeDefaults(t *testing.T) {
	t.Parallel()
	f, err := loadConfig(writeConfig(t, remoteConfig), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	r := f.Executor.Remote
	if r.AllowHTTP || r.TTL != time.Minute || r.MaxTTL != 15*time.Minute || r.Timeout != 5*time.Second || len(r.Extensions) != 1 {
		t.Errorf("defaults %+v", r)
	}
	if !strings.HasPrefix(r.CAKeys, "/") || !strings.HasSuffix(r.CAKeys, "/trusted_ca.pub") {
		t.Errorf("the path %q does not start at the folder of the file", r.CAKeys)
	}
	if f.CA.Compat.SSHKeys || f.CA.Compat.DeiC != "" || f.CA.Compat.Profile != "executor" {
		t.Errorf("other formats %+v", f.CA.Compat)
	}
	for _, loopback := range []string{"http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost/x"} {
		if _, err := loadConfig(writeConfig(t, strings.Replace(remoteConfig, "https://ca.example.org", loopback, 1)), noEnv); err != nil {
			t.Errorf("%s: %v", loopback, err)
		}
	}
}
