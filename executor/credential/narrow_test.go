package credential_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
)

// A service elsewhere is asked for a login that runs nothing, and what comes without
// that, or with it for somebody who did not ask, is not used.
func TestAServiceElsewhereIsHeldToANarrowLogin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options map[string]string
		err     error
	}{
		"as asked":               {map[string]string{"force-command": "internal-sftp"}, nil},
		"as asked, and narrower": {map[string]string{"force-command": "internal-sftp", "source-address": "192.0.2.1/32"}, nil},
		"a service that ignores": {nil, executor.ErrWideCredential},
		"an address alone":       {map[string]string{"source-address": "192.0.2.1/32"}, executor.ErrWideCredential},
		"another command":        {map[string]string{"force-command": "internal-sftp -R"}, executor.ErrNoCredential},
		"a shell":                {map[string]string{"force-command": "/bin/sh"}, executor.ErrNoCredential},
		"an unknown option":      {map[string]string{"force-command": "internal-sftp", "x@y": ""}, executor.ErrNoCredential},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.change = func(cert *ssh.Certificate) { cert.CriticalOptions = c.options }
			for kind, p := range s.providers(s.config()) {
				got, err := p.Credential(t.Context(), alice(t).Narrowed(), node)
				if !errors.Is(err, c.err) || (got.Signer == nil) != (c.err != nil) {
					t.Errorf("%s: %+v, %v", kind, got.Certificate, err)
				}
			}
			for _, r := range s.seen() {
				if r.fields["force_command"]+r.fields["ForceCommand"] != "internal-sftp" {
					t.Errorf("%s was asked for %v", r.path, r.fields)
				}
			}
		})
	}
	s := newService(t)
	s.change = func(cert *ssh.Certificate) {
		cert.CriticalOptions = map[string]string{"force-command": "internal-sftp"}
	}
	for kind, p := range s.providers(s.config()) {
		if _, err := p.Credential(t.Context(), alice(t), node); !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "force-command") {
			t.Errorf("%s, for somebody who may run commands: %v", kind, err)
		}
	}
}
