package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sallyport/store"
)

func TestASnapshotIsAStoreOfOneMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := Open(Config{Path: filepath.Join(dir, "live.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// The counter of each pair moves with its twin, one after the other: a snapshot
	// may see the first ahead by one, never the second.
	first, second := store.Entry{Key: "n/first"}, store.Entry{Key: "n/second"}
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			for _, e := range []*store.Entry{&first, &second} {
				e.Value = fmt.Appendf(nil, "%09d", i)
				var err error
				if *e, err = db.Put(t.Context(), *e); err != nil { //nolint:contextcheck // a write that was begun is finished
					t.Error(err)
					return
				}
			}
		}
	})
	for i := range 20 {
		copied := copySnapshot(t, db, filepath.Join(dir, fmt.Sprintf("copy%d.db", i)))
		if err := copied.Check(t.Context()); err != nil {
			t.Error(err)
		}
		a, errA := copied.Get(t.Context(), "n/first")
		b, errB := copied.Get(t.Context(), "n/second")
		if errB == nil && (errA != nil || string(b.Value) > string(a.Value)) {
			t.Errorf("first %q (%v), second %q: not of one moment", a.Value, errA, b.Value)
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	writer.Wait()
	if left, err := filepath.Glob(filepath.Join(dir, ".snapshot-*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// copySnapshot writes a snapshot to path and opens it.
func copySnapshot(t *testing.T, db *DB, path string) *DB {
	t.Helper()
	f, err := db.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), os.WriteFile(path, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	copied, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestASnapshotOfAClosedStoreOrForNobodyFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := Open(Config{Path: filepath.Join(dir, "live.db")})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Snapshot(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Snapshot(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".snapshot-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
