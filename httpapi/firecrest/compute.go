package firecrest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"sallyport/executor"
	"sallyport/httpapi/firecrest/scheduler"
)

// A jobScheduler takes jobs and tells of them.
type jobScheduler interface {
	Submit(ctx context.Context, run scheduler.Runner, s scheduler.Submission) (id string, err error)
	Jobs(ctx context.Context, run scheduler.Runner, q scheduler.Query) (scheduler.Jobs, error)
	Metadata(ctx context.Context, run scheduler.Runner, id string) ([]scheduler.Metadata, error)
}

// A jobController acts on jobs.
type jobController interface {
	Cancel(ctx context.Context, run scheduler.Runner, id string) error
	Attach(ctx context.Context, run scheduler.Runner, id, command string) error
}

// computeOperations are the calls under /compute.
func computeOperations() []operation {
	const jobs, job = "/compute/{system}/jobs", "/compute/{system}/jobs/{job}"
	return []operation{
		{method: http.MethodPost, path: jobs, name: "compute.submit", needs: needsPower, serve: submit},
		{method: http.MethodGet, path: jobs, name: "compute.list", needs: needsCommand, serve: listJobs},
		{method: http.MethodGet, path: job, name: "compute.show", needs: oftenCommand, serve: showJob},
		{method: http.MethodGet, path: job + "/metadata", name: "compute.metadata", needs: oftenCommand, serve: jobMetadata},
		{method: http.MethodDelete, path: job, name: "compute.cancel", needs: oftenCommand, serve: cancelJob},
		{method: http.MethodPut, path: job + "/attach", name: "compute.attach", needs: needsPower, serve: attach},
	}
}

// defaultEnv is the environment of a job that asks for none.
func defaultEnv() map[string]string { return map[string]string{"F7T_version": "v2.0.0"} }

// submission reads the body of a job.
func (c *call) submission() (scheduler.Submission, error) {
	body, err := c.body()
	if err != nil {
		return scheduler.Submission{}, err
	}
	job := body.object("job")
	s := scheduler.Submission{
		WorkingDirectory: job.required("workingDirectory"),
		Name:             job.text("name"), Account: job.text("account"), Partition: job.text("partition"),
		Reservation: job.text("reservation"), Constraints: job.text("constraints"),
		StandardInput: job.text("standardInput"), StandardOutput: job.text("standardOutput"), StandardError: job.text("standardError"),
		Script: job.text("script"), ScriptPath: job.text("scriptPath"), Env: job.texts("env", "environment"),
	}
	if s.Script == "" && s.ScriptPath == "" {
		job.refuse("script", "Either script or scriptPath is required")
	}
	if s.Env == nil {
		s.Env = defaultEnv()
	}
	return s, body.finish()
}

// submit is POST /compute/{system}/jobs.
func submit(c *call) error {
	batch, err := c.scheduler()
	if err != nil {
		return err
	}
	s, err := c.submission()
	if err != nil {
		return err
	}
	if err := c.mayUse(s); err != nil {
		return err
	}
	id, err := c.submitJob(batch, s)
	if err != nil {
		return err
	}
	return c.answer(http.StatusCreated, struct {
		JobID string `json:"jobId"`
	}{id})
}

// submitJob submits a job for the caller, once for each Idempotency-Key.
func (c *call) submitJob(batch batch, s scheduler.Submission) (string, error) {
	id, err := c.system.submitted.once(c.r.Context(), c.attempt(), func() (string, error) {
		// A client that leaves must not leave half a submission behind.
		return batch.Submit(context.WithoutCancel(c.r.Context()), c.submissionRun, s)
	})
	if err != nil {
		return "", c.submissionFailure(err)
	}
	c.system.submitted.note(c.person(), scheduler.Job{
		ID: id, Name: s.Name, Partition: s.Partition, WorkingDirectory: s.WorkingDirectory, Tasks: []scheduler.Task{},
		Status: scheduler.Status{State: "PENDING"}, User: new(c.caller.Login()), Account: optional(s.Account),
	})
	return id, nil
}

