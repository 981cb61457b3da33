package executor_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/executor"
	"sallyport/executor/sshtest"
)

// newProbe starts a node in memory, which ends with the test, and returns a probe
// that it accepts.
func newProbe(t *testing.T, cfg sshtest.Config) (executor.Probe, *sshtest.Server) {
	t.Helper()
	signer := newSigner(t)
	cfg.AuthorizedKey = func(user string, key ssh.PublicKey) bool {
		return user == "probe" && ssh.FingerprintSHA256(key) == ssh.FingerprintSHA256(signer.PublicKey())
	}
	if cfg.Exec == nil {
		cfg.Exec = shell
	}
	node := sshtest.New(cfg)
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(t.TempDir(), "known_hosts")
	writeFile(t, file, knownhosts.Line([]string{node1}, node.HostKey())+"\n")
	return executor.Probe{
		Address: node1, KnownHosts: []string{file}, User: "probe", Signer: signer, Command: "echo 42",
		Dial: func(context.Context, string) (net.Conn, error) { return node.Dial() },
	}, node
}

func TestAProbeCountsTheSessionsThatANodeGrants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ granted, countTo, want int }{{3, 11, 3}, {10, 11, 10}, {20, 11, 11}, {1, 11, 1}} {
		probe, node := newProbe(t, sshtest.Config{MaxSessions: c.granted})
		probe.CountTo = c.countTo
		report, err := probe.Do(t.Context())
		if err != nil || report.Sessions == nil || *report.Sessions != c.want {
			t.Errorf("%+v: %+v, %v", c, report, err)
		}
		if n := len(node.Logins()); n != 1 {
			t.Errorf("%+v: %d logins", c, n)
		}
	}
	probe, _ := newProbe(t, sshtest.Config{})
	if report, err := probe.Do(t.Context()); err != nil || report.Sessions != nil {
		t.Errorf("nobody asked for a count: %+v, %v", report, err)
	}
}
