package executor_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor"
	"sallyport/executor/sshtest"
	"sallyport/store/audit"
)

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func line(key ssh.PublicKey, patterns ...string) string {
	return strings.Join(patterns, ",") + " " + string(ssh.MarshalAuthorizedKey(key))
}

// hostCertificate has ca certify key for the hosts named.
func hostCertificate(t testing.TB, ca, key ssh.Signer, kind uint32, hosts ...string) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: kind, ValidPrincipals: hosts,
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestHostKeyDecision(t *testing.T) {
	t.Parallel()
	key, other, ca := newSigner(t), newSigner(t), newSigner(t)
	certified := func(host string) func(testing.TB) ssh.Signer {
		return func(t testing.TB) ssh.Signer { return hostCertificate(t, ca, key, ssh.HostCert, host) }
	}
	for name, test := range map[string]struct {
		known string
		shown func(testing.TB) ssh.Signer // nil: key
		ok    bool
	}{
		"known key":                     {line(key.PublicKey(), "login1.test"), nil, true},
		"known key, hashed name":        {line(key.PublicKey(), knownhosts.HashHostname("login1.test")), nil, true},
		"known key, pattern":            {line(key.PublicKey(), "*.test"), nil, true},
		"another one of two":            {line(other.PublicKey(), "login1.test") + line(key.PublicKey(), "login1.test"), nil, true},
		"wrong key":                     {line(other.PublicKey(), "login1.test"), nil, false},
		"key of another host":           {line(key.PublicKey(), "login2.test"), nil, false},
		"key of another port":           {line(key.PublicKey(), "[login1.test]:2222"), nil, false},
		"excluded by pattern":           {line(key.PublicKey(), "*.test", "!login1.test"), nil, false},
		"revoked key":                   {line(key.PublicKey(), "login1.test") + "@revoked " + line(key.PublicKey(), "*"), nil, false},
		"certificate":                   {"@cert-authority " + line(ca.PublicKey(), "*.test"), certified("login1.test"), true},
		"certificate, hashed name":      {"@cert-authority " + line(ca.PublicKey(), knownhosts.HashHostname("login1.test")), certified("login1.test"), true},
		"certificate of another host":   {"@cert-authority " + line(ca.PublicKey(), "*.test"), certified("login2.test"), false},
		"certificate of revoked CA":     {"@cert-authority " + line(ca.PublicKey(), "*") + "@revoked " + line(ca.PublicKey(), "*"), certified("login1.test"), false},
		"certificate with revoked key":  {"@cert-authority " + line(ca.PublicKey(), "*") + "@revoked " + line(key.PublicKey(), "*"), certified("login1.test"), false},
		"certificate of unknown CA":     {"@cert-authority " + line(other.PublicKey(), "*.test"), certified("login1.test"), false},
		"certificate, CA of other host": {"@cert-authority " + line(ca.PublicKey(), "login2.test") + line(other.PublicKey(), "login1.test"), certified("login1.test"), false},
		"certificate over a known key":  {line(key.PublicKey(), "login1.test"), certified("login1.test"), true},
		"foreign CA over a known key":   {"@cert-authority " + line(other.PublicKey(), "*") + line(key.PublicKey(), "login1.test"), certified("login1.test"), true},
		"plain key where a CA is known": {"@cert-authority " + line(ca.PublicKey(), "*"), nil, false},
		"the CA's key itself":           {"@cert-authority " + line(key.PublicKey(), "*"), nil, false},
		"user certificate": {"@cert-authority " + line(ca.PublicKey(), "*"), func(t testing.TB) ssh.Signer {
			return hostCertificate(t, ca, key, ssh.UserCert, "login1.test")
		}, false},
		"certificate for no host": {"@cert-authority " + line(ca.PublicKey(), "*"), func(t testing.TB) ssh.Signer {
			return hostCertificate(t, ca, key, ssh.HostCert)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, func(_ *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
					nodes[node1].HostKey = key
					if test.shown != nil {
						// x/crypto offers the plain key of a certificate only beside it.
						nodes[node1].MoreHostKeys = []ssh.Signer{test.shown(t)}
					}
					writeFile(t, cfg.Systems[0].KnownHosts[0], test.known)
				})
				_, err := s.run("true")
				if test.ok {
					if err != nil {
						t.Errorf("refused: %v", err)
					}
					return
				}
				if !errors.Is(err, executor.ErrHostKey) || !strings.Contains(err.Error(), node1) || !strings.Contains(err.Error(), ssh.FingerprintSHA256(key.PublicKey())) {
					t.Errorf("got %v", err)
				}
				events := s.audit.of(audit.HostRefused)
				if len(events) != 1 || events[0].Node != node1 || events[0].Login != "alice" || !strings.Contains(events[0].Detail["fingerprint"], ssh.FingerprintSHA256(key.PublicKey())) {
					t.Errorf("audit %+v", events)
				}
				if len(s.nodes[node1].Logins()) != 0 {
					t.Error("the executor logged in")
				}
			})
		})
	}
}