// submissionRun is schedulerRun for the one command that must not be taken for one
// that did nothing: a node's name in the result says that it was started.
func (c *call) submissionRun(ctx context.Context, cmd executor.Command) (executor.Result, error) {
	result, err := c.schedulerRun(ctx, cmd)
	switch {
	case err == nil, result.Node == "", errors.Is(err, errTimedOut), errors.Is(err, executor.ErrUnavailable):
		return result, err
	}
	return result, fmt.Errorf("%w: %w", executor.ErrOutcomeUnknown, err)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// submissionFailure says it when nobody knows whether there is a job now: a client
// that just tries again may have two.
func (c *call) submissionFailure(err error) error {
	const unknown = " The outcome of the submission is unknown: look for the job by its name before you submit it again."
	var status int
	var message string
	switch {
	case errors.Is(err, errTimedOut):
		status, message = http.StatusRequestTimeout, errTimedOut.message
	case errors.Is(err, executor.ErrOutcomeUnknown):
		status, message = http.StatusFailedDependency, "SSH connection Reset."
	default:
		return c.schedulerFailure(err)
	}
	return &failure{status: status, message: message + unknown, code: "outcome_unknown"}
}

// jobsAnswer is what the calls that tell of jobs answer.
type jobsAnswer[T any] struct {
	Jobs []T `json:"jobs"`
}

// partialData names the header that says which program did not answer, so that
// something may be missing.
const partialData = "F7T-PartialData"

// answerJobs answers with jobs, and says whether some may be missing.
func (c *call) answerJobs(found scheduler.Jobs) error {
	if found.Missing != "" {
		c.w.Header().Set(partialData, found.Missing)
	}
	if found.Jobs == nil {
		found.Jobs = []scheduler.Job{}
	}
	return c.answer(http.StatusOK, jobsAnswer[scheduler.Job]{found.Jobs})
}

// windows are the values of time_window in hours.
var windows = map[string]int{"1h": 1, "8h": 8, "24h": 24, "3d": 3 * 24, "7d": 7 * 24}

// listJobs is GET /compute/{system}/jobs.
func listJobs(c *call) error {
	batch, err := c.scheduler()
	if err != nil {
		return err
	}
	query := c.query()
	q := scheduler.Query{
		User: c.caller.Login(), AllUsers: query.flag("allusers", false), Account: query.text("account"), Name: query.text("name"),
		Hours: windows[query.oneOf("time_window", "24h", "1h", "8h", "24h", "3d", "7d")],
	}
	if utf8.RuneCountInString(q.Name) > 235 {
		query.refuse("name", "String should have at most 235 characters")
	}
	if err := query.finish(); err != nil {
		return err
	}
	found, err := batch.Jobs(c.r.Context(), c.schedulerRun, q)
	if _, ok := errors.AsType[*scheduler.Error](err); ok {
		return &failure{status: http.StatusInternalServerError, message: "Error executing " + c.system.schedulerName() + " command.", causedBy: []string{err.Error()}, code: "scheduler_failed"}
	}
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(found.Jobs))
	for _, j := range found.Jobs {
		known[scheduler.Base(j.ID)] = true
	}
	for _, j := range c.system.submitted.of(c.person()) {
		if (q.Name == "" || q.Name == j.Name) && q.Account == "" && !known[scheduler.Base(j.ID)] {
			found.Jobs = append(found.Jobs, j)
		}
	}
	return c.answerJobs(found)
}

// job is the id in the path, which has been checked.
func (c *call) job() (string, error) {
	id := c.vars["job"]
	if !scheduler.ValidID(id) {
		return "", &failure{
			status: http.StatusBadRequest, kind: "validation", code: "field_invalid", message: "path job_id: String should be the id of a job",
			fields: []fieldError{{"path", "job_id", "String should be the id of a job, such as 12, 12_3 or 12+1"}},
		}
	}
	return id, nil
}

