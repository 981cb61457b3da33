package executor

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"sallyport/executor/sftp"
)

// bySFTP is the way to a node's files over SFTP.
type bySFTP struct{ client *sftp.Client }

// told turns a refusal of the peer into a FileError. A plain failure means much;
// look, if given, tells what by looking again.
func (b *bySFTP) told(err error, look func() error) error {
	if errors.Is(err, errLost) {
		return b.client.Err()
	}
	status, ok := errors.AsType[*sftp.StatusError](err)
	if !ok {
		return err
	}
	e := &FileError{Err: ErrFileFailed}
	switch status.Code {
	case sftp.NoSuchFile:
		e.Err = ErrNotFound
	case sftp.PermissionDenied:
		e.Err = ErrPermission
	case sftp.BadMessage:
		e.Err = ErrInvalidPath
	case sftp.Unsupported:
		e.Err = ErrUnsupported
	default:
		if look != nil {
			if found := look(); found != nil {
				e.Err = found
			}
		}
	}
	return e
}

func (b *bySFTP) info(name string, a sftp.Attrs) FileInfo {
	return FileInfo{
		Name: name, Mode: a.Mode, Size: int64(min(a.Size, 1<<63-1)), UID: a.UID, GID: a.GID,
		Accessed: time.Unix(int64(a.ATime), 0), Modified: time.Unix(int64(a.MTime), 0),
	}
}

func (b *bySFTP) stat(ctx context.Context, name string, follow bool) (FileInfo, error) {
	ask := b.client.Lstat
	if follow {
		ask = b.client.Stat
	}
	a, err := ask(ctx, name)
	return b.info(name, a), b.told(err, nil)
}

func (b *bySFTP) readLink(ctx context.Context, name string) (string, error) {
	target, err := b.client.ReadLink(ctx, name)
	return target, b.told(err, nil)
}

func (b *bySFTP) realPath(ctx context.Context, name string) (string, error) {
	found, err := b.client.RealPath(ctx, name)
	return found, b.told(err, nil)
}

func (b *bySFTP) space(ctx context.Context, name string) (sftp.Space, error) {
	if !b.client.Has(sftp.StatVFS) {
		return sftp.Space{}, &FileError{Err: ErrUnsupported}
	}
	space, err := b.client.Space(ctx, name)
	return space, b.told(err, nil)
}

func (b *bySFTP) list(ctx context.Context, dir string, where locator, o ListOptions, yield func(FileInfo) error) error {
	return b.told(b.listBelow(ctx, dir, "", 1, where, o, yield), nil)
}

// listBelow lists dir, which is below the directory of the listing, at depth. where is called
// before the first entry is given away.
func (b *bySFTP) listBelow(ctx context.Context, dir, below string, depth int, where locator, o ListOptions, yield func(FileInfo) error) error {
	var deeper []string
	real, failed := "", error(nil)
	locate := sync.OnceFunc(func() { real, failed = where() })
	err := b.client.List(ctx, dir, func(n sftp.Name) error {
		if locate(); failed != nil {
			return failed
		}
		if !o.Hidden && strings.HasPrefix(n.Name, ".") {
			return nil
		}
		info, err := b.entry(ctx, real, n, o)
		if errors.Is(err, ErrNotFound) {
			return nil // it has gone
		}
		if err != nil {
			return err
		}
		info.Name = below + n.Name
		if err := yield(info); err != nil {
			return err
		}
		if o.Recursive && n.Attrs.Mode&typeMask == typeDir && depth < maxDepth && len(deeper) < o.Max {
			deeper = append(deeper, n.Name)
		}
		return nil
	})
	if locate(); failed != nil { // whatever else there is to say
		return failed
	}
	if status, ok := errors.AsType[*sftp.StatusError](err); ok {
		if depth > 1 {
			return nil // gone, or not to be read
		}
		if status.Code == sftp.NoSuchFile || status.Code == sftp.Failure {
			// OpenSSH says so of what is no directory, too.
			if info, err := b.stat(ctx, real, true); err == nil && !info.IsDir() {
				return &FileError{Err: ErrNotDirectory}
			}
		}
	}
	for _, name := range deeper {
		if err != nil {
			break
		}
		next := join(real, name)
		err = b.listBelow(ctx, next, below+name+"/", depth+1, b.still(ctx, next, o), o, yield)
	}
	return err
}

