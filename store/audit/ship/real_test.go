package ship

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/faultproxy"
	"sallyport/internal/logreceiver"
	"sallyport/store/audit"
)

var (
	discard = slog.New(slog.DiscardHandler)
	event   = audit.Event{Action: audit.ExecStart, Outcome: audit.Unknown, Login: "alice", System: "daint"}
)

// Receivers that a centre may have. Each gets everything, whoever dies and whatever is
// cut: the service, the receiver, the network between.
func TestEveryEventArrivesWhoeverIsKilled(t *testing.T) {
	for _, kind := range []string{"ossl", "gtls", "plain", "otlp"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			receiver := realReceiver(t, kind)
			network, err := faultproxy.Start(receiver.Address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { network.Close() })
			dir := auditDir(t)

			p := startService(t, dir, kind, network.Addr(), receiver.CA)
			p.record(300)
			network.Cut()
			p.record(300)
			receiver.Kill()
			p.record(300)
			if err := receiver.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.record(300)
			p.kill()
			for range 3 { // also in the middle of a start
				p = startService(t, dir, kind, network.Addr(), receiver.CA)
				p.record(100)
				receiver.Kill()
				p.kill()
				if err := receiver.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			network.Set(faultproxy.Fault{Refuse: true})
			p = startService(t, dir, kind, network.Addr(), receiver.CA)
			p.record(300)
			network.Set(faultproxy.Fault{})
			p.record(300)
			arrived(t, dir, receiver)
			p.end() // ships the last ones if it can; else the next start does
			p = startService(t, dir, kind, network.Addr(), receiver.CA)
			p.record(1) // it is up, and ends in order
			arrived(t, dir, receiver)
			p.end()
		})
	}
}

func realReceiver(t *testing.T, kind string) *logreceiver.Receiver {
	t.Helper()
	var r *logreceiver.Receiver
	var err error
	switch kind {
	case "otlp":
		r, err = logreceiver.Collector(t.Context(), t.TempDir())
	case "plain":
		r, err = logreceiver.Rsyslog(t.Context(), t.TempDir(), logreceiver.Plain)
	default:
		r, err = logreceiver.Rsyslog(t.Context(), t.TempDir(), kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	return r
}

// arrived waits until the receiver has every event that is in the log, byte for byte.
func arrived(t *testing.T, dir string, r *logreceiver.Receiver) {
	t.Helper()
	want := recorded(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		lines, err := r.Lines()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, line := range lines {
			have[record(line)] = true
		}
		missing := 0
		first := ""
		for _, line := range want {
			if !have[line] {
				if missing++; first == "" {
					first = line
				}
			}
		}
		if missing == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("of %d events %d never arrived, the first is\n%s", len(want), missing, first)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// record is the line of the log in what a receiver wrote.
func record(line string) string {
	if i := strings.Index(line, "{"); i >= 0 {
		return line[i:]
	}
	return line
}

func recorded(t *testing.T, dir string) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatal("no log", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line, ok := strings.CutSuffix(line, "\n"); ok {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// service is a process that records and ships.
type service struct {
	t       *testing.T
	command *exec.Cmd
	output  *bufio.Scanner
}

func startService(t *testing.T, dir, kind, address, ca string) *service {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir, childKind+"="+kind, childTarget+"="+address, childCA+"="+ca)
	c.Stderr = os.Stderr
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return &service{t: t, command: c, output: bufio.NewScanner(pipe)}
}

// record waits for n more events.
func (s *service) record(n int) {
	s.t.Helper()
	for range n {
		if !s.output.Scan() || s.output.Text() != "recorded" {
			s.t.Fatalf("the service says %q", s.output.Text())
		}
	}
}

func (s *service) kill() {
	_ = s.command.Process.Kill()
	_ = s.command.Wait()
}

func (s *service) end() {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Error(err)
	}
	for s.output.Scan() {
		if s.output.Text() != "recorded" {
			s.t.Errorf("the service says %q", s.output.Text())
		}
	}
	if err := s.command.Wait(); err != nil {
		s.t.Error(err)
	}
}

var sdSequence = regexp.MustCompile(`^\[sallyport@32473 sequence="([0-9]+)" hash="[0-9a-f]{64}"\]`)

// The receiver sees each connection's events in their order; only repeats go back.
func TestEventsComeInOrder(t *testing.T) {
	t.Parallel()
	receiver := realReceiver(t, "ossl")
	p := startService(t, auditDir(t), "ossl", receiver.Address, receiver.CA)
	p.record(500)
	p.end()
	lines, err := receiver.Lines()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) < 500 {
		t.Errorf("%d lines arrived before the end", len(lines))
	}
	for i, line := range lines {
		m := sdSequence.FindStringSubmatch(line)
		if m == nil || m[1] != strconv.Itoa(i+1) {
			t.Fatalf("line %d is %.120q", i+1, line)
		}
	}
}
