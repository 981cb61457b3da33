package executor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/executor/sftp"
)

// TemporaryPrefix begins the name of a file that is being written. One that is left
// is from a write whose connection was lost.
const TemporaryPrefix = ".sallyport-"

// cleanWait bounds the removal of a temporary file after the caller has gone.
const cleanWait = 5 * time.Second

// A WriteOptions says how a file is written.
type WriteOptions struct {
	// Mode is that of the file afterwards. Unset leaves the mode of a file that is
	// replaced, and gives a new one what the node's umask leaves of 0666.
	Mode Mode
	// Exclusive gives ErrExists if there is something of that name.
	Exclusive bool
	// Max is the greatest size in bytes, beyond which nothing is changed and the
	// error is ErrFileLimit. 0 means any.
	Max int64
}

// Written is what a write has done.
type Written struct {
	Size   int64
	SHA256 [sha256.Size]byte
}

// Write makes r the content of a file, all of it or nothing: it goes to a temporary
// file in the same directory, to the disk, and then to its name. A link is followed,
// and stays. A file that is replaced leaves its mode, without the bits 07000, and its
// group if the caller may give that: if not, the group may do what everybody may. The caller is the owner of the new one, which
// needs write permission on the directory and none on the file. When ctx ends or r fails the temporary file is removed; a Read of r may
// be under way when Write returns.
func (f *Files) Write(ctx context.Context, path string, r io.Reader, o WriteOptions) (Written, error) {
	var w Written
	detail := o.Mode.detail()
	detail["exclusive"] = strconv.FormatBool(o.Exclusive)
	err := f.change(ctx, operation{name: "write", path: path, detail: detail}, func(end map[string]string) (err error) {
		in := newUpload(ctx, r, o.Max, f)
		defer in.stop()
		found, err := f.placed(ctx, path, !o.Exclusive, end)
		if err != nil {
			return err
		}
		err = f.write(ctx, found, in, o)
		w = in.written()
		end["bytes"], end["sha256"] = strconv.FormatInt(w.Size, 10), hex.EncodeToString(w.SHA256[:])
		return err
	})
	f.executor.fileStats.written.Add(uint64(w.Size)) //nolint:gosec // not negative
	return w, err
}

func (f *Files) write(ctx context.Context, name string, in *upload, o WriteOptions) error {
	final, old, err := f.replaces(ctx, name, o)
	if err != nil {
		return err
	}
	temporary := besides(final)
	defer func() {
		// Whose access was revoked does not log in again for this.
		if err != nil && !errors.Is(err, ErrRevoked) && !errors.Is(err, ErrClosed) {
			f.clean(ctx, temporary)
		}
	}()
	if err = f.fill(ctx, temporary, old, in, o); err != nil {
		return err
	}
	if err = f.unmoved(ctx, final); err != nil {
		return err
	}
	if !o.Exclusive {
		err = f.via.rename(ctx, temporary, final)
		return err
	}
	if err = f.via.link(ctx, temporary, final); err != nil {
		return err
	}
	return f.via.remove(ctx, temporary)
}

// unmoved looks once more where a file is about to take its place: writing it took a while.
func (f *Files) unmoved(ctx context.Context, final string) error {
	if f.fence == nil {
		return nil
	}
	again, err := f.locate(ctx, final, false)
	if err == nil && again != final {
		err = &FileError{Err: ErrOutside, Detail: "path has changed"}
	}
	return err
}

// fill makes the temporary file. If its mode is to be another than that of any new
// file, nobody else can read it until it has its group and then its mode.
func (f *Files) fill(ctx context.Context, temporary string, old *FileInfo, in *upload, o WriteOptions) error {
	if old == nil && !o.Mode.set {
		return f.via.create(ctx, temporary, nil, in.next)
	}
	private := uint32(0o600)
	if err := f.via.create(ctx, temporary, &private, in.next); err != nil {
		return err
	}
	mode := o.Mode.bits
	kept := old == nil || f.keepGroup(ctx, temporary, old.GID)
	if !o.Mode.set {
		mode = old.Mode & 0o777
		if !kept { // another group gets no more than everybody
			mode &= mode<<3 | 0o707
		}
	}
	return f.via.chmod(ctx, temporary, mode)
}

// keepGroup gives a new file the group of the one that it replaces, if the caller may.
func (f *Files) keepGroup(ctx context.Context, name string, gid uint32) bool {
	info, err := f.via.stat(ctx, name, false)
	if err != nil {
		return false
	}
	return info.GID == gid || f.via.chown(ctx, name, info.UID, gid) == nil
}

