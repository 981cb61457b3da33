package scheduler

import (
	"context"
	"path"
	"regexp"
	"strings"
	"time"

	"sallyport/executor"
)

// PBS is OpenPBS or PBS Professional, by the commands that its users have. None was
// at hand: what reads their output is tested with output that others recorded.
type PBS struct{}

// pbsCommand is a PBS command that prints times in UTC, without a zone.
func pbsCommand(argv ...string) executor.Command {
	return executor.Command{Argv: append([]string{"env", "LC_ALL=C", "TZ=UTC"}, argv...)}
}

var pbsSubmitted = regexp.MustCompile(`(?m)^([0-9]+(?:\[\])?)(?:\.\S+)?$`)

// Submit implements the submission of a job, and returns its id without the name of
// the server. As with Slurm, the environment of the job is that of its submission.
// PBS knows neither constraints nor a file for standard input.
func (PBS) Submit(ctx context.Context, run Runner, s Submission) (string, error) {
	argv := []string{"qsub", "-V"}
	queue := s.Partition
	if s.Reservation != "" { // a reservation is a queue of its own
		queue = s.Reservation
	}
	for _, o := range []struct{ flag, value string }{
		{"-N", s.Name}, {"-q", queue}, {"-P", s.Account}, {"-e", s.StandardError}, {"-o", s.StandardOutput},
	} {
		if o.value != "" {
			argv = append(argv, o.flag, o.value)
		}
	}
	cmd := withEnv(executor.Command{Argv: argv, Workdir: s.WorkingDirectory}, s.Env)
	if s.ScriptPath != "" {
		script := s.ScriptPath
		if !path.IsAbs(script) {
			script = "./" + script // never an option
		}
		cmd.Argv = append(cmd.Argv, script)
	} else {
		cmd.Stdin = strings.NewReader(s.Script)
	}
	result, err := run(ctx, cmd)
	if err != nil {
		return "", err
	}
	id := pbsSubmitted.FindSubmatch(result.Stdout)
	switch {
	case result.ExitCode != 0 && strings.Contains(string(result.Stderr), "would exceed"):
		return "", failed(result, Limited)
	case result.ExitCode != 0 || id == nil:
		return "", failed(result, Other)
	}
	return string(id[1]), nil
}

// Cancel ends a job.
func (PBS) Cancel(ctx context.Context, run Runner, id string) error {
	result, err := run(ctx, pbsCommand("qdel", id))
	if err != nil {
		return err
	}
	if result.ExitCode != 0 {
		return failed(result, pbsReason(result))
	}
	return nil
}

// Attach is what PBS does not have.
func (PBS) Attach(context.Context, Runner, string, string) error {
	return &Error{Reason: NotThere, ExitCode: 1, Stderr: "PBS cannot attach a command to a job"}
}

// Accounts says that nobody knows: PBS does not tell users their projects.
func (PBS) Accounts(context.Context, Runner, string) ([]Account, error) { return nil, nil }

// pbsReason reads PBS's errors (pbs_error.h).
func pbsReason(r executor.Result) Reason {
	stderr := string(r.Stderr)
	for _, known := range []struct {
		phrase string
		reason Reason
	}{
		{"Unknown Job Id", NoJob},
		{"Job has finished", Finished},
		{"Unauthorized Request", Denied},
	} {
		if strings.Contains(stderr, known.phrase) {
			return known.reason
		}
	}
	return Other
}

// pbsTime reads what ctime(3) prints, in UTC.
func pbsTime(s string) *int64 {
	t, err := time.Parse("Mon Jan _2 15:04:05 2006", strings.TrimSpace(s))
	if err != nil {
		return nil
	}
	seconds := t.Unix()
	return &seconds
}