func TestHostKeyErrorNamesBothFingerprints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		expected, ca := newSigner(t).PublicKey(), newSigner(t).PublicKey()
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			writeFile(t, cfg.Systems[0].KnownHosts[0], line(expected, "login1.test")+"@cert-authority "+line(ca, "login1.test"))
		})
		_, err := s.run("true")
		for _, part := range []string{node1, ssh.FingerprintSHA256(expected), "CA " + ssh.FingerprintSHA256(ca), ssh.FingerprintSHA256(s.nodes[node1].HostKey())} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is missing in %v", part, err)
			}
		}
		event := s.audit.of(audit.HostRefused)[0]
		if want := ssh.FingerprintSHA256(expected) + ", CA " + ssh.FingerprintSHA256(ca); event.Detail["expected_fingerprints"] != want {
			t.Errorf("audit has %q, want %q", event.Detail["expected_fingerprints"], want)
		}
	})
}

func TestEditedKnownHostsCountsAtTheNextDial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var file string
		s := newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			file = cfg.Systems[0].KnownHosts[0]
			writeFile(t, file, line(newSigner(t).PublicKey(), "login1.test"))
		})
		if _, err := s.run("true"); !errors.Is(err, executor.ErrHostKey) {
			t.Errorf("with a wrong key: %v", err)
		}
		writeFile(t, file, line(s.nodes[node1].HostKey(), "login1.test"))
		if _, err := s.run("true"); err != nil {
			t.Errorf("with the right key: %v", err)
		}
		s.nodes[node1].Cut()
		synctest.Wait()
		for name, spoil := range map[string]func() error{
			"malformed": func() error { return os.WriteFile(file, []byte("login1.test ssh-ed25519 AAAA\n"), 0o600) },
			"missing":   func() error { return os.Remove(file) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.run("true"); !errors.Is(err, executor.ErrHostKey) {
				t.Errorf("with a %s file: %v", name, err)
			}
		}
	})
}

func TestHostKeyOfTheJumpHostIsCheckedToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nodeKey := newSigner(t)
		s := newSite(t, func(s *site, cfg *executor.Config, nodes map[string]*sshtest.Config) {
			behindJump(s, cfg, nodes)
			nodes[node1].HostKey = nodeKey
			writeFile(t, cfg.Systems[0].KnownHosts[0], line(nodeKey.PublicKey(), "login1.test")+line(newSigner(t).PublicKey(), "[jump.test]:2222"))
		})
		if _, err := s.run("true"); !errors.Is(err, executor.ErrHostKey) || !strings.Contains(err.Error(), jump) {
			t.Errorf("got %v", err)
		}
		if events := s.audit.of(audit.HostRefused); len(events) != 1 || events[0].Node != jump {
			t.Errorf("audit %+v", events)
		}
	})
}

func TestNodeWithoutAKnownKeyIsLoggedAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		newSite(t, func(_ *site, cfg *executor.Config, _ map[string]*sshtest.Config) {
			cfg.Logger = newLogger(&log)
			writeFile(t, cfg.Systems[0].KnownHosts[0], line(newSigner(t).PublicKey(), "elsewhere.test"))
		})
		if !strings.Contains(log.String(), node1) {
			t.Errorf("log is %q", log.String())
		}
	})
}
