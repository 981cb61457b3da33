package audit

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func openLog(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustRecord(t testing.TB, l *Log, ctx context.Context, e Event) {
	t.Helper()
	if err := l.Record(ctx, e); err != nil {
		t.Errorf("Record(%q): %v", e.Action, err)
	}
}

// verify returns the report of a log that must be whole.
func verify(t testing.TB, dir string) Report {
	t.Helper()
	report, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// fill records n events in dir and closes the log.
func fill(t testing.TB, dir string, n int, maxBytes int64) {
	t.Helper()
	l := openLog(t, Config{Dir: dir, MaxBytes: maxBytes})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			mustRecord(t, l, t.Context(), Event{Action: ExecStart, Outcome: Unknown, Login: "alice", System: "daint"})
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// privateDir gives a test's folder, which is 0755, the mode that a log wants.
func privateDir(t testing.TB, dir string) string {
	t.Helper()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func contextThatIsOver(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func contextWithCancel(t testing.TB) (context.Context, func()) {
	return context.WithCancel(t.Context())
}

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	write(t, dir, name, append(read(t, dir, name), b...))
}

func parseTime(line []byte) time.Time {
	p, _ := parseLine(line)
	return p.time
}
