package executor

import (
	"context"
	"path"
	"slices"
	"sort"
	"strings"
)

// resolve implements the backend. What OpenSSH cannot follow to its last part but one it refuses
// (sftp-realpath.c).
func (b *bySFTP) resolve(ctx context.Context, paths ...string) func() ([]string, error) {
	waits := make([]func() (string, error), len(paths))
	for i, p := range paths {
		waits[i] = b.client.RealPathAhead(ctx, p)
	}
	return func() ([]string, error) {
		found := make([]string, len(paths))
		for i, wait := range waits {
			real, err := wait()
			if err = b.told(err, nil); isFileError(err) {
				real, err = b.nearest(ctx, paths[i])
			}
			if err != nil {
				return nil, err
			}
			found[i] = real
		}
		return found, nil
	}
}

// nearest follows a path as far as that goes. Where it cannot be followed, what is longer
// cannot either, so that few are tried however many parts there are.
func (b *bySFTP) nearest(ctx context.Context, name string) (string, error) {
	var ends []int // of parts
	for i := range len(name) {
		if name[i] == '/' && i > 0 && name[i-1] != '/' {
			ends = append(ends, i)
		}
	}
	real, failed := "", error(nil)
	good := sort.Search(len(ends), func(i int) bool { // the first that cannot be followed
		if failed != nil {
			return true
		}
		found, err := b.realPath(ctx, name[:ends[i]])
		if err == nil {
			real = found
			return false
		}
		if !isFileError(err) {
			failed = err
		}
		return true
	})
	if failed != nil {
		return "", failed
	}
	rest := name
	if good > 0 {
		rest = name[ends[good-1]:]
	} else if start := "/"; !strings.HasPrefix(name, start) {
		var err error
		if real, err = b.realPath(ctx, "."); err != nil {
			return "", err
		}
	}
	// Nothing says what is above a folder that is not there.
	if slices.Contains(strings.Split(rest, "/"), "..") {
		return "", &FileError{Err: ErrNotFound}
	}
	return path.Clean(real + "/" + rest), nil
}

// resolve implements the backend.
func (b *byCommand) resolve(ctx context.Context, paths ...string) func() ([]string, error) {
	argv := []string{"realpath", "-zm", "--"}
	for _, p := range paths {
		argv = append(argv, operand(p))
	}
	out, err := b.perform(ctx, nil, nil, argv...)
	found := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if err == nil && (len(found) != len(paths) || slices.ContainsFunc(found, func(p string) bool { return !path.IsAbs(p) })) {
		err = errOddOutput
	}
	return func() ([]string, error) { return found, err }
}

// OnOpened has a program read a resolved path on its standard input. The file is opened first, and
// then asked where it is, so that no link can be put in its way in between.
func OnOpened(path string, argv ...string) []string {
	return append([]string{"sh", "-c", onOpened, "sh", path}, argv...)
}

// The dot keeps line feeds at the end of a name (sh drops them from what a program prints).
// head(1) says in the words of the C library why a file cannot be opened.
const onOpened = `head -c 0 -- "$1" || exit
exec <"$1" || exit
if [ "$(readlink -- /proc/self/fd/0; echo .)" != "$1
." ]; then printf 'sallyport: %s\n' "path has changed: Permission denied" >&2; exit 1; fi
shift; exec "$@"`
