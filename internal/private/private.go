// Package private opens files that only the user of this process may read or
// write, and refuses all others.
//
// A CA key, the store with its sealed keys, and the audit log are worth nothing if
// another account can read, replace or cut them. The checks are made on the open
// descriptor, so that what was checked is what is used; a symbolic link is never
// followed in the last part of the path. Folders further up are the operator's
// business.
package private

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrExposed is wrapped by every refusal.
var ErrExposed = errors.New("not private")

// A rule says whether owner and permissions keep others out, and if not, why.
type rule func(path string, uid uint32, mode fs.FileMode) error

// OpenFile opens or creates (mode 0600) a file with the given flags. It refuses
// a symbolic link, anything that is not a regular file, a file of another user,
// and a file that the group or others may use in any way.
func OpenFile(path string, flag int) (*os.File, error) { return open(path, flag, closed(0o177)) }

// ReadFile reads a file of at most limit bytes on the terms of OpenFile.
func ReadFile(path string, limit int64) ([]byte, error) { return read(path, limit, closed(0o177)) }

// ReadCredential is ReadFile for what systemd puts below $CREDENTIALS_DIRECTORY: a
// file of root may also have mode 0440, as its access list for the service's user
// looks there.
func ReadCredential(path string, limit int64) ([]byte, error) { return read(path, limit, credential) }

func credential(path string, uid uint32, mode fs.FileMode) error {
	if uid == 0 && mode&0o337 == 0 {
		return nil
	}
	return closed(0o177)(path, uid, mode)
}

func read(path string, limit int64, allows rule) ([]byte, error) {
	f, err := open(path, os.O_RDONLY, allows)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%q is larger than %d bytes", path, limit)
	}
	return text, errors.Join(err, f.Close())
}

func open(path string, flag int, allows rule) (*os.File, error) {
	// O_NONBLOCK: a named pipe put in the file's place must not hang the start.
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %q is a symbolic link; give the path of the file itself", ErrExposed, path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %q is not a regular file", ErrExposed, path)
	}
	if err == nil {
		err = apply(allows, path, info)
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
		return fmt.Errorf("%w: %q is not a directory", ErrExposed, path)
	}
	return apply(closed(forbidden), path, info)
}

// SyncDir makes creations, renames and removals in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func apply(allows rule, path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: the owner of %q is not known on this system", ErrExposed, path)
	}
	return allows(path, st.Uid, info.Mode().Perm())
}

// closed is the rule that a file is ours or root's and has none of the forbidden
// mode bits. Root needs no permission from us, so its files are no weaker.
func closed(forbidden fs.FileMode) rule {
	return func(path string, uid uint32, mode fs.FileMode) error {
		if me := os.Geteuid(); uid != 0 && int64(uid) != int64(me) {
			return fmt.Errorf("%w: %q belongs to uid %d, and this process is uid %d: run it as the owner", ErrExposed, path, uid, me)
		}
		if mode&forbidden != 0 {
			return fmt.Errorf("%w: %q has mode %04o; run: chmod %04o %[2]q", ErrExposed, path, mode, mode&^forbidden)
		}
		return nil
	}
}
