package scheduler

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// Jobs asks the server, which keeps ended jobs if job_history_enable is set.
func (PBS) Jobs(ctx context.Context, run Runner, q Query) (Jobs, error) {
	list, err := pbsJobs(ctx, run, q.ID)
	if err != nil {
		return Jobs{}, err
	}
	oldest := time.Now().Add(-time.Duration(q.Hours) * time.Hour).Unix()
	var found Jobs
	for _, id := range slices.Sorted(maps.Keys(list)) {
		j := list[id].job(id)
		tooOld := j.Time.End != nil && *j.Time.End < oldest
		if q.ID == "" && (tooOld || !q.AllUsers && (j.User == nil || *j.User != q.User) ||
			q.Name != "" && j.Name != q.Name || q.Account != "" && (j.Account == nil || *j.Account != q.Account)) {
			continue
		}
		found.Jobs = append(found.Jobs, j)
	}
	return found, nil
}

// Metadata tells the paths; PBS shows nobody a script.
func (PBS) Metadata(ctx context.Context, run Runner, id string) ([]Metadata, error) {
	list, err := pbsJobs(ctx, run, id)
	if err != nil {
		return nil, err
	}
	var found []Metadata
	for _, id := range slices.Sorted(maps.Keys(list)) {
		j := list[id]
		found = append(found, Metadata{ID: pbsID(id), StandardOutput: pbsPath(j.Output), StandardError: pbsPath(j.Error)})
	}
	return found, nil
}

// A pbsJob is what is read of "qstat -f -F json". Numbers stand there as numbers or
// as texts, so that values are taken as they come.
type pbsJob struct {
	Name      any            `json:"Job_Name"`
	Owner     string         `json:"Job_Owner"`
	State     string         `json:"job_state"`
	Queue     string         `json:"queue"`
	Server    string         `json:"server"`
	Comment   string         `json:"comment"`
	Exit      *int64         `json:"Exit_status"`
	Hosts     string         `json:"exec_host"`
	Priority  *int64         `json:"Priority"`
	Project   string         `json:"project"`
	Started   string         `json:"stime"`
	Modified  string         `json:"mtime"`
	Ended     string         `json:"obittime"`
	Output    string         `json:"Output_Path"`
	Error     string         `json:"Error_Path"`
	Wanted    map[string]any `json:"Resource_List"`
	Used      map[string]any `json:"resources_used"`
	Variables map[string]any `json:"Variable_List"`
}

// pbsJobs asks for one job or, without an id, for all; no such job is none.
func pbsJobs(ctx context.Context, run Runner, id string) (map[string]pbsJob, error) {
	argv := []string{"qstat", "-x", "-f", "-F", "json"}
	if id != "" {
		argv = append(argv, id)
	}
	result, err := run(ctx, pbsCommand(argv...))
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		if refused := failed(result, pbsReason(result)); refused.Reason != NoJob {
			return nil, refused
		}
		return nil, nil
	}
	var printed struct{ Jobs map[string]pbsJob }
	if err := json.Unmarshal(object(result.Stdout), &printed); err != nil {
		return nil, &Error{ExitCode: result.ExitCode, Stderr: "qstat printed no JSON"}
	}
	return printed.Jobs, nil
}

// object leaves aside what a login script prints before a JSON object.
func object(printed []byte) []byte {
	text := string(printed)
	if i := strings.Index(text, "{\n"); i >= 0 {
		text = text[i:]
	}
	return []byte(strings.ToValidUTF8(text, "\uFFFD"))
}

func (j pbsJob) job(id string) Job {
	user, _, _ := strings.Cut(j.Owner, "@")
	made := Job{
		ID: pbsID(id), Name: asText(j.Name), Cluster: j.Server, Partition: j.Queue, User: text(user), Priority: j.Priority,
		Nodes: pbsHosts(j.Hosts), WorkingDirectory: asText(j.Variables["PBS_O_WORKDIR"]), Tasks: []Task{},
		Status: Status{State: j.State, StateReason: text(j.Comment)},
		Time:   Times{Elapsed: span(asText(j.Used["walltime"])), Start: pbsTime(j.Started), Limit: span(asText(j.Wanted["walltime"]))},
	}
	if n := number(asText(j.Wanted["nodect"])); n != nil {
		made.AllocationNodes = *n
	}
	if j.Project != "_pbs_project_default" {
		made.Account = text(j.Project)
	}
	if j.State == "F" || j.State == "X" {
		if made.Time.End = pbsTime(j.Ended); made.Time.End == nil {
			made.Time.End = pbsTime(j.Modified)
		}
		made.Status.ExitCode, made.Status.InterruptSignal = pbsExit(j.Exit)
	}
	return made
}

// pbsExit reads an Exit_status: above 256 it is a signal.
func pbsExit(status *int64) (code, signal *int64) {
	if status == nil {
		return nil, nil
	}
	zero := int64(0)
	if *status > 256 {
		n := *status - 256
		return &zero, &n
	}
	return status, &zero
}

// pbsID drops the name of the server.
func pbsID(id string) string {
	id, _, _ = strings.Cut(id, ".")
	return id
}

// pbsPath drops the name of the host.
func pbsPath(s string) *string {
	if host, rest, found := strings.Cut(s, ":"); found && !strings.Contains(host, "/") {
		s = rest
	}
	return text(s)
}

// pbsHosts reads "n1/0*2+n2/1" as "n1,n2".
func pbsHosts(s string) string {
	var hosts []string
	for part := range strings.SplitSeq(s, "+") {
		host, _, _ := strings.Cut(part, "/")
		if host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ",")
}
