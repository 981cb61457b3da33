package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sallyport/executor"
)

// Jobs asks the accounting for jobs that were, and the controller for those that
// are. One of them is enough for an answer.
func (Slurm) Jobs(ctx context.Context, run Runner, q Query) (Jobs, error) {
	var (
		past, present       []Job
		noPast, noPresent   error
		hasPast, hasPresent bool
		wait                sync.WaitGroup
	)
	wait.Go(func() { past, hasPast, noPast = accounted(ctx, run, q) })
	wait.Go(func() { present, hasPresent, noPresent = queued(ctx, run, q) })
	wait.Wait()
	switch {
	case noPast != nil:
		return Jobs{}, noPast
	case noPresent != nil:
		return Jobs{}, noPresent
	case !hasPast && !hasPresent:
		return Jobs{}, &Error{ExitCode: 1, Stderr: "neither sacct nor squeue answers"}
	}
	found := Jobs{Jobs: slices.DeleteFunc(merge(past, present), func(j Job) bool { return q.Name != "" && j.Name != q.Name })}
	if !hasPast {
		found.Missing = "sacct"
	} else if !hasPresent {
		found.Missing = "squeue"
	}
	return found, nil
}

// merge takes what the accounting knows, and from the controller what is new, since
// the accounting is some seconds late; and what a job was submitted with, of which
// the accounting knows half after it was down, drops quotes and, as its database is
// set up, what is no Latin.
func merge(past, present []Job) []Job {
	at := make(map[string]int, len(past))
	jobs := make([]Job, 0, len(past)+len(present))
	for _, j := range past {
		at[j.ID] = len(jobs)
		jobs = append(jobs, j)
	}
	for _, j := range present {
		i, both := at[j.ID]
		if !both {
			jobs = append(jobs, j)
			continue
		}
		known := &jobs[i]
		known.Name, known.Group, known.Account, known.User = j.Name, j.Group, j.Account, j.User
		known.Partition, known.WorkingDirectory, known.Priority, known.Time.Limit = j.Partition, j.WorkingDirectory, j.Priority, j.Time.Limit
		if !over(known.Status.State) && (j.Status.State == "PENDING" || j.Status.State != known.Status.State) {
			j.Tasks = known.Tasks
			*known = j
		}
	}
	return jobs
}

// over says whether a state is final.
func over(state string) bool {
	word, _, _ := strings.Cut(state, " ")
	switch word {
	case "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT":
		return true
	}
	return false
}

// stateOf replaces states that pyfirecrest takes for final, because of an F in them.
func stateOf(state string) string {
	switch state {
	case "CONFIGURING":
		return "PENDING"
	case "REQUEUE_FED":
		return "REQUEUED"
	}
	return state
}

// accounted asks sacct; ok is false if it does not answer.
func accounted(ctx context.Context, run Runner, q Query) (jobs []Job, ok bool, err error) {
	t := newTable("JobID", "AllocNodes", "Cluster", "ExitCode", "Group", "Account", "JobName", "NodeList", "Partition", "Priority",
		"State", "Reason", "ElapsedRaw", "Submit", "Start", "End", "Suspended", "TimelimitRaw", "User", "WorkDir")
	argv := []string{"sacct", "--parsable", "--noheader", "--delimiter=" + t.separator, "--format=" + strings.Join(t.fields, ",")}
	if q.ID != "" {
		argv = append(argv, "--allusers", "--jobs="+Base(q.ID))
	} else {
		argv = option(argv, "account", q.Account)
		argv = append(argv, fmt.Sprintf("--starttime=now-%dhours", q.Hours))
		if q.AllUsers {
			argv = append(argv, "--allusers")
		}
	}
	result, err := run(ctx, command(argv...))
	if err != nil {
		return nil, false, err
	}
	if result.ExitCode != 0 {
		// A cluster without accounting is not one whose accounting is down.
		return nil, strings.Contains(string(result.Stderr), "accounting storage is disabled"), nil
	}
	index := map[string]int{}
	for _, row := range t.rows(result.Stdout) {
		if parent, _, isStep := strings.Cut(row[0], "."); isStep {
			// The step of a job that is not shown is not shown.
			if i, ok := index[parent]; ok {
				jobs[i].Tasks = append(jobs[i].Tasks, Task{ID: row[0], Name: row[6], Status: accountedStatus(row), Time: accountedTimes(row)})
			}
			continue
		}
		if q.ID != "" && !Covers(q.ID, row[0]) {
			continue
		}
		index[row[0]] = len(jobs)
		jobs = append(jobs, Job{
			ID: row[0], AllocationNodes: count(row[1]), Cluster: row[2], Group: text(row[4]), Account: text(row[5]), Name: row[6],
			Nodes: row[7], Partition: row[8], Priority: number(row[9]), User: text(row[18]), WorkingDirectory: row[19],
			Status: accountedStatus(row), Time: accountedTimes(row), Tasks: []Task{},
		})
	}
	return jobs, true, nil
}

