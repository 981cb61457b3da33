package firecrest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strings"

	"sallyport/executor"
)

// checksum is GET ops/checksum.
func checksum(c *call) error {
	query := c.query()
	p := c.place(query, "path")
	if err := query.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		info, err := files.Stat(ctx, p.path, true)
		switch {
		case err != nil:
		case info.IsDir():
			err = &executor.FileError{Err: executor.ErrIsDirectory}
		case !info.IsRegular(): // the other end of a pipe may never come
			err = &executor.FileError{Err: executor.ErrNotRegular}
		}
		if err != nil {
			return fileFailure("sha256sum:", p.name, err)
		}
		found, err := locate(ctx, files, "sha256sum:", located{p, true})
		if err != nil {
			return err
		}
		out, err := c.tool(ctx, executor.OnOpened(found[0], "sha256sum")...)
		if err != nil {
			return err
		}
		sum := sumLine.FindSubmatch(out)
		if sum == nil {
			return fmt.Errorf("sha256sum printed %.100q", out)
		}
		return c.answer(http.StatusOK, output[checksumView]{checksumView{"SHA256", string(sum[1])}})
	})
}

type checksumView struct {
	Algorithm string `json:"algorithm"`
	Checksum  string `json:"checksum"`
}

// sumLine is what sha256sum prints; the backslash says that it has escaped the name.
var sumLine = regexp.MustCompile(`^\\?([0-9a-f]{64}) `)

// fileType is GET ops/file. Other than FirecREST's, it fails for a file that is missing:
// file(1) itself does not.
func fileType(c *call) error {
	query := c.query()
	p := c.place(query, "path")
	if err := query.finish(); err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		if _, err := files.Stat(ctx, p.path, false); err != nil {
			return fileFailure("file: cannot open", p.name, err)
		}
		found, err := locate(ctx, files, "file: cannot open", located{p, false})
		if err != nil {
			return err
		}
		out, err := c.tool(ctx, "file", "-h", "-b", "--", found[0])
		if err != nil {
			return err
		}
		return c.answer(http.StatusOK, output[string]{shown(strings.TrimSpace(string(out)))})
	})
}

// compressions are the options of tar(1) for them.
var compressions = map[string][]string{"none": nil, "gzip": {"-z"}, "bzip2": {"-j"}, "xz": {"-J"}}

// compression takes one of them.
func compression(f *fields) []string {
	return compressions[f.oneOf("compression", "gzip", "none", "bzip2", "gzip", "xz")]
}

// compress is POST ops/compress.
func compress(c *call) error { return c.byTool(c.tarOfBody) }

// A work is a program that works on places. It is made once the node has said where those are.
type work struct {
	places []located
	// dereference says that the program reads what links below the first place lead to.
	dereference bool
	// whole says that all of the first place goes, so that it may be no file system.
	whole bool
	argv  func(found []string) []string
}

// byTool runs the work that a body asks for.
func (c *call) byTool(read func(body *fields) (work, error)) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	w, err := read(body)
	if err != nil {
		return err
	}
	return c.withTime(func(ctx context.Context) error {
		argv, _, err := c.prepared(ctx, "tar:", w)
		if err != nil {
			return err
		}
		if _, err := c.tool(ctx, argv...); err != nil {
			return err
		}
		return c.noContent()
	})
}

