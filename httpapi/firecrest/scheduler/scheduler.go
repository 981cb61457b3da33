// Package scheduler speaks to the batch schedulers of HPC systems by their own
// commands: it builds argument lists, and reads what comes back.
//
// The guarantee: nothing that a user chose is text of a shell or of a format; and
// whatever characters the name of a job has, it is read back whole and disturbs no
// other job. What a scheduler prints is not trusted: what cannot be read is left
// out.
package scheduler

import (
	"context"
	"fmt"
	"strings"

	"sallyport/executor"
)

// A Runner runs a command on the system as the caller, and returns an error unless
// it ended by itself and all its output is there.
type Runner func(ctx context.Context, cmd executor.Command) (executor.Result, error)

// An Error is a refusal of the scheduler. Its text is for the caller, who could have
// run the command himself.
type Error struct {
	Reason Reason
	// ExitCode and Stderr are the command's; Stderr is cut to a few kilobytes.
	ExitCode int
	Stderr   string
}

// A Reason says what a refusal means, as far as that is known.
type Reason int

// The reasons.
const (
	Other    Reason = iota
	NoJob           // there is no such job
	Finished        // the job has ended already
	Denied          // the job is somebody else's
	Limited         // a limit of the accounting forbids the job
	NotThere        // this scheduler has no such function
)

func (e *Error) Error() string {
	return fmt.Sprintf("exit_status:%d std_err:%s", e.ExitCode, e.Stderr)
}

// failed makes an Error of a command that did not succeed.
func failed(r executor.Result, reason Reason) *Error {
	const most = 4 << 10
	text := strings.TrimSpace(string(r.Stderr))
	return &Error{Reason: reason, ExitCode: r.ExitCode, Stderr: strings.ToValidUTF8(text[:min(len(text), most)], "\uFFFD")}
}

// A Submission is a job to be. Empty texts are unset.
type Submission struct {
	WorkingDirectory string
	Name             string
	Account          string
	Partition        string
	Reservation      string
	Constraints      string
	StandardInput    string
	StandardOutput   string
	StandardError    string
	// Script is the text of the batch script, ScriptPath the path of one on the
	// system; the path is taken if both are set.
	Script, ScriptPath string
	// Env is set for the job, beside what the user's login sets. It never stands on
	// a command line.
	Env map[string]string
}

// A Query says which jobs are asked for.
type Query struct {
	// ID is that of a job, an element of an array, a component of a heterogeneous job
	// or a step; the rest of the fields is of no matter then.
	ID string
	// AllUsers asks for those of everybody, else they are those of User.
	AllUsers bool
	User     string
	// Account and Name, if set, are those of the jobs.
	Account, Name string
	// Hours is how far back to look for jobs that have ended.
	Hours int
}

// Jobs are what was found.
type Jobs struct {
	Jobs []Job
	// Missing names the source that did not answer, so that jobs may be missing;
	// empty if all did.
	Missing string
}

// A Job is one job, or one element of an array. The keys are FirecREST's.
type Job struct {
	ID               string  `json:"jobId"`
	Name             string  `json:"name"`
	Status           Status  `json:"status"`
	Tasks            []Task  `json:"tasks"`
	Time             Times   `json:"time"`
	Account          *string `json:"account"`
	AllocationNodes  int64   `json:"allocationNodes"`
	Cluster          string  `json:"cluster"`
	Group            *string `json:"group"`
	Nodes            string  `json:"nodes"`
	Partition        string  `json:"partition"`
	KillRequestUser  *string `json:"killRequestUser"`
	User             *string `json:"user"`
	WorkingDirectory string  `json:"workingDirectory"`
	Priority         *int64  `json:"priority"`
}

// A Status is how a job or a step stands.
type Status struct {
	// State is the scheduler's own word.
	State           string  `json:"state"`
	StateReason     *string `json:"stateReason"`
	ExitCode        *int64  `json:"exitCode"`
	InterruptSignal *int64  `json:"interruptSignal"`
}

// A Task is a step of a job.
type Task struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status Status `json:"status"`
	Time   Times  `json:"time"`
}

// Times are in seconds; Start and End are seconds of Unix time.
type Times struct {
	Elapsed   *int64 `json:"elapsed"`
	Start     *int64 `json:"start"`
	End       *int64 `json:"end"`
	Suspended *int64 `json:"suspended"`
	Limit     *int64 `json:"limit"`
}

// Metadata is where a job reads and writes, and its script.
type Metadata struct {
	ID             string  `json:"jobId"`
	Script         *string `json:"script"`
	StandardInput  *string `json:"standardInput"`
	StandardOutput *string `json:"standardOutput"`
	StandardError  *string `json:"standardError"`
}

// A Node is a compute node.
type Node struct {
	Sockets     int64    `json:"sockets"`
	Cores       int64    `json:"cores"`   // of a socket
	Threads     int64    `json:"threads"` // of a core
	CPUs        int64    `json:"cpus"`
	CPULoad     *float64 `json:"cpuLoad"`
	FreeMemory  *int64   `json:"freeMemory"` // in MB
	Features    *string  `json:"features"`
	Name        string   `json:"name"`
	Address     *string  `json:"address"`
	Hostname    *string  `json:"hostname"`
	State       []string `json:"state"`
	Partitions  []string `json:"partitions"`
	Weight      *int64   `json:"weight"`
	AllocMemory *int64   `json:"allocMemory"` // in MB
	AllocCPUs   *int64   `json:"allocCpus"`
	IdleCPUs    *int64   `json:"idleCpus"`
}

// A Partition is one, or a queue.
type Partition struct {
	Name       string `json:"name"`
	CPUs       int64  `json:"cpus"`
	TotalNodes int64  `json:"totalNodes"`
	// State stands under a strange key, which clients read.
	State  string `json:"partition"`
	Hidden bool   `json:"-"`
}

// A Reservation keeps nodes for somebody.
type Reservation struct {
	Name     string  `json:"name"`
	Nodes    *string `json:"nodeList"`
	End      *int64  `json:"endTime"`
	Start    *int64  `json:"startTime"`
	Features *string `json:"features"`
	State    string  `json:"state"`
}

// An Account is one that a user's jobs can be charged to.
type Account struct {
	Name    string `json:"name"`
	Default bool   `json:"default"`
}