// scheduledJob is the scheduler, and the id of its job in the path.
func (c *call) scheduledJob() (batch, string, error) {
	b, err := c.scheduler()
	if err != nil {
		return nil, "", err
	}
	id, err := c.job()
	return b, id, err
}

var errNoJob = &failure{status: http.StatusNotFound, message: "Job not found.", code: "job_unknown"}

// showJob is GET /compute/{system}/jobs/{id}. A job that was submitted here a moment
// ago is never unknown, and while the accounting is down a client had better wait:
// pyfirecrest takes 429 for that, and breaks at anything else.
func showJob(c *call) error {
	if s := c.streamOf(); s != nil {
		return c.answer(http.StatusOK, jobsAnswer[scheduler.Job]{[]scheduler.Job{c.handler.streams.view(s)}})
	}
	batch, id, err := c.scheduledJob()
	if err != nil {
		return err
	}
	found, err := batch.Jobs(c.r.Context(), c.schedulerRun, scheduler.Query{ID: id})
	if err != nil {
		return c.schedulerFailure(err)
	}
	if len(found.Jobs) == 0 {
		if j, ok := c.system.submitted.find(c.person(), id); ok {
			found.Jobs = append(found.Jobs, j)
		}
	}
	switch {
	case len(found.Jobs) > 0:
		return c.answerJobs(found)
	case found.Missing != "":
		return &failure{
			status: http.StatusTooManyRequests, retry: 10, code: "scheduler_failed",
			message: fmt.Sprintf("The scheduler's %s does not answer, and nothing else knows the job.", found.Missing),
		}
	}
	return errNoJob
}

// jobMetadata is GET /compute/{system}/jobs/{id}/metadata.
func jobMetadata(c *call) error {
	if s := c.streamOf(); s != nil {
		return c.answer(http.StatusOK, jobsAnswer[scheduler.Metadata]{[]scheduler.Metadata{{
			ID: s.id, StandardOutput: &s.job.Logs.OutputLog, StandardError: &s.job.Logs.ErrorLog,
		}}})
	}
	batch, id, err := c.scheduledJob()
	if err != nil {
		return err
	}
	found, err := batch.Metadata(c.r.Context(), c.schedulerRun, id)
	if err != nil {
		return c.schedulerFailure(err)
	}
	if len(found) == 0 {
		return errNoJob
	}
	return c.answer(http.StatusOK, jobsAnswer[scheduler.Metadata]{found})
}

// cancelJob is DELETE /compute/{system}/jobs/{id}.
func cancelJob(c *call) error {
	if s := c.streamOf(); s != nil {
		c.handler.streams.stop(s)
		return c.noContent()
	}
	batch, id, err := c.scheduledJob()
	if err != nil {
		return err
	}
	err = batch.Cancel(c.r.Context(), c.schedulerRun, id)
	if refused, ok := errors.AsType[*scheduler.Error](err); ok && refused.Reason == scheduler.NoJob {
		// The controller forgets jobs, the accounting does not.
		found, lookErr := batch.Jobs(c.r.Context(), c.schedulerRun, scheduler.Query{ID: id})
		if lookErr == nil && len(found.Jobs) > 0 {
			refused.Reason = scheduler.Finished
		}
	}
	if err != nil {
		return c.schedulerFailure(err)
	}
	return c.noContent()
}

// attach is PUT /compute/{system}/jobs/{id}/attach: it runs a command on the nodes
// of a job, to its end.
func attach(c *call) error {
	batch, id, err := c.scheduledJob()
	if err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	line := body.required("command")
	if err := body.finish(); err != nil {
		return err
	}
	if err := batch.Attach(c.r.Context(), c.schedulerRun, id, line); err != nil {
		return c.schedulerFailure(err)
	}
	return c.noContent()
}
