package firecrest

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"sallyport/executor"
)

// An output is what most answers about files have.
type output[T any] struct {
	Output T `json:"output"`
}

// A statView is a file as stat(2) describes it.
type statView struct {
	Mode  uint32 `json:"mode"`
	Ino   uint64 `json:"ino"`
	Dev   uint64 `json:"dev"`
	Nlink uint64 `json:"nlink"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Size  int64  `json:"size"`
	Atime int64  `json:"atime"`
	Ctime int64  `json:"ctime"`
	Mtime int64  `json:"mtime"`
}

// statFile is GET ops/stat. SFTP does not know ino, dev, nlink and ctime; as in sshfs
// they are 0, 0, 1 and mtime then. Who needs them asks for exact=true, which takes a
// command, and ten times as long.
func statFile(c *call) error {
	query := c.query()
	p, follow, exact := c.place(query, "path"), query.flag("dereference", false), query.flag("exact", false)
	if err := query.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		stat := files.Stat
		if exact {
			stat = files.StatFull
		}
		info, err := stat(ctx, p.path, follow)
		if err != nil {
			return fileFailure("stat: cannot statx", p.name, err)
		}
		return c.answer(http.StatusOK, output[statView]{viewOf(info)})
	})
}

func viewOf(i executor.FileInfo) statView {
	v := statView{
		Mode: i.Mode, Ino: i.Inode, Dev: i.Device, Nlink: cmp.Or(i.Links, 1), UID: i.UID, GID: i.GID, Size: i.Size,
		Atime: epoch(i.Accessed), Mtime: epoch(i.Modified), Ctime: epoch(i.Changed),
	}
	v.Ctime = cmp.Or(v.Ctime, v.Mtime)
	return v
}

func epoch(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
