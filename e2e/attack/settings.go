package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	inTheClear = `[policy.openfga]
url = "http://fga.example.org:8080"
store = "01JQ3V0000000000000000STRE"
`
	objectsInTheClear = `[firecrest]
enabled = true
[firecrest.s3]
public_url = "http://s3.example.org:9000"
bucket = "transfers"
access_key_id = "sallyport"
secret_key_file = "s3.secret"
`
	remoteKeys = `[executor.remote]
url = "https://ca.example.org"
ca_keys = "trusted.pub"
`
)

// wrongSettings are configurations under which others could act as the service or as its
// clients. They are checked and not served; serve refuses what check-config refuses.
func wrongSettings() []attack {
	proxies := func(networks string) settings { return settings{server: "trusted_proxies = [" + networks + "]"} }
	remote := settings{executor: `credentials = "remote"`, more: remoteKeys}
	return []attack{
		{"settings as they should be, so that the next lines mean something", "good", configured(settings{}, 0o600, "")},
		{"everybody is a proxy that is believed", "refused", configured(proxies(`"0.0.0.0/0"`), 0o600, "server.trusted_proxies")},
		{"everybody is a proxy that is believed, in two halves", "refused", configured(proxies(`"0.0.0.0/1", "128.0.0.0/1"`), 0o600, "server.trusted_proxies")},
		{"everybody with an address of IPv6 is a proxy that is believed", "refused", configured(proxies(`"::/1", "8000::/1"`), 0o600, "server.trusted_proxies")},
		{"another host decides who may what, in the clear", "refused", configured(settings{more: inTheClear}, 0o600, "policy.openfga.url")},
		{"files and their addresses go to another host in the clear", "refused", configured(settings{more: objectsInTheClear}, 0o600, "firecrest.s3.public_url")},
		{"keys of another CA in a file that others read", "good", configured(remote, 0o644, "")},
		{"keys of another CA in a file that everybody writes", "refused", configured(remote, 0o666, "executor.remote.ca_keys")},
		{"keys of another CA in a file that a group writes", "refused", configured(remote, 0o664, "executor.remote.ca_keys")},
	}
}

// configured checks a configuration, where the file of another CA's keys has this mode. A
// refusal counts only if it names what is wrong, and nothing else is.
func configured(set settings, mode os.FileMode, key string) func(context.Context, *site) (string, error) {
	return func(ctx context.Context, s *site) (string, error) {
		s.started++
		v := &service{site: s, dir: filepath.Join(s.dir, fmt.Sprintf("settings%d", s.started))}
		if out, err := exec.CommandContext(ctx, s.binary, "init", v.dir).CombinedOutput(); err != nil {
			return "", fmt.Errorf("sallyport init: %w\n%s", err, out)
		}
		keys, err := os.ReadFile(filepath.Join(v.dir, "ca_key.pub"))
		if err != nil {
			return "", err
		}
		for name, text := range map[string][]byte{"sallyport.toml": s.configuration(set), "s3.secret": []byte("secret\n"), "trusted.pub": keys} {
			if err := os.WriteFile(filepath.Join(v.dir, name), text, 0o600); err != nil {
				return "", err
			}
		}
		if err := os.Chmod(filepath.Join(v.dir, "trusted.pub"), mode); err != nil {
			return "", err
		}
		out, code, err := v.command(ctx, "check-config")
		switch {
		case err != nil:
			return "", err
		case code == 0:
			return "good", nil
		case key == "" || !strings.Contains(out, key) || strings.Count(strings.TrimSpace(out), "\n") > 0:
			return "", fmt.Errorf("refused for another reason: %s", out)
		}
		return "refused", nil
	}
}