// still has a directory of a listing looked up along with its entries, in case that somebody
// puts a link in its place.
func (b *bySFTP) still(ctx context.Context, dir string, o ListOptions) locator {
	if o.inside == nil {
		return func() (string, error) { return dir, nil }
	}
	wait := b.client.RealPathAhead(ctx, dir)
	return func() (string, error) {
		real, err := wait()
		if err = b.told(err, nil); err == nil && !o.inside(real, dir) {
			err = &FileError{Err: ErrOutside}
		}
		if isFileError(err) && !errors.Is(err, ErrOutside) {
			return dir, nil // the listing itself says so
		}
		return dir, err
	}
}

// entry describes an entry of a directory.
func (b *bySFTP) entry(ctx context.Context, dir string, n sftp.Name, o ListOptions) (FileInfo, error) {
	name, a := join(dir, n.Name), n.Attrs
	if a.Flags&sftp.HasMode == 0 {
		var err error
		if a, err = b.client.Lstat(ctx, name); err != nil {
			return FileInfo{}, b.told(err, nil)
		}
	}
	info := b.info(name, a)
	if !info.IsLink() {
		return info, nil
	}
	if o.Targets {
		target, err := b.client.ReadLink(ctx, name)
		if err != nil {
			return FileInfo{}, b.told(err, nil)
		}
		info.Target = target
	}
	if o.Follow {
		wait := b.client.RealPathAhead(ctx, name)
		followed, err := b.stat(ctx, name, true)
		real, lost := wait()
		hidden := o.inside != nil && (lost != nil || !o.inside(real, dir))
		if err != nil && !isFileError(err) {
			return FileInfo{}, err
		}
		if err == nil && !hidden { // else it is shown as the link that it is
			followed.Target = info.Target
			return followed, nil
		}
	}
	return info, nil
}

func isFileError(err error) bool {
	_, ok := errors.AsType[*FileError](err)
	return ok
}

// open looks first what it opens: sshd's server would wait for the other end of a
// pipe, and answer nothing else meanwhile.
func (b *bySFTP) open(ctx context.Context, name string, where locator, fenced bool) (content, error) {
	info, err := b.stat(ctx, name, true)
	real, outside := where()
	if outside != nil {
		return nil, outside
	}
	if err != nil {
		return nil, err
	}
	if err := readable(info); err != nil {
		return nil, err
	}
	h, err := b.client.Open(ctx, real, sftp.Read, sftp.Attrs{})
	if err != nil {
		return nil, b.told(err, nil)
	}
	wait := b.client.RealPathAhead(ctx, real)
	a, err := b.client.Fstat(ctx, h)
	if err == nil && readable(b.info(name, a)) != nil {
		err = &FileError{Err: ErrNotRegular}
	}
	if again, lost := wait(); err == nil && fenced && (lost != nil || again != real) {
		err = &FileError{Err: ErrOutside, Detail: "path has changed"}
	}
	if err != nil {
		b.client.Release(ctx, h)
		return nil, b.told(err, nil)
	}
	return &openSFTP{bySFTP: b, handle: h, about: b.info(name, a)}, nil
}

func readable(info FileInfo) error {
	switch {
	case info.IsDir():
		return &FileError{Err: ErrIsDirectory}
	case !info.IsRegular():
		return &FileError{Err: ErrNotRegular}
	}
	return nil
}

// openSFTP is a file that is open over SFTP.
type openSFTP struct {
	*bySFTP
	handle sftp.Handle
	about  FileInfo
}

func (o *openSFTP) info() FileInfo { return o.about }
func (o *openSFTP) close()         { o.client.Release(context.Background(), o.handle) }

// read asks for nothing beyond the size that the file had when it was opened, unless
// that is zero: files of /proc have no size.
func (o *openSFTP) read(ctx context.Context, offset, size int64, yield func([]byte) error) (int64, error) {
	if o.about.Size > 0 {
		size = min(size, max(0, o.about.Size-offset))
	}
	n, err := o.client.ReadRange(ctx, o.handle, offset, size, yield)
	return n, o.told(err, nil)
}

