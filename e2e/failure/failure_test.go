package failure

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/faultproxy"
	"sallyport/internal/loginnode"
)

// both runs a test for sessions of both kinds.
func both(t *testing.T, o option, test func(t *testing.T, s *site, system string)) {
	t.Helper()
	t.Parallel()
	for _, system := range []string{"own", "warm"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			s := start(t, o)
			if a := s.exec(0, system, "echo well"); a.result.Stdout != "well\n" {
				t.Fatalf("before the failure: %+v", a)
			}
			test(t, s, system)
		})
	}
}

// recovers waits until commands run again, and returns all answers until then.
func (s *site) recovers(system string) []answer {
	s.t.Helper()
	var answers []answer
	s.eventually("commands run again", func() bool {
		a := s.exec(0, system, "echo again")
		answers = append(answers, a)
		return a.result.Stdout == "again\n"
	})
	return answers
}

func (a answer) want(t *testing.T, status int, code string) {
	t.Helper()
	if a.status != status || a.code != code {
		t.Errorf("got %+v, want %d %q", a, status, code)
	}
}

func TestNodeIsRebooted(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 60")
		s.must(s.node.Restart(t.Context()))
		broken := <-running
		broken.want(t, http.StatusBadGateway, "outcome_unknown")
		s.judge(append(s.recovers(system), broken))
		s.clean()
	})
}

// TestServerProcessIsRestarted: sessions that stand go on, as with systemctl restart.
func TestServerProcessIsRestarted(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 2; echo done")
		s.must(s.node.Reload(t.Context(), ""))
		a := <-running
		if a.result.Stdout != "done\n" {
			t.Errorf("got %+v", a)
		}
		s.judge(append(s.recovers(system), a))
		s.clean()
	})
}

func TestNodeFreezes(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 60")
		s.must(s.node.Freeze()) // the connections that stand
		waiting := s.exec(0, system, "echo other")
		broken := <-running
		broken.want(t, http.StatusBadGateway, "outcome_unknown")
		if broken.took > 15*time.Second {
			t.Errorf("the caller heard after %v", broken.took)
		}
		// It found the connection frozen: asked on it, it cannot know; else it took another.
		if waiting.code != "outcome_unknown" && waiting.result.Stdout != "other\n" {
			t.Errorf("got %+v", waiting)
		}
		s.must(s.node.Thaw())
		s.judge(append(s.recovers(system), broken, waiting))
	})
}

func TestPacketsAreDropped(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 60")
		s.network.Set(faultproxy.Fault{Swallow: true})
		broken := <-running
		broken.want(t, http.StatusBadGateway, "outcome_unknown")
		first := s.exec(1, system, "echo first")
		first.want(t, http.StatusServiceUnavailable, "node_unavailable")
		if first.took > 5*time.Second {
			t.Errorf("the first caller heard after %v", first.took)
		}
		next := s.exec(2, system, "echo next")
		next.want(t, http.StatusServiceUnavailable, "node_unavailable")
		if next.took > time.Second || next.retry == "" {
			t.Errorf("the next one heard after %v, Retry-After %q", next.took, next.retry)
		}
		s.network.Set(faultproxy.Fault{})
		s.network.Cut() // else the dead connections come to life and end what runs
		s.judge(append(s.recovers(system), broken, first, next))
	})
}

func TestConnectionIsReset(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 3")
		s.network.Cut()
		broken := <-running
		broken.want(t, http.StatusBadGateway, "outcome_unknown")
		s.judge(append(s.recovers(system), broken))
		s.clean()
	})
}

// TestOtherEndVanishes: no packet says that the node is gone.
func TestOtherEndVanishes(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 3")
		s.network.Abandon()
		broken := <-running
		broken.want(t, http.StatusBadGateway, "outcome_unknown")
		if broken.took > 10*time.Second {
			t.Errorf("the caller heard after %v", broken.took)
		}
		s.network.Set(faultproxy.Fault{})
		s.judge(append(s.recovers(system), broken))
		s.clean()
	})
}

