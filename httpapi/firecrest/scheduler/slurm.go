package scheduler

import (
	"context"
	"maps"
	"regexp"
	"strings"

	"sallyport/executor"
)

// Slurm is the Slurm Workload Manager, by the commands that its users have. They
// are tested with 22.05; the ones used here print the same in 24.11.
type Slurm struct{}

// command is a Slurm command in English with times in seconds.
func command(argv ...string) executor.Command {
	return executor.Command{Argv: append([]string{"env", "LC_ALL=C", "SLURM_TIME_FORMAT=%s"}, argv...)}
}

// option appends "--name=value" unless the value is empty.
func option(argv []string, name, value string) []string {
	if value == "" {
		return argv
	}
	return append(argv, "--"+name+"="+value)
}

var (
	submitted = regexp.MustCompile(`Submitted batch job ([0-9]+)`)
	limited   = regexp.MustCompile(`(QOS|Assoc)(Max|Min)\w*Limit`)
)

// withPath starts a program as it is found now, with another PATH for the job.
const withPath = `p=$(command -v "$1") || exit 127; shift; PATH=$SALLYPORT_JOB_PATH; export PATH; unset SALLYPORT_JOB_PATH; exec "$p" "$@"`

// withEnv gives a command that submits a job the environment that the job is to
// have. Unlike an argument, that is not for other users to read, and it takes commas
// and newlines.
func withEnv(cmd executor.Command, env map[string]string) executor.Command {
	cmd.Env = env
	if value, ok := env["PATH"]; ok {
		cmd.Env = maps.Clone(env)
		delete(cmd.Env, "PATH")
		cmd.Env["SALLYPORT_JOB_PATH"] = value
		cmd.Argv = append([]string{"/bin/sh", "-c", withPath, "submit"}, cmd.Argv...)
	}
	return cmd
}

// Submit implements the submission of a job, and returns its id.
//
// The environment of a job is that of its submission (--export=ALL).
func (Slurm) Submit(ctx context.Context, run Runner, s Submission) (string, error) {
	argv := []string{"sbatch", "--export=ALL"}
	for _, o := range []struct{ name, value string }{
		{"chdir", s.WorkingDirectory},
		{"partition", s.Partition},
		{"reservation", s.Reservation},
		{"account", s.Account},
		{"job-name", s.Name},
		{"error", s.StandardError},
		{"output", s.StandardOutput},
		{"input", s.StandardInput},
		{"constraint", s.Constraints},
	} {
		argv = option(argv, o.name, o.value)
	}
	cmd := withEnv(executor.Command{Argv: argv}, s.Env)
	if s.ScriptPath != "" {
		cmd.Argv = append(cmd.Argv, "--", s.ScriptPath)
	} else {
		cmd.Stdin = strings.NewReader(s.Script)
	}
	result, err := run(ctx, cmd)
	if err != nil {
		return "", err
	}
	id := submitted.FindSubmatch(result.Stdout)
	switch {
	case result.ExitCode != 0 && limited.Match(result.Stderr):
		return "", failed(result, Limited)
	case result.ExitCode != 0 || id == nil:
		return "", failed(result, Other)
	}
	return string(id[1]), nil
}

// Cancel ends a job, a part of one, or a step.
func (Slurm) Cancel(ctx context.Context, run Runner, id string) error {
	result, err := run(ctx, command("scancel", "--verbose", id))
	if err != nil {
		return err
	}
	// scancel exits with 0 if the controller refused.
	if result.ExitCode != 0 || strings.Contains(string(result.Stderr), "error:") {
		return failed(result, reasonOf(result))
	}
	return nil
}

// Attach runs a command, with a shell of its own, on the nodes of a job.
func (Slurm) Attach(ctx context.Context, run Runner, id, line string) error {
	result, err := run(ctx, command("srun", "--overlap", "--jobid="+id, "--", "/bin/sh", "-c", line))
	if err != nil {
		return err
	}
	if result.ExitCode != 0 {
		return failed(result, reasonOf(result))
	}
	return nil
}

// reasonOf reads what Slurm says in English (slurm_strerror).
func reasonOf(r executor.Result) Reason {
	stderr := string(r.Stderr)
	for _, known := range []struct {
		phrase string
		reason Reason
	}{
		{"Invalid job id", NoJob},
		{"Job/step already completing or completed", Finished},
		{" has expired", Finished}, // srun
		{"Access/permission denied", Denied},
	} {
		if strings.Contains(stderr, known.phrase) {
			return known.reason
		}
	}
	return Other
}