// prepared is the command of a work, and where its places are.
func (c *call) prepared(ctx context.Context, program string, w work) (argv, found []string, err error) {
	files, err := c.openFiles(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer files.Close()
	c.tree = true
	if found, err = locate(ctx, files, program, w.places...); err != nil {
		return nil, nil, err
	}
	if w.whole {
		switch whole, err := files.Whole(ctx, found[0]); {
		case err != nil:
			return nil, nil, fileFailure(program, w.places[0].name, err)
		case whole:
			return nil, nil, errWholeSystem
		}
	}
	argv = w.argv(found)
	if !w.dereference {
		return argv, found, nil
	}
	folders, err := files.Folders(ctx)
	if err != nil {
		return nil, nil, fileFailure(program, w.places[0].name, err)
	}
	argv, err = linksWithin(folders, found[0], argv)
	return argv, found, err
}

// tarOfBody is the work that makes the archive which a body asks for.
func (c *call) tarOfBody(body *fields) (work, error) {
	source, target := c.place(body, "path", "sourcePath"), c.place(body, "targetPath")
	pattern, options := meant(body.text("matchPattern")), compression(body)
	w := work{dereference: body.flag("dereference", false) && pattern == ""} // with a pattern find(1) gives regular files alone
	if w.dereference {
		options = append([]string{"--dereference"}, options...)
	}
	if err := body.finish(); err != nil {
		return w, err
	}
	slash := strings.HasSuffix(source.path, "/")
	if pattern == "" {
		source.path = path.Clean(source.path)
	}
	target.path = path.Clean(target.path) // it is replaced, and not followed
	w.places = []located{{source, false}, {target, false}}
	w.argv = func(found []string) []string {
		archive := found[1]
		temporary := path.Join(path.Dir(archive), executor.TemporaryPrefix+randomName())
		// The archive may come into a folder that is packed.
		tar := append([]string{"tar", "--force-local", "--no-unquote", "--exclude=" + path.Base(temporary), "-c", "-f", temporary}, options...)
		whole := found[0]
		if slash {
			whole += "/"
		}
		return replacing(temporary, archive, packing(whole, pattern, tar))
	}
	return w, nil
}

// linksWithin runs a command that reads what links below a path lead to, unless one of them
// leads out of the folders.
func linksWithin(folders []string, root string, argv []string) ([]string, error) {
	var within []string
	for _, folder := range folders {
		q, err := executor.Quote(strings.TrimSuffix(folder, "/"))
		if err != nil {
			return nil, err
		}
		within = append(within, q+"/*")
	}
	if len(within) == 0 {
		return nil, errors.New("no folder may be read")
	}
	each := strings.Replace(leadsOut, "WITHIN", strings.Join(within, " | "), 1)
	return append([]string{"sh", "-c", checkLinks, "sh", root, each}, argv...), nil
}

// checkLinks goes the way that the command will go, and ends at the first link that leads out,
// before it is followed. With -L, -xtype l is a link itself (find(1)).
const checkLinks = `root=$1 each=$2
shift 2
bad=$(find -L "$root" -xtype l ! -exec sh -c "$each" sh {} \; -print -quit) && [ -z "$bad" ] || exit 1
exec "$@"`

// leadsOut fails for links that lead out of the folders, in the words for [executor.ErrOutside]. The dot keeps line feeds at the end of a name.
const leadsOut = `for link; do
	real=$(realpath -m -- "$link"; echo .)
	case ${real%??}/ in
	WITHIN) ;;
	*) printf 'sallyport: a link to follow: %s: Permission denied: the path leads out of the file systems of the requested system\n' "$link" >&2; exit 1 ;;
	esac
done`

// packing completes a command of tar with what it packs: the source under its own name,
// or those files in it whose path matches a regular expression of find(1), which sees
// "./name/…". A slash after the source leaves its name away.
func packing(source, pattern string, tar []string) []string {
	whole := path.Clean(source)
	dir, base := path.Dir(whole), path.Base(whole)
	if pattern == "" {
		return append(tar, "-C", dir, "--", base)
	}
	start := "./" + base
	if strings.HasSuffix(source, "/") {
		dir, start = whole, "."
	}
	return append([]string{"sh", "-c", packMatching, "sh", dir, start, pattern}, append(tar, "--null", "--files-from=-")...)
}

// packMatching gives what find(1) finds to a command. A pipeline ends as its last
// command does, so that find tells of its failure through another descriptor.
const packMatching = `cd -- "$1" || exit
failed=$( { { find "$2" -type f -regex "$3" -print0 || echo find >&3; } | { shift 3; "$@" >&2; }; } 3>&1 )
code=$?
if [ "$code" -eq 0 ] && [ -n "$failed" ]; then code=1; fi
exit "$code"`

// replacing has a command make a file under a temporary name, which takes its own when
// it is whole. It is there before the command begins, since tar takes it amiss when a
// folder changes while it is read.
func replacing(temporary, target string, argv []string) []string {
	return append([]string{"sh", "-c", replace, "sh", temporary, target}, argv...)
}

const replace = `temporary=$1 target=$2
shift 2
trap 'rm -f -- "$temporary"' EXIT
trap : HUP INT TERM
if [ -d "$target" ]; then printf 'tar: %s: Is a directory\n' "$target" >&2; exit 1; fi
touch -- "$temporary" && "$@" && mv -fT -- "$temporary" "$target"`

// extract is POST ops/extract. The folder must be there.
func extract(c *call) error { return c.byTool(c.untarOfBody) }

// untarOfBody is the work that unpacks the archive which a body names.
func (c *call) untarOfBody(body *fields) (work, error) {
	source, target, options := c.place(body, "path", "sourcePath"), c.place(body, "targetPath"), compression(body)
	if err := body.finish(); err != nil {
		return work{}, err
	}
	return work{places: []located{{source, true}, {target, true}}, argv: func(found []string) []string {
		temporary := path.Join(found[1], executor.TemporaryPrefix+randomName())
		tar := executor.OnOpened(found[0], append([]string{"tar", "--force-local", "--no-unquote", "-x", "-f", "-", "-C", temporary}, options...)...)
		return append([]string{"sh", "-c", unpack, "sh", temporary, found[1]}, tar...)
	}}, nil
}

// unpack has a command fill a new folder, where no link waits that would lead its files elsewhere:
// tar(1) makes the links of an archive last, and follows those that are there before. What came is
// then joined with the target. There cp(1) replaces a link and does not follow it, and refuses to
// put a folder in the place of one. Where the file system has hard links no content is copied.
const unpack = `temporary=$1 target=$2
shift 2
[ -d "$target" ] || { printf 'tar: %s: Cannot open: No such file or directory\n' "$target" >&2; exit 2; }
mkdir -m 700 -- "$temporary" || exit
trap 'find "$temporary" -type d ! -perm -700 -exec chmod u+rwx {} + ; rm -rf -- "$temporary"' EXIT
trap : HUP INT TERM
"$@" || exit
join() { find "$temporary" -mindepth 1 -maxdepth 1 -exec cp -dR --preserve=all --remove-destination "$@" -t "$target" -- {} + ; }
join -l 2>/dev/null || join --reflink=auto`
