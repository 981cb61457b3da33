package executor

import (
	"context"
	"errors"
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
	return f.change(ctx, operation{name: "mkdir", path: path, detail: mode.detail()}, func(map[string]string) error {
		if !parents {
			return f.via.mkdir(ctx, path, mode.wish())
		}
		return f.mkdirAll(ctx, path, mode.wish())
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

// Chmod sets the permissions of what path refers to, through links. bits are those
// of 07777.
func (f *Files) Chmod(ctx context.Context, path string, bits uint32) error {
	return f.change(ctx, operation{name: "chmod", path: path, detail: Permissions(bits).detail()}, func(map[string]string) error {
		return f.via.chmod(ctx, path, bits&permissions)
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
	return f.change(ctx, operation{name: "chown", path: path, detail: d}, func(map[string]string) error {
		info, err := f.via.stat(ctx, path, true)
		if err != nil {
			return err
		}
		if uid == nil {
			uid = &info.UID
		}
		if gid == nil {
			gid = &info.GID
		}
		return f.via.chown(ctx, path, *uid, *gid)
	})
}

// Symlink makes link point to target, which need not exist.
func (f *Files) Symlink(ctx context.Context, target, link string) error {
	if err := checkPath("symlink", target); err != nil {
		return err
	}
	return f.change(ctx, operation{name: "symlink", path: link, detail: map[string]string{"target": target}}, func(map[string]string) error {
		return f.via.symlink(ctx, target, link)
	})
}

// Rename gives a file another name, within a file system, and replaces a file that
// has it.
func (f *Files) Rename(ctx context.Context, from, to string) error {
	if err := checkPath("rename", to); err != nil {
		return err
	}
	return f.change(ctx, operation{name: "rename", path: from, detail: map[string]string{"target": to}}, func(map[string]string) error {
		return f.via.rename(ctx, from, to)
	})
}

// Remove removes a file, a link or an empty directory.
func (f *Files) Remove(ctx context.Context, path string) error {
	return f.change(ctx, operation{name: "remove", path: path}, func(map[string]string) error {
		info, err := f.via.stat(ctx, path, false)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return f.via.rmdir(ctx, path)
		}
		return f.via.remove(ctx, path)
	})
}

// RemoveAll removes a file, a link, or a directory with all that is below it, and
// follows no links. A directory is left to rm(1): paths are all that version 3 of
// SFTP has, and somebody else who may write there could put a link in the place of a
// directory between two requests. It takes as long as a command may.
func (f *Files) RemoveAll(ctx context.Context, path string) error {
	return f.change(ctx, operation{name: "remove_all", path: path, command: true}, func(map[string]string) error {
		info, err := f.via.stat(ctx, path, false)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			absolute, err := f.absolute(ctx, path)
			if err != nil {
				return err
			}
			return f.commands().removeAll(ctx, absolute)
		}
		return f.via.remove(ctx, path)
	})
}
