package sftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The extensions that are used (PROTOCOL of openssh-portable, section 4).
const (
	PosixRename = "posix-rename@openssh.com"
	Hardlink    = "hardlink@openssh.com"
	Fsync       = "fsync@openssh.com"
	StatVFS     = "statvfs@openssh.com"
	NamesByID   = "users-groups-by-id@openssh.com"
)

// A Handle is an open file or directory of the peer.
type Handle string

// The flags of Open (section 6.3).
const (
	Read   = 0x01
	Write  = 0x02
	Create = 0x08
	Trunc  = 0x10
	Excl   = 0x20
)

// ask sends a request and reads the answer by f. It returns what f found.
func ask[T any](ctx context.Context, c *Client, r *request, f func(frame) (T, error)) (T, error) {
	answer, err := c.do(ctx, r)
	if err != nil {
		var none T
		return none, err
	}
	defer answer.free()
	found, err := f(answer)
	return found, c.checked(err)
}

// checked ends the client if err says that the peer broke the protocol.
func (c *Client) checked(err error) error {
	if errors.Is(err, ErrProtocol) {
		c.fail(err)
	}
	return err
}

func (c *Client) act(ctx context.Context, r *request) error {
	_, err := ask(ctx, c, r, func(f frame) (struct{}, error) { return struct{}{}, f.status() })
	return err
}

// Stat follows links.
func (c *Client) Stat(ctx context.Context, path string) (Attrs, error) {
	return ask(ctx, c, newRequest(typeStat).text(path), frame.attrs)
}

// Lstat does not.
func (c *Client) Lstat(ctx context.Context, path string) (Attrs, error) {
	return ask(ctx, c, newRequest(typeLstat).text(path), frame.attrs)
}

// Fstat is about an open file.
func (c *Client) Fstat(ctx context.Context, h Handle) (Attrs, error) {
	return ask(ctx, c, newRequest(typeFstat).text(string(h)), frame.attrs)
}

// SetStat changes what a.Flags names. It follows links.
func (c *Client) SetStat(ctx context.Context, path string, a Attrs) error {
	return c.act(ctx, newRequest(typeSetstat).text(path).attrs(a))
}

// FsetStat is SetStat of an open file.
func (c *Client) FsetStat(ctx context.Context, h Handle, a Attrs) error {
	return c.act(ctx, newRequest(typeFsetstat).text(string(h)).attrs(a))
}

// Open opens a file. The peer applies its umask to a.Mode, if that is set.
func (c *Client) Open(ctx context.Context, path string, flags uint32, a Attrs) (Handle, error) {
	h, err := ask(ctx, c, newRequest(typeOpen).text(path).u32(flags).attrs(a), frame.handle)
	return Handle(h), err
}

// Shut closes a handle and returns what the peer says about it.
func (c *Client) Shut(ctx context.Context, h Handle) error {
	return c.act(ctx, newRequest(typeClose).text(string(h)))
}

// Release closes a handle and waits for no answer. It does so after the end of ctx,
// too.
func (c *Client) Release(ctx context.Context, h Handle) {
	k, err := c.send(context.WithoutCancel(ctx), newRequest(typeClose).text(string(h)), &call{})
	if err == nil {
		c.drop(k)
	}
}

// Sync has a file written to the peer's disk. It needs the extension Fsync.
func (c *Client) Sync(ctx context.Context, h Handle) error {
	return c.act(ctx, newRequest(typeExtended).text(Fsync).text(string(h)))
}

// Mkdir makes one directory. The peer applies its umask to the mode.
func (c *Client) Mkdir(ctx context.Context, path string, a Attrs) error {
	return c.act(ctx, newRequest(typeMkdir).text(path).attrs(a))
}

// Remove removes what is not a directory.
func (c *Client) Remove(ctx context.Context, path string) error {
	return c.act(ctx, newRequest(typeRemove).text(path))
}

// Rmdir removes an empty directory.
func (c *Client) Rmdir(ctx context.Context, path string) error {
	return c.act(ctx, newRequest(typeRmdir).text(path))
}

// Symlink makes a link. The order of the arguments on the wire is that of OpenSSH,
// which every server follows, and not that of the draft.
func (c *Client) Symlink(ctx context.Context, target, link string) error {
	return c.act(ctx, newRequest(typeSymlink).text(target).text(link))
}

// Link makes a hard link. It needs the extension Hardlink.
func (c *Client) Link(ctx context.Context, old, link string) error {
	return c.act(ctx, newRequest(typeExtended).text(Hardlink).text(old).text(link))
}

// Rename replaces what has the new name if the peer has the extension PosixRename,
// and fails otherwise if there is something.
func (c *Client) Rename(ctx context.Context, from, to string) error {
	if c.Has(PosixRename) {
		return c.act(ctx, newRequest(typeExtended).text(PosixRename).text(from).text(to))
	}
	return c.act(ctx, newRequest(typeRename).text(from).text(to))
}

