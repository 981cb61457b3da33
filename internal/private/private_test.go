package private

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpenFileCreatesWithMode0600(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	for range 2 { // created, then opened again
		f, err := OpenFile(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode is %s, %v", info.Mode(), err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenFileRefusesWhatOthersCouldUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"group may read", file(0o640), "mode 0640"},
		{"others may write", file(0o602), "mode 0602"},
		{"program", file(0o700), "mode 0700"},
		{"symbolic link", func(p string) error { return os.Symlink("/dev/null", p) }, "is a symbolic link"},
		{"dangling link", func(p string) error { return os.Symlink("nowhere", p) }, "is a symbolic link"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		{"named pipe", func(p string) error { return syscall.Mkfifo(p, 0o600) }, "is not a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "f")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path, os.O_RDWR|os.O_CREATE)
			if err == nil {
				t.Fatal("taken", f.Close())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %q, want %q in it", err, test.want)
			}
		})
	}
}

func TestCheckDirRefusesWhatOthersCouldUse(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path      string
		mode      fs.FileMode
		forbidden fs.FileMode
		taken     bool
	}{
		{t.TempDir(), 0o755, 0o022, true},
		{t.TempDir(), 0o775, 0o022, false},
		{t.TempDir(), 0o757, 0o022, false},
		{t.TempDir(), 0o700, 0o077, true},
		{t.TempDir(), 0o710, 0o077, false},
		{link, 0o700, 0o077, false},
		{filepath.Join(t.TempDir(), "missing"), 0, 0o077, false},
	} {
		if test.mode != 0 {
			if err := os.Chmod(test.path, test.mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := CheckDir(test.path, test.forbidden); (err == nil) != test.taken {
			t.Errorf("CheckDir(%q, %04o) at mode %04o = %v, want taken %t", test.path, test.forbidden, test.mode, err, test.taken)
		}
	}
}

// The rules are asked about numbers, because a test may run as any user.
func TestFilesOfOtherUsersAreRefused(t *testing.T) {
	t.Parallel()
	me := uint32(os.Geteuid())
	for uid, taken := range map[uint32]bool{me: true, 0: true, me + 1: false} {
		err := closed(0o177)("f", uid, 0o600)
		if (err == nil) != taken || (err != nil && !errors.Is(err, ErrExposed)) {
			t.Errorf("a file of user %d = %v, want taken %t", uid, err, taken)
		}
	}
}

func TestOnlyACredentialOfRootMayHaveAnAccessList(t *testing.T) {
	t.Parallel()
	me := uint32(os.Geteuid())
	for _, test := range []struct {
		uid   uint32
		mode  fs.FileMode
		taken bool
	}{
		{0, 0o440, true},
		{0, 0o444, false},
		{me, 0o600, true},
		{me + 1, 0o440, false},
		{me + 1, 0o600, false},
	} {
		if err := credential("f", test.uid, test.mode); (err == nil) != test.taken {
			t.Errorf("credential of user %d with mode %04o = %v, want taken %t", test.uid, test.mode, err, test.taken)
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := ReadFile(path, 5); err != nil || string(text) != "12345" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := ReadFile(path, 4); err == nil {
		t.Error("a file above the limit was read")
	}
}

func TestSyncDirReportsAMissingFolder(t *testing.T) {
	t.Parallel()
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("SyncDir of a missing folder succeeded")
	}
}

func file(mode fs.FileMode) func(string) error {
	return func(path string) error {
		if err := os.WriteFile(path, nil, mode); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	}
}
