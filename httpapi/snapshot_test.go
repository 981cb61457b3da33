package httpapi

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/store/audit"
)

// snapshots makes copies of a file.
type snapshots struct {
	path string
	err  error
	made int
}

func (s *snapshots) Snapshot(context.Context) (*os.File, error) {
	s.made++
	if s.err != nil {
		return nil, s.err
	}
	return os.Open(s.path)
}

func TestASnapshotIsRecordedThenSent(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	source := &snapshots{path: filepath.Join(t.TempDir(), "store")}
	if err := os.WriteFile(source.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveAdmin(t, func(c *Config) { c.Snapshots = source })
	a := s.do("POST", "/v1/admin/snapshot", `{"reason":"before the upgrade"}`, "Authorization", "", "Content-Type", "application/json")
	if a.status != http.StatusOK || a.body != string(content) || a.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d, %d bytes, %v", a.status, len(a.body), a.header)
	}
	for _, body := range []string{`{}`, `{"reason":" "}`, `{"reason":"a\nb"}`, `{"reason":"` + strings.Repeat("x", 201) + `"}`, `{"reason":"x","path":"/etc"}`} {
		if a := s.do("POST", "/v1/admin/snapshot", body, "Authorization", "", "Content-Type", "application/json"); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%.40s: %d", body, a.status)
		}
	}
	if source.made != 1 {
		t.Errorf("%d snapshots were made, want 1", source.made)
	}
}

func TestASnapshotThatCannotBeRecordedOrMadeIsNotSent(t *testing.T) {
	t.Parallel()
	source := &snapshots{err: errors.New("disk is full")}
	s := serveAdmin(t, func(c *Config) { c.Snapshots = source })
	if a := s.do("POST", "/v1/admin/snapshot", `{"reason":"x"}`, "Authorization", "", "Content-Type", "application/json"); a.status != 500 || strings.Contains(a.body, "disk") {
		t.Errorf("no space: %d %s", a.status, a.body)
	}
	source = &snapshots{}
	s = serveAdmin(t, func(c *Config) { c.Snapshots, c.Audit = source, downAudit{} })
	if a := s.do("POST", "/v1/admin/snapshot", `{"reason":"x"}`, "Authorization", "", "Content-Type", "application/json"); a.status != 503 || source.made != 0 {
		t.Errorf("no audit log: %d, %d snapshots", a.status, source.made)
	}
}

type downAudit struct{}

func (downAudit) Record(context.Context, audit.Event) error { return audit.ErrUnavailable }
