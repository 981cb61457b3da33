package executor_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func TestAProbeThatIsAcceptedBringsOutputAndTimes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg           sshtest.Config
		command, want string
	}{
		"the command runs":          {sshtest.Config{}, "echo 42", "42"},
		"the output is bounded":     {sshtest.Config{}, "echo " + strings.Repeat("x", 1000), strings.Repeat("x", 256)},
		"the command fails":         {sshtest.Config{}, "exit 3", ""},
		"its end is never reported": {sshtest.Config{}, "vanish", ""},
		"no session is to be had":   {sshtest.Config{MaxSessions: -1}, "echo 42", ""},
	} {
		probe, node := newProbe(t, c.cfg)
		probe.Command = c.command
		began := time.Now()
		report, err := probe.Do(t.Context())
		if err != nil || string(report.Output) != c.want {
			t.Errorf("%s: %q, %v", name, report.Output, err)
		}
		if report.Started.Before(began) || report.Ended.Before(report.Started) || report.Ended.After(time.Now()) {
			t.Errorf("%s: from %s to %s", name, report.Started, report.Ended)
		}
		if logins := node.Logins(); len(logins) != 1 || logins[0].User != "probe" {
			t.Errorf("%s: logins %+v", name, logins)
		}
	}
}

func TestAProbeTellsARefusalFromWhatProvesNothing(t *testing.T) {
	t.Parallel()
	all := []error{executor.ErrLoginRefused, executor.ErrHostKey, executor.ErrUnavailable}
	for name, c := range map[string]struct {
		change func(*testing.T, *executor.Probe)
		want   error
	}{
		"another key":     {func(t *testing.T, p *executor.Probe) { p.Signer = newSigner(t) }, executor.ErrLoginRefused},
		"another account": {func(_ *testing.T, p *executor.Probe) { p.User = "root" }, executor.ErrLoginRefused},
		"another host key": {func(t *testing.T, p *executor.Probe) {
			writeFile(t, p.KnownHosts[0], line(newSigner(t).PublicKey(), "login1.test"))
		}, executor.ErrHostKey},
		"another host key, and it would refuse": {func(t *testing.T, p *executor.Probe) {
			p.Signer = newSigner(t)
			writeFile(t, p.KnownHosts[0], line(newSigner(t).PublicKey(), "login1.test"))
		}, executor.ErrHostKey},
		"no known hosts": {func(_ *testing.T, p *executor.Probe) { p.KnownHosts[0] += ".missing" }, executor.ErrHostKey},
		"no way": {func(_ *testing.T, p *executor.Probe) {
			p.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("no route to host") }
		}, executor.ErrUnavailable},
		"it hangs up": {func(_ *testing.T, p *executor.Probe) {
			p.Dial = func(context.Context, string) (net.Conn, error) {
				near, far := sshtest.Pipe(nil, nil)
				return near, far.Close()
			}
		}, executor.ErrUnavailable},
		"a jump host refuses": {func(t *testing.T, p *executor.Probe) {
			p.Jump, p.JumpSigner = node1, newSigner(t)
		}, executor.ErrUnavailable},
	} {
		probe, node := newProbe(t, sshtest.Config{})
		c.change(t, &probe)
		report, err := probe.Do(t.Context())
		for _, kind := range all {
			if errors.Is(err, kind) != (kind == c.want) { //nolint:errorlint // compares rows
				t.Errorf("%s: %v is %v: %t", name, err, kind, errors.Is(err, kind))
			}
		}
		if len(report.Output) != 0 || len(node.Logins()) != 0 {
			t.Errorf("%s: %+v, logins %+v", name, report, node.Logins())
		}
	}
}

func TestAProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			freeze bool
			cmd    string
			want   error
		}{
			"the node hangs":            {true, "true", executor.ErrUnavailable},
			"the command takes forever": {false, "stubborn 1h", nil}, // the login is proved
		} {
			probe, node := newProbe(t, sshtest.Config{})
			probe.Command, probe.CountTo = c.cmd, 11
			if c.freeze {
				node.Freeze()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			began := time.Now()
			report, err := probe.Do(ctx)
			cancel()
			if !errors.Is(err, c.want) || time.Since(began) != 10*time.Second {
				t.Errorf("%s: %v after %s", name, err, time.Since(began))
			}
			if report.Sessions != nil {
				t.Errorf("%s: it counted %d sessions to the end", name, *report.Sessions)
			}
			node.Thaw()
		}
	})
}