// TestNodeIsSlow: latency and a narrow line are no failure, and hold up nobody else.
func TestNodeIsSlow(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		s.network.Set(faultproxy.Fault{Latency: 100 * time.Millisecond})
		a := s.exec(0, system, "head -c 100000 /dev/zero | tr '\\0' x")
		if len(a.result.Stdout) != 100000 {
			t.Errorf("%d bytes came, status %d %q, exit %d, %v", len(a.result.Stdout), a.status, a.code, a.result.ExitCode, a.took)
		}
		s.network.Set(faultproxy.Fault{BytesPerSecond: 300_000})
		slow := s.begin(0, system, "head -c 1000000 /dev/zero | tr '\\0' x")
		if b := s.exec(1, system, "echo quick"); b.took > 3*time.Second || b.result.Stdout != "quick\n" {
			t.Errorf("another caller: %+v", b)
		}
		if b := <-slow; len(b.result.Stdout) != 1_000_000 {
			t.Errorf("%d bytes came", len(b.result.Stdout))
		}
		s.clean()
	})
}

func TestSessionLimitIsLowered(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		s.must(s.node.Reload(t.Context(), "MaxSessions 2"))
		s.network.Cut() // connections that stand have the limit of before
		time.Sleep(200 * time.Millisecond)
		var wg sync.WaitGroup
		answers := make([]answer, 60)
		for i := range answers {
			wg.Go(func() { answers[i] = s.exec(0, system, fmt.Sprintf("sleep 0.1; echo %d", i)) })
		}
		wg.Wait()
		for i, a := range answers {
			if a.result.Stdout != fmt.Sprintf("%d\n", i) {
				t.Errorf("command %d: %+v", i, a)
			}
		}
		s.judge(answers)
		s.clean()
	})
}

// TestCertificateEndsUnderACommand: the command goes on, and later ones need nobody's
// patience.
func TestCertificateEndsUnderACommand(t *testing.T) {
	t.Parallel()
	s := start(t, option{})
	long := [2]<-chan answer{s.begin(0, "own", "sleep 33; echo done"), s.begin(1, "warm", "sleep 33; echo done")}
	var answers []answer
	for range 66 {
		answers = append(answers, s.exec(0, "own", "true"), s.exec(1, "warm", "true"))
		time.Sleep(500 * time.Millisecond)
	}
	for _, a := range answers {
		if !a.ran() || a.took > 2*time.Second {
			t.Errorf("meanwhile: %+v", a)
		}
	}
	for _, result := range long {
		a := <-result
		if a.result.Stdout != "done\n" {
			t.Errorf("got %+v", a)
		}
		answers = append(answers, a)
	}
	s.judge(answers)
	s.clean()
}

func TestIdentityProviderIsDown(t *testing.T) {
	t.Parallel()
	s := start(t, option{})
	s.exec(0, "own", "true")
	s.must(s.issuer.Close())
	for user := range users { // its keys are known: tokens that were not seen yet are good too
		if a := s.exec(user, "own", "echo on"); a.result.Stdout != "on\n" {
			t.Errorf("user %d: %+v", user, a)
		}
	}
}

// TestDiskIsFull: what cannot be recorded is not done.
func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Geteuid() != 0 {
			t.Skip("a small file system needs root; CI has it")
		}
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", "-l", dir).Run(); err != nil {
			t.Error(err)
		}
	})
	s := start(t, option{audit: dir})
	for _, system := range []string{"own", "warm"} {
		if a := s.exec(0, system, "echo well"); !a.ran() {
			t.Fatalf("before: %+v", a)
		}
		running := s.begin(0, system, "sleep 1; echo done")
		ballast := filepath.Join(dir, "ballast")
		err := os.WriteFile(ballast, make([]byte, 9<<20), 0o600)
		if err == nil {
			t.Fatal("the disk is not full")
		}
		var answers []answer
		s.eventually("commands are refused", func() bool { // the last block has room for some records
			a := s.exec(1, system, "echo "+strings.Repeat("x", 1000))
			answers = append(answers, a)
			// A user without a certificate hears it of the one that cannot be recorded.
			return (a.code == "audit_unavailable" || a.code == "ca_unavailable") && a.status == http.StatusServiceUnavailable
		})
		if a := <-running; a.result.Stdout != "done\n" {
			t.Errorf("what ran: %+v", a)
		}
		s.must(os.Remove(ballast))
		s.judge(append(answers, s.recovers(system)...))
	}
	s.clean()
}

