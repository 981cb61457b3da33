package executor

import (
	"context"
	"errors"
	"path"
	"strconv"
	"strings"
)

// A Mode is the permissions of a file, or that there is no wish about them.
type Mode struct {
	bits uint32
	set  bool
}

// Permissions is a Mode of the bits 07777.
func Permissions(bits uint32) Mode { return Mode{bits & permissions, true} }

func (m Mode) wish() *uint32 {
	if !m.set {
		return nil
	}
	return &m.bits
}

func (m Mode) detail() map[string]string {
	d := make(map[string]string)
	if m.set {
		d["mode"] = octal(m.bits)
	}
	return d
}

func octal(bits uint32) string { return "0" + strconv.FormatUint(uint64(bits&permissions), 8) }

// Mkdir makes a directory; with parents also those above it that are missing, and
// then it is no error that path is a directory already. The zero mode is 0777. The
// node's umask applies to both.
func (f *Files) Mkdir(ctx context.Context, path string, mode Mode, parents bool) error {
	return f.change(ctx, operation{name: "mkdir", path: path, detail: mode.detail()}, func(end map[string]string) error {
		found, err := f.placed(ctx, path, false, end)
		switch {
		case err != nil:
			return err
		case !parents:
			return f.via.mkdir(ctx, found, mode.wish())
		}
		return f.mkdirAll(ctx, found, mode.wish())
	})
}

// mkdirAll goes up until a directory can be made, and down again.
func (f *Files) mkdirAll(ctx context.Context, name string, mode *uint32) error {
	name = strings.TrimRight(name, "/")
	if name == "" {
		return nil
	}
	err := f.via.mkdir(ctx, name, mode)
	if errors.Is(err, ErrNotFound) {
		above := parent(name)
		if above == "." {
			return err
		}
		if err := f.mkdirAll(ctx, above, nil); err != nil {
			return err
		}
		err = f.via.mkdir(ctx, name, mode)
	}
	if errors.Is(err, ErrExists) {
		info, statErr := f.via.stat(ctx, name, true)
		if statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// placed is locate for the path of a change; the record of its end says where that was.
func (f *Files) placed(ctx context.Context, name string, follow bool, end map[string]string) (string, error) {
	found, err := f.locate(ctx, name, follow)
	if err == nil && found != name && f.fence != nil {
		end["resolved"] = found
	}
	return found, err
}

// Chmod sets the permissions of what path refers to, through links. bits are those
// of 07777.
func (f *Files) Chmod(ctx context.Context, path string, bits uint32) error {
	return f.change(ctx, operation{name: "chmod", path: path, detail: Permissions(bits).detail()}, func(end map[string]string) error {
		found, err := f.placed(ctx, path, true, end)
		if err != nil {
			return err
		}
		return f.via.chmod(ctx, found, bits&permissions)
	})
}

// Chown sets owner and group of what path refers to, through links; nil leaves one
// as it is.
func (f *Files) Chown(ctx context.Context, path string, uid, gid *uint32) error {
	d := make(map[string]string)
	for name, id := range map[string]*uint32{"uid": uid, "gid": gid} {
		if id != nil {
			d[name] = strconv.FormatUint(uint64(*id), 10)
		}
	}
	return f.change(ctx, operation{name: "chown", path: path, detail: d}, func(end map[string]string) error {
		found, err := f.placed(ctx, path, true, end)
		if err != nil {
			return err
		}
		info, err := f.via.stat(ctx, found, true)
		if err != nil {
			return err
		}
		if uid == nil {
			uid = &info.UID
		}
		if gid == nil {
			gid = &info.GID
		}
		return f.via.chown(ctx, found, *uid, *gid)
	})
}

// Symlink makes link point to target, which need not exist. Within a fence both must lie
// there.
func (f *Files) Symlink(ctx context.Context, target, link string) error {
	if err := checkPath("symlink", target); err != nil {
		return err
	}
	return f.change(ctx, operation{name: "symlink", path: link, detail: map[string]string{"target": target}}, func(map[string]string) error {
		to := target
		if !path.IsAbs(to) {
			to = join(parent(link), to)
		}
		found, err := f.find(ctx, Place{Path: link}, Place{to, true})()
		if err != nil {
			return err
		}
		return f.via.symlink(ctx, target, found[0])
	})
}

// Rename gives a file another name, within a file system, and replaces a file that
// has it.
func (f *Files) Rename(ctx context.Context, from, to string) error {
	if err := checkPath("rename", to); err != nil {
		return err
	}
	return f.change(ctx, operation{name: "rename", path: from, detail: map[string]string{"target": to}}, func(map[string]string) error {
		found, err := f.find(ctx, Place{Path: from}, Place{Path: to})()
		if err != nil {
			return err
		}
		return f.via.rename(ctx, found[0], found[1])
	})
}

// Remove removes a file, a link or an empty directory.
func (f *Files) Remove(ctx context.Context, path string) error {
	return f.change(ctx, operation{name: "remove", path: path}, func(end map[string]string) error {
		found, info, err := f.doomed(ctx, path, end)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return f.via.rmdir(ctx, found)
		}
		return f.via.remove(ctx, found)
	})
}

// RemoveAll removes a file, a link, or a directory with all that is below it, and
// follows no links. A directory is left to rm(1): paths are all that version 3 of
// SFTP has, and somebody else who may write there could put a link in the place of a
// directory between two requests. It takes as long as a command may.
func (f *Files) RemoveAll(ctx context.Context, path string) error {
	return f.change(ctx, operation{name: "remove_all", path: path, command: true}, func(end map[string]string) error {
		found, info, err := f.doomed(ctx, path, end)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			absolute, err := f.absolute(ctx, found)
			if err != nil {
				return err
			}
			return f.commands().removeAll(ctx, absolute)
		}
		return f.via.remove(ctx, found)
	})
}

// doomed finds what is to be removed. Within a fence none of its folders is.
func (f *Files) doomed(ctx context.Context, name string, end map[string]string) (string, FileInfo, error) {
	if f.fence == nil {
		info, err := f.via.stat(ctx, name, false)
		return name, info, err
	}
	bare := strings.TrimRight(name, "/")
	if _, base := splitLast(bare); base == "" {
		return "", FileInfo{}, &FileError{Err: ErrInvalidPath, Detail: "a folder is not removed by this name"}
	}
	found, err := f.placed(ctx, bare, false, end)
	if err != nil {
		return "", FileInfo{}, err
	}
	whole, err := f.Whole(ctx, found)
	if err == nil && whole {
		err = &FileError{Err: ErrPermission, Detail: "a whole folder of the fence is not removed"}
	}
	if err != nil {
		return "", FileInfo{}, err
	}
	info, err := f.via.stat(ctx, found, false)
	if err == nil && bare != name && !info.IsDir() { // a slash after it says that it is one
		err = &FileError{Err: ErrNotDirectory}
	}
	return found, info, err
}
