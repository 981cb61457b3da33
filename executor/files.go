package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/executor/sftp"
	"sallyport/identity"
)

// Bounds of file operations.
const (
	// MaxPath is the longest path in bytes, as in Linux (limits.h, PATH_MAX).
	MaxPath = 4096
	// MaxListing is how many entries a listing has at most, unless it asks for fewer.
	MaxListing = 200_000
	// maxDepth is how deep a recursive listing goes.
	maxDepth = 64
)

// Files are a caller's files on a node of a system. They hold a share of one SFTP
// channel until Close; where the node has no SFTP, each call is a command.
//
// Names are bytes: all but NUL and "/" can stand in them. A relative path begins in
// the home directory. Errors about a file are a [*FileError]. Others are those of
// [Executor.Run]: one that wraps ErrOutcomeUnknown says that a change may have been
// made, and a change whose context ended may have been made too.
//
// Calls may be concurrent.
type Files struct {
	executor *Executor
	system   *system
	caller   identity.Identity
	via      backend
	channel  *filesChannel // nil: by commands
	leave    func()
	closed   *atomic.Bool
	fence    *Fence // nil: any path
	resolved *resolvedFolders
}

// Files returns the caller's files on a system. The errors are those of
// [Executor.Run] that say that nothing was started.
func (e *Executor) Files(ctx context.Context, caller identity.Identity, system string) (*Files, error) {
	leave, err := e.enter()
	if err != nil {
		return nil, err
	}
	f, err := e.files(ctx, caller, system)
	if err != nil {
		leave()
		return nil, err
	}
	f.leave = leave
	return f, nil
}

func (e *Executor) files(ctx context.Context, caller identity.Identity, name string) (*Files, error) {
	s, err := e.permitted(caller, name)
	if err != nil {
		return nil, err
	}
	f := &Files{executor: e, system: s, caller: caller, closed: new(atomic.Bool)}
	f.channel, err = e.shareChannel(ctx, s, caller)
	switch {
	case errors.Is(err, errNoSFTP) && caller.Narrow():
		return nil, fmt.Errorf("%w, and there is no other way to these files: %w", ErrCommandsDenied, err)
	case errors.Is(err, errNoSFTP):
		f.via = &byCommand{executor: e, system: s, caller: caller}
	case err != nil:
		return nil, err
	default:
		f.via = &bySFTP{client: f.channel.client}
	}
	return f, nil
}

// Close gives the share of the channel back. It must be called once the last call
// has returned.
func (f *Files) Close() {
	if f.closed.Swap(true) {
		return
	}
	if f.channel != nil {
		f.system.files.release(f.channel)
	}
	f.leave()
}

// Node returns which node the files are on, or "" when each call may go to another.
func (f *Files) Node() string {
	if f.channel == nil {
		return ""
	}
	return f.channel.node
}

// A FileInfo describes a file.
type FileInfo struct {
	// Name is the path that was asked for, or that below the listed directory.
	Name string
	// Mode is type and permissions as in stat(2).
	Mode     uint32
	Size     int64
	UID, GID uint32
	// The times have whole seconds; Changed is zero over SFTP.
	Accessed, Modified, Changed time.Time
	// Inode, Device and Links are zero over SFTP, whose version 3 does not know them.
	Inode, Device, Links uint64
	// Target is where a link points to, in a listing that asks for it.
	Target string
}

// The types of files in FileInfo.Mode (stat(2), inode(7)).
const (
	typeMask    = 0o170000
	typeDir     = 0o040000
	typeRegular = 0o100000
	typeLink    = 0o120000
	permissions = 0o7777
)

// IsDir says whether the file is a directory.
func (i FileInfo) IsDir() bool { return i.Mode&typeMask == typeDir }

// IsRegular says whether the file is a regular one.
func (i FileInfo) IsRegular() bool { return i.Mode&typeMask == typeRegular }

// IsLink says whether the file is a symbolic link.
func (i FileInfo) IsLink() bool { return i.Mode&typeMask == typeLink }

