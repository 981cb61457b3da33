package executor

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func testSystem() *system {
	return &system{System: System{Name: "hpc"}.withDefaults(nil)}
}

func TestUnacceptableCommandNamesTheField(t *testing.T) {
	t.Parallel()
	many := make(map[string]string)
	for i := range MaxEnvNames + 1 {
		many["V"+strings.Repeat("_", i)] = ""
	}
	for name, test := range map[string]struct {
		cmd    Command
		fields string
	}{
		"nothing":                {Command{}, "command"},
		"line and argv":          {Command{Line: "a", Argv: []string{"a"}}, "command"},
		"blank line":             {Command{Line: " \n"}, "command"},
		"NUL in line":            {Command{Line: "a\x00b"}, "command"},
		"long line":              {Command{Line: strings.Repeat("a", MaxCommandLine+1)}, "command"},
		"long argv":              {Command{Argv: []string{"a", strings.Repeat("a", MaxCommandLine)}}, "argv"},
		"quotes make argv long":  {Command{Argv: []string{"a", strings.Repeat("'", MaxCommandLine/4)}}, "argv"},
		"NUL in argv":            {Command{Argv: []string{"a", "\x00"}}, "argv"},
		"empty program":          {Command{Argv: []string{"", "a"}}, "argv"},
		"option as program":      {Command{Argv: []string{"-c", "a"}}, "argv"},
		"env name with =":        {Command{Line: "a", Env: map[string]string{"A=B": ""}}, "env"},
		"env name with command":  {Command{Line: "a", Env: map[string]string{"A;id": ""}}, "env"},
		"env name with newline":  {Command{Line: "a", Env: map[string]string{"A\n": ""}}, "env"},
		"empty env name":         {Command{Line: "a", Env: map[string]string{"": ""}}, "env"},
		"env name with digit":    {Command{Line: "a", Env: map[string]string{"1A": ""}}, "env"},
		"NUL in env":             {Command{Line: "a", Env: map[string]string{"A": "\x00"}}, "env"},
		"long env":               {Command{Line: "a", Env: map[string]string{"A": strings.Repeat("a", MaxEnvBytes)}}, "env"},
		"many env":               {Command{Line: "a", Env: many}, "env"},
		"tilde as workdir":       {Command{Line: "a", Workdir: "~/x"}, "workdir"},
		"NUL in workdir":         {Command{Line: "a", Workdir: "/\x00"}, "workdir"},
		"long workdir":           {Command{Line: "a", Workdir: "/" + strings.Repeat("a", MaxWorkdir)}, "workdir"},
		"negative timeout":       {Command{Line: "a", Timeout: -1}, "timeout"},
		"timeout beyond maximum": {Command{Line: "a", Timeout: time.Hour + 1}, "timeout"},
		"negative limit":         {Command{Line: "a", MaxOutput: -1}, "max_output_bytes"},
		"limit beyond maximum":   {Command{Line: "a", MaxOutput: 1001}, "max_output_bytes"},
		"everything at once":     {Command{Workdir: "~", Timeout: -1, MaxOutput: -1, Env: map[string]string{"": ""}}, "command workdir env timeout max_output_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := testSystem().prepare(test.cmd, 1000)
			if !errors.Is(err, ErrInvalidCommand) {
				t.Fatalf("got %v", err)
			}
			var fields []string
			for line := range strings.Lines(err.Error()) {
				field, detail, ok := strings.Cut(line, ": ")
				if !ok || len(detail) > 200 {
					t.Errorf("complaint %.300q", line)
				}
				fields = append(fields, field)
			}
			if got := strings.Join(fields, " "); got != test.fields {
				t.Errorf("fields %q, want %q", got, test.fields)
			}
			if first, ok := errors.AsType[*CommandError](err); !ok || first.Detail == "" {
				t.Errorf("no CommandError in %v", err)
			}
		})
	}
}

func TestCommandOnTheWire(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cmd   Command
		line  string
		stdin string
	}{
		"line":             {Command{Line: "a | b; c"}, "a | b; c", ""},
		"argv":             {Command{Argv: []string{"ls", "-l", "a b"}}, "exec 'ls' '-l' 'a b'", ""},
		"workdir":          {Command{Line: "a; b", Workdir: "/x y"}, "cd -- '/x y' || exit 126\na; b", ""},
		"relative workdir": {Command{Argv: []string{"a"}, Workdir: "x"}, "cd -- './x' || exit 126\nexec 'a'", ""},
		"env": {
			Command{Line: "a", Workdir: "/", Env: map[string]string{"B": "it's", "A": "1"}, Stdin: strings.NewReader("input")},
			"eval \"$(dd bs=1 count=29 2>/dev/null);\" || exit 126\ncd -- '/' || exit 126\na",
			`{ export A='1' B='it'\''s'; }` + "input",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := testSystem().prepare(test.cmd, 1000)
			if err != nil {
				t.Fatal(err)
			}
			stdin, err := io.ReadAll(p.stdin)
			if err != nil || p.line != test.line || string(stdin) != test.stdin {
				t.Errorf("line %q and input %q (%v), want %q and %q", p.line, stdin, err, test.line, test.stdin)
			}
			if p.timeout != 5*time.Minute || p.maxOutput != 1000 {
				t.Errorf("timeout %v, output %d", p.timeout, p.maxOutput)
			}
		})
	}
}