// replaces finds the name of the file that a write of name is to make, and the file
// that has it, or nil.
func (f *Files) replaces(ctx context.Context, name string, o WriteOptions) (string, *FileInfo, error) {
	info, err := f.via.stat(ctx, name, false)
	switch {
	case errors.Is(err, ErrNotFound):
		return name, nil, nil
	case err != nil:
		return "", nil, err
	case o.Exclusive:
		return "", nil, &FileError{Err: ErrExists}
	}
	if info.IsLink() {
		if f.fence != nil { // there was none a moment ago
			return "", nil, &FileError{Err: ErrOutside, Detail: "path has changed"}
		}
		if name, err = f.via.realPath(ctx, name); err != nil {
			return "", nil, err
		}
		info, err = f.via.stat(ctx, name, false)
		if errors.Is(err, ErrNotFound) { // the link dangles
			return name, nil, nil
		}
		if err != nil {
			return "", nil, err
		}
	}
	switch {
	case info.IsDir():
		return "", nil, &FileError{Err: ErrIsDirectory}
	case !info.IsRegular():
		return "", nil, &FileError{Err: ErrNotRegular}
	}
	return name, &info, nil
}

// besides is the path of a temporary file in the directory of name.
func besides(name string) string {
	dir, _ := path.Split(name)
	return dir + TemporaryPrefix + strings.ToLower(rand.Text())
}

// clean removes a temporary file, also when the caller has gone.
func (f *Files) clean(ctx context.Context, temporary string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWait)
	defer cancel()
	_ = f.via.remove(ctx, temporary) // it may not be there; why it is wanted no more is told
}

// An upload takes a reader in parts. The reader may block for ever, so it has a
// goroutine of its own, which nobody waits for.
type upload struct {
	ctx   context.Context //nolint:containedctx // of the one write that it lives in
	lost  <-chan struct{} // closed when the SFTP channel has ended; nil by commands
	max   int64
	pool  *buffers
	parts chan part
	spare chan *[]byte
	left  chan struct{} // closed when no further part is wanted

	mu     sync.Mutex // guards what follows: by commands a call of next can outlive the write
	ended  bool
	held   *[]byte // the part that next has given last
	digest hash.Hash
	size   int64
}

type part struct {
	buffer *[]byte
	n      int
	err    error
}

func newUpload(ctx context.Context, r io.Reader, most int64, f *Files) *upload {
	const buffers = 2 // one is filled while the other is sent
	u := &upload{
		ctx: ctx, max: most, digest: sha256.New(), pool: &f.executor.buffers,
		parts: make(chan part), spare: make(chan *[]byte, buffers), left: make(chan struct{}),
	}
	if f.channel != nil {
		u.lost = f.channel.client.Done()
	}
	for range buffers {
		u.spare <- u.pool.get()
	}
	go u.pump(r) // ends with the reader, or when its part is not wanted
	return u
}

func (u *upload) pump(r io.Reader) {
	for {
		var buffer *[]byte
		select {
		case buffer = <-u.spare:
		case <-u.left:
			return
		}
		n, err := fill(r, (*buffer)[:sftp.Chunk])
		select {
		case u.parts <- part{buffer, n, err}:
		case <-u.left:
			u.pool.put(buffer)
			return
		}
		if err != nil {
			return
		}
	}
}

// fill reads until p is full. Other than with io.ReadFull, io.ErrUnexpectedEOF is the
// reader's own: its input broke off, and is not whole.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = r.Read(p[n:])
		n += more
	}
	return n, err
}

// errLost says that the channel has ended, which knows why.
var errLost = errors.New("SFTP channel has ended")

// next returns the next part, which is good until the call after it.
func (u *upload) next() ([]byte, error) {
	u.mu.Lock()
	if u.held != nil {
		u.spare <- u.held
		u.held = nil
	}
	ended := u.ended
	u.mu.Unlock()
	if ended {
		return nil, io.EOF
	}
	select {
	case p := <-u.parts:
		return u.take(p)
	case <-u.ctx.Done():
		return nil, u.ctx.Err()
	case <-u.lost:
		return nil, errLost
	case <-u.left:
		return nil, errLost
	}
}

func (u *upload) take(p part) ([]byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = p.buffer
	if p.err != nil && !errors.Is(p.err, io.EOF) {
		return nil, yielded{p.err}
	}
	u.ended = p.err != nil
	u.size += int64(p.n)
	if u.max > 0 && u.size > u.max {
		return nil, &FileError{Err: ErrFileLimit}
	}
	data := (*p.buffer)[:p.n]
	_, _ = u.digest.Write(data) // never fails
	if p.n == 0 {
		return nil, io.EOF
	}
	return data, nil
}

// stop has the reader's goroutine end, as soon as the reader lets it.
func (u *upload) stop() { close(u.left) }

func (u *upload) written() Written {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := Written{Size: u.size}
	u.digest.Sum(w.SHA256[:0])
	return w
}
