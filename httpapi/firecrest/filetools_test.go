package firecrest

import (
	"testing"

	"sallyport/executor"
)

func TestFailuresOfProgramsAreKnownByTheEndsOfTheirLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exit   int
		stderr string
		status int
		code   string
	}{
		{2, "tar: /x: Cannot open: No such file or directory\ntar: Error is not recoverable: exiting now\n", 404, "file_unknown"},
		{2, "tar (child): xz: Cannot exec: No such file or directory\ntar (child): Error is not recoverable: exiting now", 501, "not_supported"},
		{1, "chmod: changing permissions of '/x': Operation not permitted", 403, "file_denied"},
		{1, "mkdir: cannot create directory '/x': File exists", 400, "file_exists"},
		{127, "sh: 1: exec: file: not found", 501, "not_supported"},
		{2, "gzip: stdout: No space left on device", 507, "no_space"},
		// The name of a file decides nothing (weakness 33).
		{2, "tar: Permission denied: Unexpected EOF in archive", 500, "command_failed"},
		{1, "", 500, "command_failed"},
		{-1, "", 500, "command_failed"},
	} {
		f := toolFailure(executor.Result{ExitCode: c.exit, Stderr: []byte(c.stderr)})
		if f.status != c.status || f.code != c.code {
			t.Errorf("%d %q: %d %s, want %d %s", c.exit, c.stderr, f.status, f.code, c.status, c.code)
		}
	}
}
