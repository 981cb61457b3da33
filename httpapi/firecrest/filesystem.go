package firecrest

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"sallyport/executor"
)

// filesystemOperations are the calls under /filesystem.
func filesystemOperations() []operation {
	const ops = "/filesystem/{system}/ops/"
	return []operation{
		{method: http.MethodGet, path: ops + "ls", name: "filesystem.ls", serve: listFiles},
		{method: http.MethodGet, path: ops + "stat", name: "filesystem.stat", serve: statFile},
		{method: http.MethodGet, path: ops + "head", name: "filesystem.head", serve: headFile},
		{method: http.MethodGet, path: ops + "tail", name: "filesystem.tail", serve: tailFile},
		{method: http.MethodGet, path: ops + "view", name: "filesystem.view", serve: viewFile},
		{method: http.MethodGet, path: ops + "download", name: "filesystem.download", serve: downloadFile},
		{method: http.MethodPost, path: ops + "upload", name: "filesystem.upload", serve: uploadFile},
		{method: http.MethodPut, path: ops + "chmod", name: "filesystem.chmod", serve: changeMode},
		{method: http.MethodPut, path: ops + "chown", name: "filesystem.chown", needs: needsCommand, serve: changeOwner},
		{method: http.MethodPost, path: ops + "mkdir", name: "filesystem.mkdir", serve: makeDirectory},
		{method: http.MethodPost, path: ops + "symlink", name: "filesystem.symlink", serve: makeLink},
		{method: http.MethodDelete, path: ops + "rm", name: "filesystem.rm", serve: remove},
		{method: http.MethodGet, path: ops + "checksum", name: "filesystem.checksum", needs: needsCommand, serve: checksum},
		{method: http.MethodGet, path: ops + "file", name: "filesystem.file", needs: needsCommand, serve: fileType},
		{method: http.MethodPost, path: ops + "compress", name: "filesystem.compress", needs: needsCommand, serve: compress},
		{method: http.MethodPost, path: ops + "extract", name: "filesystem.extract", needs: needsCommand, serve: extract},
	}
}

// A place is a path on the system that the configuration lets file operations touch.
type place struct {
	// name is the path as the client wrote it: answers repeat that.
	name string
	// path is what is used. It has no "..", so that nothing is decided about one file
	// and done with another; a slash at the end stays, and follows a link.
	path string
}

// place takes a path, and refuses one that is not below a file system of the
// configuration. Where links lead the node says, when its files are looked at.
func (c *call) place(f *fields, names ...string) place {
	text := f.required(names...)
	if text == "" {
		return place{}
	}
	p := place{name: text, path: meant(text)}
	if !path.IsAbs(p.path) {
		f.refuse(names[0], "The provided path (%s) is not an absolute path.", text)
		return p
	}
	slash := strings.HasSuffix(p.path, "/")
	p.path = path.Clean(p.path)
	if !c.system.allows(p.path) {
		f.refuse(names[0], "The provided path (%s) does not match any of the defined filesystem paths for the requested system (%s).",
			text, strings.ToLower(c.system.Name))
	}
	if slash && p.path != "/" {
		p.path += "/"
	}
	return p
}

// allows says whether a clean path is one of the file systems or below one.
func (s *system) allows(clean string) bool {
	for _, f := range s.FileSystems {
		if clean == f.Path || strings.HasPrefix(clean, strings.TrimSuffix(f.Path, "/")+"/") {
			return true
		}
	}
	return false
}

// openFiles opens the caller's files, within the file systems of the system. Close them.
func (c *call) openFiles(ctx context.Context) (*executor.Files, error) {
	began := time.Now()
	files, err := c.handler.cfg.Commands.Files(ctx, c.caller, c.system.Name)
	switch {
	case errors.Is(err, executor.ErrUnavailable), errors.Is(err, executor.ErrHostKey):
		c.system.health.note("ssh", began, "Unable to establish SSH connection.")
	case err == nil:
		c.system.health.note("ssh", began, "")
	}
	if err != nil {
		return nil, err
	}
	return files.Within(c.fence()), nil //nolint:contextcheck // what is waited for is known of the request
}

// A located is a place that a program works on.
type located struct {
	place
	// follow says that the program follows a link at the end of the path.
	follow bool
}

// locate has the node say where places are, before a program works on them. They are what it
// names then.
func locate(ctx context.Context, files *executor.Files, program string, places ...located) ([]string, error) {
	wanted := make([]executor.Place, len(places))
	for i, p := range places {
		wanted[i] = executor.Place{Path: p.path, Follow: p.follow}
	}
	found, err := files.Locate(ctx, wanted...)
	return found, fileFailure(program, places[0].name, err)
}

// withTime has act work for as long as a command may take.
func (c *call) withTime(act func(ctx context.Context) error) error {
	info, err := c.handler.cfg.Commands.System(c.caller, c.system.Name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), info.DefaultTimeout)
	defer cancel()
	return act(ctx)
}

// withFiles has act work with the caller's files, for as long as a command may take.
func (c *call) withFiles(act func(ctx context.Context, files *executor.Files) error) error {
	return c.withTime(func(ctx context.Context) error {
		files, err := c.openFiles(ctx)
		if err != nil {
			return err
		}
		defer files.Close()
		return act(ctx, files)
	})
}
