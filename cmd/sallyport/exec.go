package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const execLong = `Run a command on a login node of SYSTEM through a Sallyport service, as the
user that your token names.

The words after "--" are a program and its arguments; no shell interprets them.
With -c a whole line is given to your login shell on the node, as ssh(1) does.
The output appears as it comes. Standard input (-i) is read to its end and sent
whole; the service bounds it (server.max_body). An interrupt ends the remote
command.

The exit code is that of the remote command; 128 plus the number of the signal if
a signal ended it; 124 if its time was over; 130 after an interrupt; 1 with a line
that begins with "sallyport:" if the service refused it or cannot be reached.`

const (
	exitTimedOut    = 124 // as timeout(1)
	exitSignal      = 128 // as sh(1)
	exitInterrupted = exitSignal + int(unix.SIGINT)
	// maxFrameBytes bounds one line of a stream.
	maxFrameBytes = 4 << 20
	// maxStdinBytes bounds what is sent; the service may allow less.
	maxStdinBytes = 64 << 20
)

type execOptions struct {
	line    string
	stdin   bool
	env     []string
	workdir string
	timeout time.Duration
}

func newExec(s streams) *cobra.Command {
	var opt execOptions
	cmd := &cobra.Command{
		Use: "exec SYSTEM [flags] -- COMMAND [ARGUMENT…]", Short: "Run a command on a login node", GroupID: "use",
		Long: execLong,
		Example: `  sallyport exec daint -- squeue --me
  sallyport exec daint -c 'du -sh ~/* | sort -h'
  sallyport exec daint -i -- wc -l < big.txt`,
	}
	client := clientFlags(cmd, s)
	f := cmd.Flags()
	f.StringVarP(&opt.line, "command", "c", "", "a line for the login shell, instead of words after --")
	f.BoolVarP(&opt.stdin, "stdin", "i", false, "send standard input to the command")
	f.StringArrayVarP(&opt.env, "env", "e", nil, "NAME=VALUE for the command's environment; may be repeated")
	f.StringVarP(&opt.workdir, "workdir", "w", "", "folder in which the command starts")
	f.DurationVarP(&opt.timeout, "timeout", "t", 0, "end the command after this time (default: the system's)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := opt.body(cmd, args)
		if err != nil {
			return err
		}
		c, err := client.connect(cmd.Context(), s)
		if err != nil {
			return err
		}
		if body.StdinBase64, err = opt.readStdin(cmd.Context(), s.in); err == nil {
			err = runExec(cmd.Context(), c, s, args[0], body)
		}
		return opt.explain(cmd.Context(), s, err)
	}
	return cmd
}

