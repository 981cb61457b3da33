package executor

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Fence keeps file operations within folders of the node. Paths are resolved there, with
// every link on the way, and compared with the folders, which are resolved as well. What
// reads is refused before anything is given away, what changes before it is begun, and
// then works on the resolved path.
//
// Caveats. The node looks a path up again when it acts. Whoever may write to a folder on
// the way can put a link there in between; see docs/threat-model.md. Who can replace one
// of the folders themselves, or a folder above one, moves the fence.
type Fence struct {
	// Folders are absolute.
	Folders []string
	// Allow, if set, is asked about the paths of each operation. Its error is returned as it
	// is.
	Allow func(ctx context.Context, found []Found) error
}

// A Found is where a path leads.
type Found struct {
	// Path is without links.
	Path string
	// Names are what it is called below those folders that are links themselves.
	Names []string
}

// Within returns the same files, kept within a fence. Either may be closed.
func (f *Files) Within(fence Fence) *Files {
	fenced := *f
	fenced.fence, fenced.resolved = &fence, new(resolvedFolders)
	if f.channel != nil {
		fenced.resolved = &f.channel.folders
	}
	return &fenced
}

// Aside returns the same files, within the same folders, for paths that the caller has not
// named: Allow is not asked about them.
func (f *Files) Aside() *Files {
	if f.fence == nil {
		return f
	}
	return f.Within(Fence{Folders: f.fence.Folders})
}

// Unfenced returns the same files without a fence, for what is read on nobody's behalf.
func (f *Files) Unfenced() *Files {
	free := *f
	free.fence = nil
	return &free
}

// A Place is a path as somebody names it. With Follow a link at its end is followed.
type Place struct {
	Path   string
	Follow bool
}

// Locate resolves paths that another program is to work on, and asks about them together.
// The last parts of a path need not exist.
func (f *Files) Locate(ctx context.Context, places ...Place) ([]string, error) {
	var found []string
	err := f.look(ctx, "realpath", places[0].Path, func() (err error) {
		for _, p := range places[1:] {
			if err := checkPath("realpath", p.Path); err != nil {
				return err
			}
		}
		found, err = f.find(ctx, places...)()
		return err
	})
	return found, err
}

// Folders returns the folders of the fence as the node has them.
func (f *Files) Folders(ctx context.Context) ([]string, error) {
	var folders []string
	err := f.look(ctx, "realpath", "/", func() (err error) {
		folders, err = f.folders(ctx)
		return err
	})
	return folders, err
}

// Whole says whether a resolved path is one of the folders, or has one below it.
func (f *Files) Whole(ctx context.Context, real string) (bool, error) {
	if f.fence == nil {
		return false, nil
	}
	folders, err := f.folders(ctx)
	return slices.ContainsFunc(folders, func(folder string) bool { return covers(real, folder) }), err
}

// A locator says where a path leads once that is known and allowed.
type locator func() (string, error)

// ahead begins to resolve a path, so that what only looks at it can be asked for in the
// same round trip. The answer to that must not be given away before the locator was called.
func (f *Files) ahead(ctx context.Context, name string, follow bool) locator {
	wait := f.find(ctx, Place{name, follow})
	return func() (string, error) {
		found, err := wait()
		if err != nil {
			return "", err
		}
		return found[0], nil
	}
}

// locate resolves a path that is about to be changed.
func (f *Files) locate(ctx context.Context, name string, follow bool) (string, error) {
	return f.ahead(ctx, name, follow)()
}

// find begins to resolve places; what it returns asks about them.
func (f *Files) find(ctx context.Context, places ...Place) func() ([]string, error) {
	found, bases := make([]string, len(places)), make([]string, len(places))
	for i, p := range places {
		found[i] = p.Path
		if !p.Follow {
			found[i], bases[i] = splitLast(p.Path)
		}
	}
	if f.fence == nil {
		return func() ([]string, error) { return pathsOf(places), nil }
	}
	var folders []string
	if folders = f.known(); folders == nil {
		found = append(found, f.fence.Folders...)
	}
	wait := f.via.resolve(ctx, found...)
	return func() ([]string, error) {
		found, err := wait()
		if err != nil {
			return nil, err
		}
		if folders == nil {
			folders = found[len(places):]
			f.learn(folders)
		}
		found = found[:len(places)]
		for i, base := range bases {
			if base != "" {
				found[i] = join(found[i], base)
			}
			if !slices.ContainsFunc(folders, func(folder string) bool { return covers(folder, found[i]) }) {
				return nil, &FileError{Err: ErrOutside}
			}
		}
		if f.fence.Allow != nil {
			err = yieldError(f.fence.Allow(ctx, named(found, f.fence.Folders, folders)))
		}
		return found, err
	}
}

// named adds what paths are called below the folders as they are configured.
func named(paths, configured, folders []string) []Found {
	found := make([]Found, len(paths))
	for i, p := range paths {
		found[i].Path = p
		for j, folder := range folders {
			if configured[j] != folder && covers(folder, p) {
				found[i].Names = append(found[i].Names, strings.TrimSuffix(configured[j]+"/"+strings.TrimPrefix(p[len(strings.TrimSuffix(folder, "/")):], "/"), "/"))
			}
		}
	}
	return found
}

func pathsOf(places []Place) (paths []string) {
	for _, p := range places {
		paths = append(paths, p.Path)
	}
	return paths
}

// splitLast parts a path where its last part is not to be followed. What ends in a slash or
// in dots is followed by every system call.
func splitLast(name string) (dir, base string) {
	switch base = name[strings.LastIndexByte(name, '/')+1:]; base {
	case "", ".", "..":
		return name, ""
	}
	return parent(name), base
}

// covers says whether a clean path is a folder or lies below it.
func covers(folder, name string) bool {
	return name == folder || strings.HasPrefix(name, strings.TrimSuffix(folder, "/")+"/")
}

// inside says whether a listing may tell what a link in it points to. The paths that Allow
// is asked about are those that the caller names, so that others are not told of.
func (f *Files) inside(real, listed string) bool {
	if f.fence == nil || covers(listed, real) {
		return true
	}
	return f.fence.Allow == nil && slices.ContainsFunc(f.known(), func(folder string) bool { return covers(folder, real) })
}

// foldersKept is how long the node's answer about the folders is believed.
const foldersKept = time.Minute

// resolvedFolders are the folders of a fence as the node has them. They belong to one channel, or
// one request, and so to one caller: what answers is a process of the caller's, who could have it say anything.
type resolvedFolders struct {
	mu      sync.Mutex // guards what follows
	of      []string   // the folders as they are configured
	folders []string
	until   time.Time
}

// known returns the folders as they were resolved a moment ago; nil if they are not known.
func (f *Files) known() []string {
	r := f.resolved
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.of, f.fence.Folders) || !time.Now().Before(r.until) {
		return nil
	}
	return r.folders
}

func (f *Files) learn(folders []string) {
	r := f.resolved
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of, r.folders, r.until = f.fence.Folders, folders, time.Now().Add(foldersKept)
}

func (f *Files) folders(ctx context.Context) ([]string, error) {
	if folders := f.known(); folders != nil {
		return folders, nil
	}
	return f.via.resolve(ctx, f.fence.Folders...)()
}
