package firecrest

import (
	"context"
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
		out, err := c.tool(ctx, "sha256sum", "--", p.path)
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
		out, err := c.tool(ctx, "file", "-b", "--", p.path)
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

// byTool runs the command that a body asks for.
func (c *call) byTool(command func(body *fields) ([]string, error)) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	argv, err := command(body)
	if err != nil {
		return err
	}
	return c.withTime(func(ctx context.Context) error {
		if _, err := c.tool(ctx, argv...); err != nil {
			return err
		}
		return c.noContent()
	})
}

// tarOfBody is the command that makes the archive which a body asks for.
func (c *call) tarOfBody(body *fields) ([]string, error) {
	source, target := c.place(body, "path", "sourcePath"), c.place(body, "targetPath")
	pattern, options := meant(body.text("matchPattern")), compression(body)
	if body.flag("dereference", false) {
		options = append([]string{"--dereference"}, options...)
	}
	if err := body.finish(); err != nil {
		return nil, err
	}
	archive := strings.TrimSuffix(target.path, "/")
	temporary := path.Join(path.Dir(archive), executor.TemporaryPrefix+randomName())
	// The archive may come into a folder that is packed.
	tar := append([]string{"tar", "--force-local", "--no-unquote", "--exclude=" + path.Base(temporary), "-c", "-f", temporary}, options...)
	return replacing(temporary, archive, packing(source.path, pattern, tar)), nil
}

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

// untarOfBody is the command that unpacks the archive which a body names.
func (c *call) untarOfBody(body *fields) ([]string, error) {
	source, target, options := c.place(body, "path", "sourcePath"), c.place(body, "targetPath"), compression(body)
	if err := body.finish(); err != nil {
		return nil, err
	}
	return append([]string{"tar", "--force-local", "--no-unquote", "-x", "-f", source.path, "-C", target.path}, options...), nil
}
