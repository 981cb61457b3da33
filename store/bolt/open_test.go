package bolt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/store"
)

func TestOpenReportsEveryMistakeOfTheConfiguration(t *testing.T) {
	t.Parallel()
	_, err := Open(Config{PruneInterval: -1, LockTimeout: -1})
	for _, want := range []string{"no path given", "prune interval", "lock timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v, want %q in it", err, want)
		}
	}
}

func TestOpenMakesAPrivateFile(t *testing.T) {
	t.Parallel()
	db := open(t)
	info, err := os.Stat(db.db.Path())
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %s, %v", info.Mode(), err)
	}
}

func TestOpenRefusesWhatOthersCouldTamperWith(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(path string) error
		want  string
	}{
		{"file that the group may read", func(p string) error { return os.Chmod(p, 0o640) }, "mode 0640"},
		{"file that others may write", func(p string) error { return os.Chmod(p, 0o602) }, "mode 0602"},
		{"folder that the group may write", func(p string) error { return os.Chmod(filepath.Dir(p), 0o770) }, "mode 0770"},
		{"folder that others may write", func(p string) error { return os.Chmod(filepath.Dir(p), 0o1777) }, "mode 0777"},
		{"symbolic link", func(p string) error { return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p)) }, "is a symbolic link"},
		{"folder behind a symbolic link", func(p string) error {
			dir := filepath.Dir(p)
			return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir))
		}, "is not a directory"},
		{"something else", func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("not a store", 999)), 0o600) }, "invalid database"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "sallyport.db")
			db, err := Open(Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Close(), test.spoil(path)); err != nil {
				t.Fatal(err)
			}
			db, err = Open(Config{Path: path})
			if err == nil {
				t.Fatal("taken", db.Close())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open = %q, want %q in it", err, test.want)
			}
		})
	}
	if _, err := Open(Config{Path: filepath.Join(t.TempDir(), "missing", "s.db")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open below a missing folder = %v, want ErrNotExist", err)
	}
}

// A lock belongs to an open file, so a second Open in this process meets it as
// another process would.
func TestALockedFileIsReportedAfterTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := open(t)
		path := first.db.Path()
		for timeout, want := range map[time.Duration]time.Duration{0: time.Second, 200 * time.Millisecond: 200 * time.Millisecond} {
			begin := time.Now()
			_, err := Open(Config{Path: path, LockTimeout: timeout})
			if took := time.Since(begin); !errors.Is(err, ErrLocked) || took > want {
				t.Errorf("second Open = %v after %s, want ErrLocked within %s", err, took, want)
			}
		}
		mustPut(t, first, store.Entry{Key: "k"})
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second, err := Open(Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestEntriesAndRevisionsSurviveReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sallyport.db")
	last := uint64(0)
	for range 5 {
		db, err := Open(Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		e, err := db.Get(t.Context(), "k")
		if last == 0 && !errors.Is(err, store.ErrNotFound) || last != 0 && (err != nil || e.Revision != last) {
			t.Errorf("after reopening, Get = %+v, %v; want revision %d", e, err, last)
		}
		// A deleted entry leaves no trace, and still its revision is not used again.
		other := mustPut(t, db, store.Entry{Key: "other"})
		if err := db.Delete(t.Context(), other); err != nil {
			t.Error(err)
		}
		e = mustPut(t, db, store.Entry{Key: "k", Value: []byte("v"), Revision: last})
		if e.Revision <= other.Revision || other.Revision <= last {
			t.Errorf("revisions %d, %d, %d do not rise", last, other.Revision, e.Revision)
		}
		last = e.Revision
		requireConsistent(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
