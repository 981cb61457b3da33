package firecrest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/scheduler"
)

// A siteDescriber tells of what there is.
type siteDescriber interface {
	Nodes(ctx context.Context, run scheduler.Runner) ([]scheduler.Node, error)
	Partitions(ctx context.Context, run scheduler.Runner) ([]scheduler.Partition, error)
	Reservations(ctx context.Context, run scheduler.Runner) ([]scheduler.Reservation, error)
}

// An accountant knows what users' jobs can be charged to.
type accountant interface {
	Accounts(ctx context.Context, run scheduler.Runner, user string) ([]scheduler.Account, error)
}

// A batch is a scheduler as this package needs it.
type batch interface {
	jobScheduler
	jobController
	siteDescriber
	accountant
}

// Schedulers are the values of [System.Scheduler].
func Schedulers() []string { return []string{"slurm", "pbs", "none"} }

func batchOf(name string) batch {
	switch name {
	case "slurm":
		return scheduler.Slurm{}
	case "pbs":
		return scheduler.PBS{}
	}
	return nil
}

// schedulerName is the scheduler's name as messages have it.
func (s *system) schedulerName() string {
	if s.Scheduler == "pbs" {
		return "PBS"
	}
	return "Slurm"
}

var errNoScheduler = &failure{status: http.StatusNotImplemented, message: "The requested system has no scheduler.", code: "scheduler_missing"}

// scheduler is reached by commands alone.
func (c *call) scheduler() (batch, error) {
	if c.system.batch == nil {
		return nil, errNoScheduler
	}
	if c.caller.Narrow() {
		return nil, executor.ErrCommandsDenied
	}
	return c.system.batch, nil
}

// schedulerRun is run for commands of the scheduler, from which its health is read.
func (c *call) schedulerRun(ctx context.Context, cmd executor.Command) (executor.Result, error) {
	began := time.Now()
	result, err := c.run(ctx, cmd)
	switch {
	case err != nil:
	case strings.Contains(string(result.Stderr), "Unable to contact slurm controller"):
		c.system.health.complain(c.person(), began, "The scheduler's controller does not answer.")
	case result.ExitCode == 0:
		c.system.health.note("scheduler", began, "")
	}
	return result, err
}

// schedulerFailure is what a client is told about an error of a scheduler. What it
// said goes along: it was said to the caller.
func (c *call) schedulerFailure(err error) error {
	refused, ok := errors.AsType[*scheduler.Error](err)
	if !ok {
		return err
	}
	f := &failure{causedBy: []string{refused.Error()}}
	switch refused.Reason {
	case scheduler.NoJob:
		f.status, f.message, f.code = errNoJob.status, errNoJob.message, errNoJob.code
	case scheduler.Finished:
		f.status, f.message, f.code = http.StatusConflict, "The job has ended already.", "job_ended"
	case scheduler.Denied:
		f.status, f.message, f.code = http.StatusForbidden, "Permission denied: "+refused.Stderr, "job_denied"
	case scheduler.Limited:
		f.status, f.code = http.StatusForbidden, "job_limit"
		f.message = "Job submission rejected: accounting/QOS policy limit exceeded. " + refused.Stderr
	case scheduler.NotThere:
		f.status, f.message, f.code = http.StatusNotImplemented, "The scheduler of the requested system cannot do that.", "scheduler_missing"
	default:
		f.status, f.message, f.code = http.StatusInternalServerError, "Unexpected "+c.system.schedulerName()+" command response. "+refused.Error(), "scheduler_failed"
	}
	return f
}