func (b *bySFTP) create(ctx context.Context, name string, mode *uint32, next func() ([]byte, error)) error {
	full := func() error { // why a file could not be written
		space, err := b.space(ctx, parent(name))
		if err == nil && (space.Available < sftp.Chunk || space.Files > 0 && space.FilesFree == 0) {
			return ErrNoSpace
		}
		return nil
	}
	h, err := b.client.Open(ctx, name, sftp.Write|sftp.Create|sftp.Excl, modeAttrs(mode))
	if err != nil {
		return b.told(err, func() error {
			if b.there(ctx, name) {
				return ErrExists
			}
			return full()
		})
	}
	_, err = b.client.WriteRange(ctx, h, 0, next)
	if err == nil && b.client.Has(sftp.Fsync) {
		err = b.client.Sync(ctx, h)
	}
	if err != nil {
		b.client.Release(ctx, h)
		return b.told(err, full)
	}
	return b.told(b.client.Shut(ctx, h), full) // NFS tells of a full quota here
}

func modeAttrs(mode *uint32) sftp.Attrs {
	if mode == nil {
		return sftp.Attrs{}
	}
	return sftp.Attrs{Flags: sftp.HasMode, Mode: *mode & 0o777}
}

func (b *bySFTP) there(ctx context.Context, name string) bool {
	_, err := b.client.Lstat(ctx, name)
	return err == nil
}

// taken is why something of a new name could not be made.
func (b *bySFTP) taken(ctx context.Context, name string) func() error {
	return func() error {
		if b.there(ctx, name) {
			return ErrExists
		}
		if space, err := b.space(ctx, parent(name)); err == nil && space.Files > 0 && space.FilesFree == 0 {
			return ErrNoSpace
		}
		return nil
	}
}

func (b *bySFTP) mkdir(ctx context.Context, name string, mode *uint32) error {
	return b.told(b.client.Mkdir(ctx, name, modeAttrs(mode)), b.taken(ctx, name))
}

func (b *bySFTP) chmod(ctx context.Context, name string, mode uint32) error {
	return b.told(b.client.SetStat(ctx, name, sftp.Attrs{Flags: sftp.HasMode, Mode: mode}), nil)
}

func (b *bySFTP) chown(ctx context.Context, name string, uid, gid uint32) error {
	return b.told(b.client.SetStat(ctx, name, sftp.Attrs{Flags: sftp.HasOwner, UID: uid, GID: gid}), nil)
}

func (b *bySFTP) symlink(ctx context.Context, target, link string) error {
	return b.told(b.client.Symlink(ctx, target, link), b.taken(ctx, link))
}

// link needs the extension: without it nothing makes a name only if it is free.
func (b *bySFTP) link(ctx context.Context, old, link string) error {
	if !b.client.Has(sftp.Hardlink) {
		return &FileError{Err: ErrUnsupported}
	}
	return b.told(b.client.Link(ctx, old, link), b.taken(ctx, link))
}

func (b *bySFTP) rename(ctx context.Context, from, to string) error {
	return b.told(b.client.Rename(ctx, from, to), func() error {
		there, err := b.stat(ctx, to, false)
		if err == nil && there.IsDir() {
			return ErrIsDirectory
		}
		if err == nil && !b.client.Has(sftp.PosixRename) {
			return ErrExists
		}
		return nil
	})
}

func (b *bySFTP) remove(ctx context.Context, name string) error {
	return b.told(b.client.Remove(ctx, name), func() error {
		if info, err := b.stat(ctx, name, false); err == nil && info.IsDir() {
			return ErrIsDirectory
		}
		return nil
	})
}

func (b *bySFTP) rmdir(ctx context.Context, name string) error {
	return b.told(b.client.Rmdir(ctx, name), func() error {
		some := errors.New("an entry")
		err := b.client.List(ctx, name, func(sftp.Name) error { return some })
		if errors.Is(err, some) {
			return ErrNotEmpty
		}
		return nil
	})
}