func accountedStatus(row []string) Status {
	code, signal, _ := strings.Cut(row[3], ":")
	return Status{State: stateOf(row[10]), StateReason: text(row[11]), ExitCode: number(code), InterruptSignal: number(signal)}
}

func accountedTimes(row []string) Times {
	times := Times{Elapsed: number(row[12]), Start: number(row[14]), End: number(row[15]), Suspended: span(row[16])}
	if minutes := number(row[17]); minutes != nil {
		seconds := *minutes * 60
		times.Limit = &seconds
	}
	return times
}

// queued asks squeue; ok is false if it does not answer.
func queued(ctx context.Context, run Runner, q Query) (jobs []Job, ok bool, err error) {
	t := newTable("JobArrayID", "NumNodes", "Cluster", "GroupName", "Account", "Name", "NodeList", "Partition", "PriorityLong",
		"State", "Reason", "TimeUsed", "exit_code", "StartTime", "EndTime", "TimeLimit", "UserName", "WorkDir")
	argv := []string{"squeue", "--all", "--noheader", "--Format=" + t.format()}
	if q.ID != "" {
		// Ended jobs are known for some minutes, whatever the accounting says.
		argv = append(argv, "--states=all", "--jobs="+Base(q.ID))
	} else {
		argv = option(argv, "account", q.Account)
		if !q.AllUsers {
			argv = option(argv, "user", q.User)
		}
	}
	// A field that a version does not know is an empty one.
	result, err := run(ctx, command(argv...))
	if err != nil {
		return nil, false, err
	}
	if result.ExitCode != 0 {
		return nil, reasonOf(result) == NoJob, nil
	}
	for _, row := range t.rows(result.Stdout) {
		if q.ID != "" && !Covers(q.ID, row[0]) {
			continue
		}
		jobs = append(jobs, Job{
			ID: row[0], AllocationNodes: count(row[1]), Cluster: row[2], Group: text(row[3]), Account: text(row[4]), Name: row[5],
			Nodes: row[6], Partition: row[7], Priority: number(row[8]), User: text(row[16]), WorkingDirectory: row[17], Tasks: []Task{},
			Status: queuedStatus(row),
			Time:   Times{Elapsed: span(row[11]), Start: number(row[13]), End: number(row[14]), Limit: span(row[15])},
		})
	}
	return jobs, true, nil
}

func queuedStatus(row []string) Status {
	s := Status{State: stateOf(row[9]), StateReason: text(row[10])}
	if wait := number(row[12]); wait != nil && over(s.State) { // as wait(2) has it
		code, signal := *wait>>8&0xff, *wait&0x7f
		s.ExitCode, s.InterruptSignal = &code, &signal
	}
	return s
}

// both runs two commands at the same time.
func both(ctx context.Context, run Runner, a, b executor.Command) (ra, rb executor.Result, err error) {
	var errA, errB error
	var wait sync.WaitGroup
	wait.Go(func() { ra, errA = run(ctx, a) })
	wait.Go(func() { rb, errB = run(ctx, b) })
	wait.Wait()
	if errA != nil {
		return ra, rb, errA
	}
	return ra, rb, errB
}
