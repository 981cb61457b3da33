package firecrest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest/scheduler"
	"sallyport/policy"
)

// folders are the paths of the file systems.
func (s *system) folders() (paths []string) {
	for _, f := range s.FileSystems {
		paths = append(paths, f.Path)
	}
	return paths
}

// fence keeps the call's files within the file systems, and has the policy asked about
// their paths if its decision depends on those.
func (c *call) fence() executor.Fence {
	f := executor.Fence{Folders: c.system.folders()}
	if httpapi.Waiting(c.r.Context()) {
		f.Allow = c.tell
	}
	return f
}

// tell tells the policy where paths lead, and of the job that is to be submitted. It asks about
// no path twice.
func (c *call) tell(ctx context.Context, found []executor.Found) error {
	c.mu.Lock()
	known := c.told && !slices.ContainsFunc(found, func(f executor.Found) bool { return !slices.Contains(c.allowed, f.Path) })
	act := policy.Act{Tree: c.tree, Job: c.submits}
	c.mu.Unlock()
	if known {
		return nil
	}
	for _, f := range found {
		act.Paths = append(act.Paths, policy.Path{Real: f.Path, Names: f.Names})
	}
	if err := httpapi.Tell(ctx, act); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	for _, f := range found {
		c.allowed = append(c.allowed, f.Path)
	}
	return nil
}

// errUntold is a mistake of this package: nothing may run before the policy has decided.
var errUntold = errors.New("a command was about to run before the policy was told of paths and job")

// decided says that the policy has nothing to be told of any more.
func (c *call) decided() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if httpapi.Waiting(c.r.Context()) && !c.told {
		return errUntold
	}
	return nil
}

// jobOf is what a policy sees of a submission.
func (c *call) jobOf(s scheduler.Submission) policy.Job {
	j := policy.Job{
		Name: s.Name, Account: s.Account, Partition: s.Partition, Reservation: s.Reservation, Constraints: s.Constraints,
		WorkingDirectory: s.WorkingDirectory, StandardInput: s.StandardInput, StandardOutput: s.StandardOutput, StandardError: s.StandardError,
		ScriptPath: s.ScriptPath, Environment: slices.Sorted(maps.Keys(s.Env)),
	}
	if s.ScriptPath == "" {
		sum := sha256.Sum256([]byte(s.Script))
		j.ScriptSHA256, j.ScriptBytes = hex.EncodeToString(sum[:]), int64(len(s.Script))
	}
	// An option of sbatch(1) or qsub(1) overrules the script's own lines and the environment. What
	// is no option is theirs to say, and of a heterogeneous job all but the first part.
	several := c.system.Scheduler == "slurm" && (s.ScriptPath != "" || heterogeneous(s.Script))
	for name, value := range map[string]string{
		"name": s.Name, "account": s.Account, "partition": s.Partition, "reservation": s.Reservation, "constraints": s.Constraints,
		"standard_input": s.StandardInput, "standard_output": s.StandardOutput, "standard_error": s.StandardError,
	} {
		if value == "" || several {
			j.Open = append(j.Open, name)
		}
	}
	slices.Sort(j.Open)
	return j
}

// heterogeneous says whether a script may have parts with options of their own (sbatch(1), "hetjob";
// "packjob" before 20.02).
func heterogeneous(script string) bool {
	script = strings.ToLower(script)
	return strings.Contains(script, "hetjob") || strings.Contains(script, "packjob")
}

// mayUse asks whether a job may be submitted: its paths, as far as the request names them, lie within
// the file systems, and the policy allows them and it.
func (c *call) mayUse(s scheduler.Submission) error {
	c.submits = c.jobOf(s)
	if len(c.system.FileSystems) == 0 {
		return c.tell(c.r.Context(), nil)
	}
	places, err := c.placesOf(s)
	if err != nil {
		return err
	}
	return c.withFiles(func(ctx context.Context, files *executor.Files) error {
		_, err := locate(ctx, files, "sbatch:", places...)
		return err
	})
}

// placesOf are the paths that a submission names. Those of its output may have patterns ("%j"), of
// which nothing is known but the folder before them.
func (c *call) placesOf(s scheduler.Submission) ([]located, error) {
	at := func(name string) located { return located{place{name, name}, true} }
	places := []located{at(s.WorkingDirectory)}
	below := func(name string) string {
		if path.IsAbs(name) {
			return name
		}
		return strings.TrimSuffix(s.WorkingDirectory, "/") + "/" + name
	}
	switch {
	case s.ScriptPath == "":
	case c.system.Scheduler == "pbs":
		places = append(places, at(below(s.ScriptPath)))
	default: // sbatch(1) looks for it where it is started
		places = append(places, at(s.ScriptPath))
	}
	for _, name := range []string{s.StandardInput, s.StandardOutput, s.StandardError} {
		if c.system.Scheduler == "pbs" { // host:path
			_, after, ok := strings.Cut(name, ":")
			if ok {
				name = after
			}
		}
		if name == "" || name == "/dev/null" || name == "none" {
			continue
		}
		name = below(name)
		if fixed, pattern, ok := strings.Cut(name, "%"); ok {
			if slices.Contains(strings.Split(pattern, "/"), "..") || strings.Contains(s.Name, "/") {
				return nil, fileFailure("sbatch:", name, &executor.FileError{Op: "resolve", Path: name, Err: executor.ErrOutside})
			}
			name = fixed[:strings.LastIndexByte(fixed, '/')+1]
		}
		places = append(places, at(name))
	}
	return places, nil
}
