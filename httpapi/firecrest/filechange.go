package firecrest

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"sallyport/executor"
)

// makeDirectory is POST ops/mkdir.
func makeDirectory(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	p, parents := c.place(body, "path", "sourcePath"), body.flag("parent", false)
	if err := body.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		if err := files.Mkdir(ctx, p.path, executor.Mode{}, parents); err != nil {
			return fileFailure("mkdir: cannot create directory", p.name, err)
		}
		return c.describe(ctx, files, http.StatusCreated, p)
	})
}

// makeLink is POST ops/symlink. Other than ln(1), it makes no link inside of a directory
// that has the name of the link.
func makeLink(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	target, link := c.place(body, "path", "sourcePath"), c.place(body, "linkPath")
	if err := body.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		if err := files.Symlink(ctx, target.path, link.path); err != nil {
			return fileFailure("ln: failed to create symbolic link", link.name, err)
		}
		return c.describe(ctx, files, http.StatusCreated, link)
	})
}

// remove is DELETE ops/rm, with all that is below a directory.
func remove(c *call) error {
	query := c.query()
	p := c.place(query, "path")
	c.notWhole(query, p)
	if err := query.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		c.tree = true
		if err := files.RemoveAll(ctx, p.path); err != nil {
			return fileFailure("rm: cannot remove", p.name, err)
		}
		return c.noContent()
	})
}

var errWholeSystem = &failure{status: http.StatusForbidden, code: "path_outside", message: "A whole file system is not removed."}

// notWhole refuses to remove all of a file system, also one that lies in another.
func (c *call) notWhole(query *fields, p place) {
	if p.path == "" { // refused already
		return
	}
	below := strings.TrimSuffix(p.path, "/") + "/"
	for _, f := range c.system.FileSystems {
		if strings.HasPrefix(f.Path+"/", below) {
			query.refuse("path", "A whole file system is not removed")
			return
		}
	}
}

var (
	octalMode    = regexp.MustCompile(`^[0-7]{1,5}$`)
	symbolicMode = regexp.MustCompile(`^[ugoa]*([-+=]([rwxXst]*|[ugo])|[-+=][0-7]+)+(,[ugoa]*([-+=]([rwxXst]*|[ugo])|[-+=][0-7]+)+)*$`)
)

// changeMode is PUT ops/chmod.
func changeMode(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	p, mode := c.place(body, "path", "sourcePath"), body.required("mode")
	if mode != "" && !octalMode.MatchString(mode) && !symbolicMode.MatchString(mode) {
		body.refuse("mode", "Input should be a mode of chmod(1), such as 640 or u+x")
	}
	if err := body.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		var err error
		if octalMode.MatchString(mode) {
			err = setMode(ctx, files, p, mode)
		} else {
			var found []string
			if found, err = locate(ctx, files, "chmod: cannot access", located{p, true}); err == nil {
				_, err = c.tool(ctx, "chmod", "--", mode, found[0])
			}
		}
		if err != nil {
			return fileFailure("chmod: changing permissions of", p.name, err)
		}
		return c.describe(ctx, files, http.StatusOK, p)
	})
}

// setMode sets octal permissions. As with chmod(1) a directory keeps the bits 06000
// unless they are named, or five digits are given.
func setMode(ctx context.Context, files *executor.Files, p place, mode string) error {
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return err
	}
	const whole = 5
	if len(mode) < whole {
		info, err := files.Stat(ctx, p.path, true)
		if err != nil {
			return err
		}
		if info.IsDir() {
			bits |= uint64(info.Mode & 0o6000)
		}
	}
	return files.Chmod(ctx, p.path, uint32(bits))
}

// changeOwner is PUT ops/chown. An empty or absent owner or group stays as it is.
func changeOwner(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	p, owner, group := c.place(body, "path", "sourcePath"), body.text("owner"), body.text("group")
	if err := body.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		uid, _, err := files.IDs(ctx, owner, "")
		if errors.Is(err, executor.ErrNotFound) {
			return errNoName("chown: invalid user", owner)
		}
		if err != nil {
			return err
		}
		_, gid, err := files.IDs(ctx, "", group)
		if errors.Is(err, executor.ErrNotFound) {
			return errNoName("chown: invalid group", group)
		}
		if err != nil {
			return err
		}
		if err := files.Chown(ctx, p.path, uid, gid); err != nil {
			return fileFailure("chown: changing ownership of", p.name, err)
		}
		return c.describe(ctx, files, http.StatusOK, p)
	})
}

// errNoName is about a user or group that the node does not know.
func errNoName(what, name string) error {
	return complaint{status: http.StatusBadRequest, code: "name_unknown"}.failure(1, what+": '"+name+"'")
}