// A ListOptions says what a listing has.
type ListOptions struct {
	// Hidden includes names that begin with a dot.
	Hidden bool
	// Recursive goes into directories, not through links, up to a depth of 64. A
	// directory below the listed one that cannot be read is as an empty one.
	Recursive bool
	// Follow describes what a link points to in place of the link, if that exists.
	Follow bool
	// Targets has FileInfo.Target filled.
	Targets bool
	// Max is the greatest number of entries; one more ends the listing with
	// ErrFileLimit. 0 means MaxListing.
	Max int
	// inside says whether Follow may describe what is there; nil: all.
	inside func(real, listed string) bool
}

// A backend is one of the ways to the files of a node. Paths are not checked there.
type backend interface {
	stat(ctx context.Context, path string, follow bool) (FileInfo, error)
	readLink(ctx context.Context, path string) (string, error)
	realPath(ctx context.Context, path string) (string, error)
	// resolve begins to find the absolute paths without links. Of a path that cannot be
	// followed to its end, the rest stands behind what could be ("realpath -m").
	resolve(ctx context.Context, paths ...string) func() ([]string, error)
	// list and open call where, before they give anything away, for the path that counts.
	list(ctx context.Context, path string, where locator, o ListOptions, yield func(FileInfo) error) error
	open(ctx context.Context, path string, where locator, fenced bool) (content, error)
	space(ctx context.Context, path string) (sftp.Space, error)
	names(ctx context.Context, uids, gids []uint32) (users, groups map[uint32]string, err error)
	// create makes a new file and has it on the disk when it returns. The node's
	// umask applies to mode; unset means 0666.
	create(ctx context.Context, path string, mode *uint32, next func() ([]byte, error)) error
	mkdir(ctx context.Context, path string, mode *uint32) error
	chmod(ctx context.Context, path string, mode uint32) error
	chown(ctx context.Context, path string, uid, gid uint32) error
	symlink(ctx context.Context, target, link string) error
	link(ctx context.Context, old, link string) error
	rename(ctx context.Context, from, to string) error
	remove(ctx context.Context, path string) error
	rmdir(ctx context.Context, path string) error
}

// content is an open file.
type content interface {
	info() FileInfo
	read(ctx context.Context, offset, size int64, yield func([]byte) error) (int64, error)
	close()
}

// Stat describes a file: the one that a link points to with follow, else the link.
func (f *Files) Stat(ctx context.Context, path string, follow bool) (FileInfo, error) {
	var info FileInfo
	err := f.look(ctx, "stat", path, func() (err error) {
		where := f.ahead(ctx, path, follow)
		info, err = f.via.stat(ctx, path, follow)
		if _, outside := where(); outside != nil {
			info = FileInfo{}
			return outside
		}
		info.Name = path
		return err
	})
	return info, err
}

// StatFull is Stat with the fields that SFTP does not know. It takes a command.
func (f *Files) StatFull(ctx context.Context, path string, follow bool) (FileInfo, error) {
	var info FileInfo
	err := f.lookBy(ctx, "stat", path, byItself, func() (err error) {
		found, err := f.locate(ctx, path, follow)
		if err != nil {
			return err
		}
		absolute, err := f.absolute(ctx, found)
		if err != nil {
			return err
		}
		info, err = f.commands().stat(ctx, absolute, follow)
		info.Name = path
		return err
	})
	return info, err
}

// absolute makes a path good for a command too: SFTP may begin relative ones in
// another directory (internal-sftp -d).
func (f *Files) absolute(ctx context.Context, path string) (string, error) {
	if f.channel == nil || strings.HasPrefix(path, "/") {
		return path, nil
	}
	home, err := f.via.realPath(ctx, ".")
	return join(home, path), err
}

// commands is the way by commands, whatever the node has.
func (f *Files) commands() *byCommand {
	return &byCommand{executor: f.executor, system: f.system, caller: f.caller}
}

// ReadLink returns where a link points to.
func (f *Files) ReadLink(ctx context.Context, path string) (string, error) {
	var target string
	err := f.look(ctx, "readlink", path, func() (err error) {
		where := f.ahead(ctx, path, false)
		target, err = f.via.readLink(ctx, path)
		if _, outside := where(); outside != nil {
			target = ""
			return outside
		}
		return err
	})
	return target, err
}