// ReadLink returns where a link points to.
func (c *Client) ReadLink(ctx context.Context, path string) (string, error) {
	return ask(ctx, c, newRequest(typeReadlink).text(path), oneName)
}

// RealPath returns path without links and as an absolute one.
func (c *Client) RealPath(ctx context.Context, path string) (string, error) {
	return ask(ctx, c, newRequest(typeRealpath).text(path), oneName)
}

// RealPathAhead asks for a real path and does not wait: the peer answers in order, so that what
// is asked next costs no round trip more. What it returns waits for the answer.
func (c *Client) RealPathAhead(ctx context.Context, path string) func() (string, error) {
	k, err := c.send(ctx, newRequest(typeRealpath).text(path), &call{})
	return func() (string, error) {
		if err != nil {
			return "", err
		}
		f, err := c.await(ctx, k)
		if err != nil {
			return "", err
		}
		defer f.free()
		found, err := oneName(f)
		return found, c.checked(err)
	}
}

func oneName(f frame) (string, error) {
	names, err := f.names()
	if err != nil {
		return "", err
	}
	if len(names) != 1 || names[0].Name == "" || strings.ContainsRune(names[0].Name, 0) {
		return "", fmt.Errorf("%w: %d names or an impossible one", ErrProtocol, len(names))
	}
	return names[0].Name, nil
}

// List gives yield the entries of a directory but "." and "..", in the peer's order,
// until yield fails.
func (c *Client) List(ctx context.Context, path string, yield func(Name) error) error {
	h, err := ask(ctx, c, newRequest(typeOpendir).text(path), frame.handle)
	if err != nil {
		return err
	}
	defer c.Release(ctx, Handle(h))
	const ahead = 2 // requests: a listing that fits into one answer takes one round trip
	var waiting []*call
	defer func() {
		for _, k := range waiting {
			c.drop(k)
		}
	}()
	for {
		for len(waiting) < ahead {
			k, err := c.send(ctx, newRequest(typeReaddir).text(h), &call{})
			if err != nil {
				return err
			}
			waiting = append(waiting, k)
		}
		f, err := c.await(ctx, waiting[0])
		if err != nil {
			return err
		}
		waiting = waiting[1:]
		names, err := f.names()
		f.free()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.checked(err)
		}
		if len(names) == 0 {
			return c.broken("listing without an end")
		}
		if err := c.each(names, yield); err != nil {
			return err
		}
	}
}

func (c *Client) each(names []Name, yield func(Name) error) error {
	for _, n := range names {
		switch {
		case n.Name == "." || n.Name == "..":
			continue
		case n.Name == "" || strings.ContainsAny(n.Name, "/\x00"):
			return c.broken("directory with the entry %.80q", n.Name)
		}
		if err := yield(n); err != nil {
			return err
		}
	}
	return nil
}

// A Space is how full a file system is, in bytes and files.
type Space struct{ Size, Free, Available, Files, FilesFree uint64 }

// Space needs the extension StatVFS.
func (c *Client) Space(ctx context.Context, path string) (Space, error) {
	return ask(ctx, c, newRequest(typeExtended).text(StatVFS).text(path), func(f frame) (Space, error) {
		if f.kind() != typeReply {
			return Space{}, f.refusal()
		}
		p := parser{rest: f.body[minPacket:]}
		p.u64() // block size
		unit := p.u64()
		blocks, free, available := p.u64(), p.u64(), p.u64()
		s := Space{Size: blocks * unit, Free: free * unit, Available: available * unit, Files: p.u64(), FilesFree: p.u64()}
		return s, p.err()
	})
}

// Names returns the names of users and groups, in the order of the numbers and
// empty where there is none. It needs the extension NamesByID.
func (c *Client) Names(ctx context.Context, uids, gids []uint32) (users, groups []string, err error) {
	r := newRequest(typeExtended).text(NamesByID).bytes(numbers(uids)).bytes(numbers(gids))
	_, err = ask(ctx, c, r, func(f frame) (struct{}, error) {
		if f.kind() != typeReply {
			return struct{}{}, f.refusal()
		}
		p := parser{rest: f.body[minPacket:]}
		first, second := p.text(), p.text()
		if p.err() == nil {
			users, err = texts(first, len(uids))
		}
		if p.err() == nil && err == nil {
			groups, err = texts(second, len(gids))
		}
		return struct{}{}, errors.Join(p.err(), err)
	})
	return users, groups, err
}

func numbers(ids []uint32) []byte {
	b := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

func texts(s string, count int) ([]string, error) {
	p := parser{rest: []byte(s)}
	list := make([]string, 0, count)
	for range count {
		list = append(list, p.text())
	}
	return list, p.err()
}
