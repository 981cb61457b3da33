package firecrest

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"strings"

	"sallyport/executor"
)

// marked runs a program, its arguments, after it has printed a line that nobody can
// foresee: what a login script prints stands before that.
const marked = `printf '\n%s\n' "$1"; shift; exec "$@"`

// tool runs a program on the node and returns what it printed. No shell interprets its
// arguments. An end with another code than zero is an error, as clients are told.
func (c *call) tool(ctx context.Context, argv ...string) ([]byte, error) {
	mark := rand.Text()
	result, err := c.run(ctx, executor.Command{Argv: append([]string{"env", "LC_ALL=C", "sh", "-c", marked, "sh", mark}, argv...)})
	if err != nil {
		return nil, err
	}
	_, out, ok := bytes.Cut(result.Stdout, []byte("\n"+mark+"\n"))
	if result.ExitCode != 0 || !ok {
		return nil, toolFailure(result)
	}
	return out, nil
}

// toolComplaints are what programs say of themselves, beside the complaints about files.
var toolComplaints = []complaint{
	{status: http.StatusNotImplemented, code: "not_supported", text: "Cannot exec: No such file or directory"},
	{status: http.StatusForbidden, code: "file_denied", text: "Operation not permitted"},
	{status: http.StatusForbidden, code: "file_denied", text: "Read-only file system"},
	{status: http.StatusInsufficientStorage, code: "no_space", text: "Disk quota exceeded"},
	{status: http.StatusBadRequest, code: "path_invalid", text: "File name too long"},
}

// toolFailure is the end of a program that failed. Lines of its standard error end with
// the text of the C library; the name of a file, which may be anything, comes before.
func toolFailure(r executor.Result) *failure {
	f := remoteFailure(r)
	const notFound = 127 // sh: no such program
	if r.ExitCode == notFound {
		f.status, f.code = http.StatusNotImplemented, "not_supported"
		return f
	}
	lines := strings.Split(strings.TrimSpace(string(r.Stderr)), "\n")
	for _, list := range [][]complaint{toolComplaints, complaints} {
		for _, c := range list {
			for _, line := range lines {
				if strings.HasSuffix(line, ": "+c.text) {
					f.status, f.code = c.status, c.code
					return f
				}
			}
		}
	}
	return f
}