// RealPath returns the absolute path without links. The last part of path need not
// exist.
func (f *Files) RealPath(ctx context.Context, path string) (string, error) {
	var found string
	err := f.look(ctx, "realpath", path, func() (err error) {
		if _, err := f.locate(ctx, path, true); err != nil {
			return err
		}
		found, err = f.via.realPath(ctx, path)
		return err
	})
	return found, err
}

// A Space is how full a file system is.
type Space = sftp.Space

// Space returns how full the file system of path is.
func (f *Files) Space(ctx context.Context, path string) (Space, error) {
	var space Space
	err := f.look(ctx, "statvfs", path, func() (err error) {
		found, err := f.locate(ctx, path, true)
		if err != nil {
			return err
		}
		space, err = f.via.space(ctx, found)
		return err
	})
	return space, err
}

// List gives yield the entries of a directory in the node's order, until yield
// fails; its error is returned as it is. path may be a link to a directory.
func (f *Files) List(ctx context.Context, path string, o ListOptions, yield func(FileInfo) error) error {
	if o.Max <= 0 || o.Max > MaxListing {
		o.Max = MaxListing
	}
	count := 0
	return f.read(ctx, "list", path, changeTogether, func() error {
		o.inside = f.inside
		return f.via.list(ctx, path, f.ahead(ctx, path, true), o, func(i FileInfo) error {
			if count++; count > o.Max {
				return &FileError{Op: "list", Path: path, Err: ErrFileLimit}
			}
			return yieldError(yield(i))
		})
	})
}

// A File is an open file to read from.
type File struct {
	files *Files
	path  string
	content
}

// Open opens a regular file for reading. Close it. By commands the file is opened
// anew for each range.
func (f *Files) Open(ctx context.Context, path string) (*File, error) {
	var c content
	err := f.read(ctx, "read", path, lookTogether, func() (err error) {
		c, err = f.via.open(ctx, path, f.ahead(ctx, path, true), f.fence != nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &File{files: f, path: path, content: c}, nil
}

// Info describes the file as it was when it was opened.
func (f *File) Info() FileInfo {
	i := f.info()
	i.Name = f.path
	return i
}

// Close closes the file.
func (f *File) Close() { f.close() }

// WriteRange writes size bytes from offset on to w, fewer if the file ends, and
// returns how many. A writer that fails ends it with the writer's error.
func (f *File) WriteRange(ctx context.Context, w io.Writer, offset, size int64) (int64, error) {
	if offset < 0 || size < 0 {
		return 0, &FileError{Op: "read", Path: f.path, Err: ErrInvalidPath, Detail: "range is negative"}
	}
	const small = 64 << 10
	together := lookTogether
	if size > small {
		together = alone
	}
	var n int64
	err := f.files.lookBy(ctx, "read", f.path, together, func() (err error) {
		n, err = f.read(ctx, offset, size, func(p []byte) error {
			_, err := w.Write(p)
			return yieldError(err)
		})
		return err
	})
	f.files.executor.fileStats.read.Add(uint64(n)) //nolint:gosec // not negative
	return n, err
}

// join is path.Join without a change to dir: "link/.." is not what it seems.
func join(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// parent is where the last part of name stands.
func parent(name string) string {
	dir, _ := path.Split(strings.TrimRight(name, "/"))
	return cmp.Or(dir, ".")
}

// checkPath refuses what no node could have.
func checkPath(op, path string) error {
	switch {
	case path == "":
		return &FileError{Op: op, Path: path, Err: ErrInvalidPath, Detail: "path is empty"}
	case len(path) > MaxPath:
		return &FileError{Op: op, Path: path[:64] + "...", Err: ErrInvalidPath, Detail: "path is too long"}
	case strings.ContainsRune(path, 0):
		return &FileError{Op: op, Path: path, Err: ErrInvalidPath, Detail: "path has a NUL byte"}
	}
	return nil
}
