package executor

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"sallyport/executor/warm"
)

// Limits of a Command, in bytes unless said otherwise.
const (
	// MaxCommandLine bounds the line that is sent: Line, or the quoted Argv, with
	// Workdir. Linux takes 128 KiB in one argument (MAX_ARG_STRLEN, execve(2)).
	MaxCommandLine = 64 << 10
	// MaxEnvBytes bounds the names and values of Env together.
	MaxEnvBytes = 64 << 10
	// MaxEnvNames is how many variables Env can have.
	MaxEnvNames = 256
	// MaxWorkdir is the longest Workdir (PATH_MAX).
	MaxWorkdir = 4095
)

// A CommandError says what is wrong with a Command. Its text is safe for clients.
type CommandError struct {
	// Field is the field's name in the API: command, argv, env, workdir, timeout,
	// max_output_bytes.
	Field string
	// Detail says what is wrong with it.
	Detail string
}

func (e *CommandError) Error() string { return e.Field + ": " + e.Detail }

// Unwrap makes it ErrInvalidCommand.
func (e *CommandError) Unwrap() error { return ErrInvalidCommand }

func complain(field, format string, args ...any) error {
	return &CommandError{Field: field, Detail: fmt.Sprintf(format, args...)}
}

// prepared is a Command that was checked, as it goes over the wire.
type prepared struct {
	// text is the command itself: Line, or Argv quoted.
	text string
	// line is the exec request, shared what a warm session starts instead.
	line   string
	shared warm.Command
	// stdin is what the command line reads: the environment, then the input.
	stdin io.Reader
	// input is the part of stdin that the caller gave; nil if there was none.
	input     *input
	workdir   string
	env       map[string]string
	timeout   time.Duration
	maxOutput int64
}

// prepare checks a command. Its errors are CommandErrors, all of them at once.
func (s *system) prepare(c Command, maxOutput int64) (prepared, error) {
	p := prepared{workdir: c.Workdir, env: maps.Clone(c.Env), timeout: c.Timeout, maxOutput: c.MaxOutput}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	p.text, err = commandText(c)
	note(err)
	directory, err := changeDirectory(c.Workdir)
	note(err)
	assignments, err := environment(c.Env)
	note(err)
	switch {
	case c.Timeout < 0:
		note(complain("timeout", "is negative"))
	case c.Timeout > s.MaxTimeout:
		note(complain("timeout", "is more than the system's maximum of %v", s.MaxTimeout))
	case c.Timeout == 0:
		p.timeout = s.DefaultTimeout
	}
	switch {
	case c.MaxOutput < 0:
		note(complain("max_output_bytes", "is negative"))
	case c.MaxOutput > maxOutput:
		note(complain("max_output_bytes", "is more than the maximum of %d", maxOutput))
	case c.MaxOutput == 0:
		p.maxOutput = maxOutput
	}
	if len(errs) > 0 {
		return prepared{}, errors.Join(errs...)
	}
	p.stdin = strings.NewReader(assignments)
	if c.Stdin != nil {
		p.input = newInput(c.Stdin)
		p.stdin = io.MultiReader(p.stdin, p.input)
	}
	p.line = readEnvironment(len(assignments)) + directory + p.text
	p.shared = shared(c, directory)
	if len(p.line) > MaxCommandLine {
		return prepared{}, complain(commandField(c), "has %d bytes with quotes and workdir, at most %d are possible", len(p.line), MaxCommandLine)
	}
	return p, nil
}

// shared is a command as a warm session starts it. A line is given to the login shell
// with its directory, as in a session of its own; a program needs no shell.
func shared(c Command, directory string) warm.Command {
	w := warm.Command{Argv: c.Argv, Input: c.Stdin != nil}
	if c.Line != "" {
		w.Line = directory + c.Line
	} else {
		w.Directory = c.Workdir
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		w.Env = append(w.Env, name+"="+c.Env[name])
	}
	return w
}

func commandField(c Command) string {
	if c.Line != "" {
		return "command"
	}
	return "argv"
}

// commandText is the command as one line for a shell.
func commandText(c Command) (string, error) {
	switch {
	case c.Line != "" && len(c.Argv) > 0:
		return "", complain("command", "and argv exclude each other")
	case c.Line == "" && len(c.Argv) == 0:
		return "", complain("command", "or argv is needed")
	case c.Line != "":
		if strings.ContainsRune(c.Line, 0) {
			return "", complain("command", "holds a NUL byte")
		}
		if strings.TrimSpace(c.Line) == "" {
			return "", complain("command", "is blank")
		}
		return c.Line, nil
	}
	// exec takes a program and nothing else: no builtin, function or alias of the
	// shell. It would take a first word with a dash for an option of its own.
	if c.Argv[0] == "" || c.Argv[0][0] == '-' {
		return "", complain("argv", "begins with %.40q, which is no program", c.Argv[0])
	}
	words := make([]string, 1, len(c.Argv)+1)
	words[0] = "exec"
	for i, argument := range c.Argv {
		word, err := Quote(argument)
		if err != nil {
			return "", complain("argv", "argument %d holds a NUL byte", i)
		}
		words = append(words, word)
	}
	return strings.Join(words, " "), nil
}

// changeDirectory is a line that enters dir or ends the shell with status 126. It
// stands on a line of its own, because "&&" would bind only the first part of a
// command such as "a; b".
func changeDirectory(dir string) (string, error) {
	switch {
	case dir == "":
		return "", nil
	case len(dir) > MaxWorkdir:
		return "", complain("workdir", "has %d bytes, at most %d are possible", len(dir), MaxWorkdir)
	case dir[0] == '~':
		return "", complain("workdir", "begins with ~, which no shell expands here: a relative path begins at the home directory")
	case !path.IsAbs(dir):
		dir = "./" + dir // neither "-" nor CDPATH then has a meaning to cd
	}
	quoted, err := Quote(dir)
	if err != nil {
		return "", complain("workdir", "holds a NUL byte")
	}
	return "cd -- " + quoted + " || exit 126\n", nil
}

var envName = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]*\z`)

// environment is the shell text that sets env. It goes through standard input,
// because every user of a node can read the command lines of all (/proc,
// hidepid=0), whereas /proc/PID/environ is private. The braces make every part of
// the text that ends too early a syntax error, so that a command never runs with
// half of its environment.
func environment(env map[string]string) (string, error) {
	if len(env) == 0 {
		return "", nil
	}
	if len(env) > MaxEnvNames {
		return "", complain("env", "has %d variables, at most %d are possible", len(env), MaxEnvNames)
	}
	var text strings.Builder
	text.WriteString("{ export")
	size := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !envName.MatchString(name) {
			return "", complain("env", "name %.60q must be letters, digits and '_', and begin with none of the digits", name)
		}
		value, err := Quote(env[name])
		if err != nil {
			return "", complain("env", "value of %.60q holds a NUL byte", name)
		}
		size += len(name) + len(env[name])
		text.WriteString(" " + name + "=" + value)
	}
	if size > MaxEnvBytes {
		return "", complain("env", "has %d bytes, at most %d are possible", size, MaxEnvBytes)
	}
	text.WriteString("; }")
	return text.String(), nil
}

// readEnvironment is a line that takes exactly n bytes from standard input and
// evaluates them; the rest of the input is the command's. With a block size of 1
// dd cannot read ahead, on any system. The semicolon makes it an error if nothing
// came at all.
func readEnvironment(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("eval \"$(dd bs=1 count=%d 2>/dev/null);\" || exit 126\n", n)
}