// execBody is the request of POST /v1/systems/{system}/exec.
type execBody struct {
	Command     string            `json:"command,omitempty"`
	Argv        []string          `json:"argv,omitempty"`
	StdinBase64 string            `json:"stdin_base64,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Workdir     string            `json:"workdir,omitempty"`
	Timeout     string            `json:"timeout,omitempty"`
}

// explain turns what ended a call into what the user did or can do.
func (opt *execOptions) explain(ctx context.Context, s streams, err error) error {
	p, refused := errors.AsType[*problem](err)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(s.err, "sallyport: interrupted; the remote command is ended if it was started")
		return exitError(exitInterrupted)
	case refused && p.Code == "body_too_large" && opt.stdin:
		return fmt.Errorf("standard input is more than the service takes (server.max_body): %w", err)
	}
	return err
}

// readStdin reads standard input whole. A Read cannot be interrupted, so an
// interrupt leaves it behind.
func (opt *execOptions) readStdin(ctx context.Context, in io.Reader) (string, error) {
	if !opt.stdin {
		return "", nil
	}
	type input struct {
		text []byte
		err  error
	}
	whole := make(chan input, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(in, maxStdinBytes+1))
		whole <- input{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case i := <-whole:
		if i.err != nil {
			return "", fmt.Errorf("standard input: %w", i.err)
		}
		if len(i.text) > maxStdinBytes {
			return "", fmt.Errorf("standard input has more than %d bytes", maxStdinBytes)
		}
		return base64.StdEncoding.EncodeToString(i.text), nil
	}
}

func (opt *execOptions) body(cmd *cobra.Command, args []string) (execBody, error) {
	switch {
	case len(args) == 0, args[0] == "":
		return execBody{}, usageError{errors.New("which system? see 'sallyport exec --help'")}
	case opt.line == "" && len(args) == 1:
		return execBody{}, usageError{errors.New("which command? give it after --, or with -c")}
	case opt.line != "" && len(args) > 1:
		return execBody{}, usageError{errors.New("-c and words after -- exclude each other")}
	case len(args) > 1 && cmd.ArgsLenAtDash() != 1:
		// Without it "exec daint ls -i" would run "ls" and take -i for its own.
		return execBody{}, usageError{fmt.Errorf("write -- before the command: sallyport exec %s -- %s", args[0], args[1])}
	case cmd.Flags().Changed("timeout") && opt.timeout <= 0:
		return execBody{}, usageError{fmt.Errorf("--timeout: %s is not a positive time", opt.timeout)}
	}
	body := execBody{Command: opt.line, Argv: args[1:], Workdir: opt.workdir}
	if opt.timeout > 0 {
		body.Timeout = opt.timeout.String()
	}
	for _, pair := range opt.env {
		name, value, found := strings.Cut(pair, "=")
		if !found || name == "" {
			return execBody{}, usageError{fmt.Errorf("--env: %q is not NAME=VALUE", pair)}
		}
		if body.Env == nil {
			body.Env = map[string]string{}
		}
		body.Env[name] = value
	}
	return body, nil
}

// A frame is one line of the answer's stream.
type frame struct {
	problem
	Event      string `json:"event"`
	Data       string `json:"data"`
	DataBase64 string `json:"data_base64"`
	ExitCode   *int   `json:"exit_code"`
	Signal     string `json:"signal"`
	TimedOut   bool   `json:"timed_out"`
}

func runExec(ctx context.Context, c *client, s streams, system string, body execBody) error {
	path := "/v1/systems/" + url.PathEscape(system) + "/exec"
	resp, err := c.send(ctx, http.MethodPost, path, body, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer closeBody(resp)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxFrameBytes)
	for lines.Scan() {
		var f frame
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return fmt.Errorf("the service's answer cannot be read: %w", err)
		}
		done, err := f.show(s)
		if done || err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the connection to the service broke; the command may still have run: %w", err)
	}
	return errors.New("the service ended its answer too early; the command may still have run")
}

// show acts on a frame; done means that it was the last.
func (f *frame) show(s streams) (done bool, err error) {
	switch f.Event {
	case "stdout":
		return false, f.write(s.out)
	case "stderr":
		return false, f.write(s.err)
	case "error":
		return true, &f.problem
	case "exit":
		if f.TimedOut {
			fmt.Fprintln(s.err, "sallyport: the command was ended because its time was over; see --timeout")
		}
		return true, f.exit()
	}
	return false, nil // start, heartbeat, and what later versions add
}

func (f *frame) write(w io.Writer) error {
	data := []byte(f.Data)
	if f.DataBase64 != "" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(f.DataBase64); err != nil {
			return fmt.Errorf("the service's answer cannot be read: %w", err)
		}
	}
	_, err := w.Write(data)
	return err
}

// exit turns the end of the remote command into that of this program.
func (f *frame) exit() error {
	switch {
	case f.TimedOut:
		return exitError(exitTimedOut)
	case f.Signal != "":
		return exitError(exitSignal + int(signalNumber(f.Signal)))
	case f.ExitCode == nil:
		return errors.New("the service did not say how the command ended")
	case *f.ExitCode != 0:
		return exitError(*f.ExitCode)
	}
	return nil
}

// signalNumber knows the names of RFC 4254 §6.10, which lack "SIG"; one that this
// machine does not know counts as TERM.
func signalNumber(name string) syscall.Signal {
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n
	}
	return unix.SIGTERM
}
