package audit

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestAPipeInPlaceOfAFileIsFound: an officer who verifies gets an answer.
func TestAPipeInPlaceOfAFileIsFound(t *testing.T) {
	for _, name := range []string{"head", "audit-000001.jsonl"} {
		dir := filepath.Join(t.TempDir(), "audit")
		l, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		mustRecord(t, l, t.Context(), Event{Action: AdminAct})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := syscall.Unlink(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("%s is a pipe: got %v", name, err)
		}
	}
}