// under ends the service while callers run commands, and returns what they were told.
func (s *site) under(callers int, system string, end func()) (answers []answer) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range callers {
		wg.Go(func() {
			for range 200 {
				a := s.exec(i, system, "sleep 0.1")
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
				if a.status == 0 {
					return // the service is gone
				}
			}
		})
	}
	time.Sleep(3 * time.Second)
	end()
	wg.Wait()
	return answers
}

func TestDrainUnderLoad(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		answers := s.under(40, system, s.stop)
		count := make(map[string]int)
		for _, a := range answers {
			count[fmt.Sprint(a.status, " ", a.code)]++
			if !a.ran() && a.status != 0 && a.code != "shutting_down" && a.code != "busy" {
				t.Errorf("got %+v", a)
			}
		}
		if count["200 "] < 40 {
			t.Errorf("answers: %v", count)
		}
		s.judge(answers)
		s.clean()
		s.serve()
	})
}

func TestKilledUnderLoad(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		answers := s.under(20, system, s.kill)
		s.serve()
		s.judge(append(answers, s.recovers(system)...))
		s.clean()
	})
}

// TestKilledUnderACommand: a warm session ends what it runs when its channel ends. A
// session of its own leaves it to sshd, which lets it go on.
func TestKilledUnderACommand(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 8")
		s.kill()
		<-running
		began := time.Now()
		s.eventually("the command ends", func() bool { return len(s.processes()) == 0 })
		if took := time.Since(began); system == "warm" && took > 4*time.Second {
			t.Errorf("the command ended after %v", took)
		}
		s.serve()
		s.clean()
	})
}

// TestClockOfTheNodeIsWrong: sshd's own clock jumps while the service runs.
func TestClockOfTheNodeIsWrong(t *testing.T) {
	t.Parallel()
	offset := filepath.Join(t.TempDir(), "offset")
	if err := os.WriteFile(offset, []byte("+0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(offset), 0o755); err != nil {
		t.Fatal(err)
	}
	s := start(t, option{node: loginnode.Config{Env: []string{
		"LD_PRELOAD=libfaketime.so.1", "LD_LIBRARY_PATH=" + strings.Join(faketime(t), ":"),
		"FAKETIME_TIMESTAMP_FILE=" + offset, "FAKETIME_NO_CACHE=1", "FAKETIME_DISABLE_SHM=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
	}}})
	before := s.exec(0, "own", "date +%s")
	if !before.ran() {
		t.Fatalf("before: %+v", before)
	}
	jump := func(to string) answer {
		s.must(os.WriteFile(offset, []byte(to+"\n"), 0o644))
		s.network.Cut()             // the next command needs a login
		time.Sleep(6 * time.Second) // a refused login is remembered for 5 s
		return s.exec(0, "own", "date +%s")
	}
	jump("-10m").want(t, http.StatusBadGateway, "node_login_refused")
	jump("+10m").want(t, http.StatusBadGateway, "node_login_refused")
	if a := jump("+0"); !a.ran() {
		t.Errorf("when it is right again: %+v", a)
	}
	if a := jump("-40s"); !a.ran() { // certificates are backdated
		t.Errorf("with a clock that is a little late: %+v", a)
	}
}

// faketime finds the folders of libfaketime.
func faketime(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/usr/lib/*/faketime")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("libfaketime is missing: %v", err)
	}
	return dirs
}

// TestFrozenService: a service that was stopped for a while goes on.
func TestFrozenService(t *testing.T) {
	both(t, option{}, func(t *testing.T, s *site, system string) {
		running := s.begin(0, system, "sleep 1; echo done")
		s.must(s.service.cmd.Process.Signal(syscall.SIGSTOP))
		time.Sleep(4 * time.Second)
		s.must(s.service.cmd.Process.Signal(syscall.SIGCONT))
		a := <-running
		if a.result.Stdout != "done\n" && a.code != "outcome_unknown" {
			t.Errorf("got %+v", a)
		}
		s.judge(append(s.recovers(system), a))
		s.clean()
	})
}
