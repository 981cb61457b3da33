// Package private opens files that only the user of this process may read or
// write, and refuses all others.
//
// Certificates' sealed keys and the audit log are worth nothing if another
// account can read, replace or cut them. The checks are made on the open
// descriptor, so that what was checked is what is used; a symbolic link is never
// followed in the last part of the path. Folders further up are the operator's
// business.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OpenFile opens or creates (mode 0600) a file with the given flags. It refuses
// a symbolic link, anything that is not a regular file, a file of another user,
// and a file that the group or others may use in any way.
func OpenFile(path string, flag int) (*os.File, error) {
	// O_NONBLOCK: a named pipe put in the file's place must not hang the start.
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%q is a symbolic link", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = check(path, info, 0o177)
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// CheckDir refuses a path that is not itself a directory (a symbolic link is
// none), belongs to another user, or has one of the mode bits in forbidden: 0o022
// for "nobody else may write", 0o077 for "nobody else may enter".
func CheckDir(path string, forbidden fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is not a directory", path)
	}
	return check(path, info, forbidden)
}

// SyncDir makes creations, renames and removals in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func check(path string, info fs.FileInfo, forbidden fs.FileMode) error {
	// Root needs no permission from us, so its files are no weaker than our own.
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || (st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid())) {
		return fmt.Errorf("%q belongs to another user", path)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("%q has mode %04o, which gives others access; run: chmod %04o %q",
			path, mode, mode&^forbidden, path)
	}
	return nil
}
