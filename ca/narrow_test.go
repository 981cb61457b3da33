package ca

import (
	"errors"
	"testing"
	"time"

	"sallyport/identity/identitytest"
)

// A certificate for who may run no commands says so itself, whatever the profile gives,
// and no request can change that.
func TestACertificateOfANarrowCallerRunsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *Config) {
		cfg.Profiles = []ProfileConfig{{Name: "user", Extensions: []string{"permit-pty", "permit-user-rc", "permit-port-forwarding"}}}
	})
	narrow := identitytest.Identity(t, "alice", time.Hour).Narrowed()
	for profile, extensions := range map[string]int{ProfileExecutor: 0, ProfileUser: 0, ProfileJump: 1} {
		for _, command := range []string{"", "internal-sftp"} {
			cert, err := w.Issue(t.Context(), Request{Caller: narrow, Profile: profile, PublicKey: newTestKey(t, "ed25519").PublicKey(), ForceCommand: command})
			if err != nil {
				t.Fatal(err)
			}
			if cert.CriticalOptions["force-command"] != "internal-sftp" || len(cert.Extensions) != extensions {
				t.Errorf("%s: options %v, extensions %v", profile, cert.CriticalOptions, cert.Extensions)
			}
		}
	}
	for _, command := range []string{"/bin/sh", "internal-sftp -d /", "internal-sftp;id", " internal-sftp"} {
		_, err := w.Issue(t.Context(), Request{Caller: narrow, Profile: ProfileUser, PublicKey: newTestKey(t, "ed25519").PublicKey(), ForceCommand: command})
		if refused := (*RequestError)(nil); !errors.As(err, &refused) || refused.Code != CodeForceCommand {
			t.Errorf("%q: %v", command, err)
		}
	}
}

// A credential with all rights is never found for a narrow request of the same person,
// nor the other way round, also after a restart.
func TestNarrowAndWideCredentialsAreCachedApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wide := identitytest.Identity(t, "alice", time.Hour)
	narrow := wide.Narrowed()
	before := map[bool]uint64{}
	for range 2 {
		cache := w.cache(t)
		for _, caller := range []struct {
			narrow bool
			option string
		}{{false, ""}, {true, "internal-sftp"}} {
			id := wide
			if caller.narrow {
				id = narrow
			}
			cert := credential(t, cache, id, "daint")
			if cert.CriticalOptions["force-command"] != caller.option {
				t.Errorf("narrow %v: %v", caller.narrow, cert.CriticalOptions)
			}
			if before[caller.narrow] == 0 {
				before[caller.narrow] = cert.Serial
			}
			if cert.Serial != before[caller.narrow] {
				t.Errorf("narrow %v: not found again", caller.narrow)
			}
		}
	}
	if before[true] == before[false] {
		t.Error("one certificate serves both")
	}
}
