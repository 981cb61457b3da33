package firecrest_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/executor"
)

var (
	statusShape = map[string]shape{"state": "string", "stateReason": "string?", "exitCode": "int?", "interruptSignal": "int?"}
	timeShape   = map[string]shape{"elapsed": "int?", "start": "int?", "end": "int?", "suspended": "int?", "limit": "int?"}
	jobsShape   = map[string]shape{"jobs": []shape{map[string]shape{
		"jobId": "string", "name": "string", "status": statusShape, "time": timeShape,
		"tasks":   []shape{map[string]shape{"id": "string", "name": "string", "status": statusShape, "time": timeShape}},
		"account": "string?", "allocationNodes": "int", "cluster": "string", "group": "string?", "nodes": "string", "partition": "string",
		"killRequestUser": "string?", "user": "string?", "workingDirectory": "string", "priority": "int?",
	}}}
	metadataShape = map[string]shape{"jobs": []shape{map[string]shape{
		"jobId": "string", "script": "string?", "standardInput": "string?", "standardOutput": "string?", "standardError": "string?",
	}}}
)

const jobsPath = "/compute/clustera/jobs"

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// submit submits a job of login with these fields, and returns its id.
func (c *cluster) submit(login string, job map[string]any) string {
	c.t.Helper()
	if job["workingDirectory"] == nil && job["working_directory"] == nil {
		job["workingDirectory"] = c.node.Home(login)
	}
	v := c.as(login, "POST", jobsPath, jsonOf(c.t, map[string]any{"job": job})).answers(201, map[string]shape{"jobId": "string"})
	return v["jobId"].(string)
}

// job is the first of the jobs that GET jobs/{id} shows.
func (c *cluster) job(login, id string) map[string]any {
	c.t.Helper()
	v := c.as(login, "GET", jobsPath+"/"+url.PathEscape(id)+"?allusers=false&account=", "").answers(200, jobsShape)
	return v["jobs"].([]any)[0].(map[string]any)
}

func state(job map[string]any) string { return job["status"].(map[string]any)["state"].(string) }

// await waits until a job has one of the states.
func (c *cluster) await(login, id string, states ...string) map[string]any {
	c.t.Helper()
	var job map[string]any
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // a real scheduler
		job = c.job(login, id)
		for _, s := range states {
			if strings.HasPrefix(state(job), s) {
				return job
			}
		}
	}
	c.t.Fatalf("job %s is not %v: %v", id, states, job)
	return nil
}

func TestAJobRunsFromSubmissionToItsEnd(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	id := c.submit("alice", map[string]any{
		"name": "first", "script": "#!/bin/sh\necho out; echo err >&2; sleep 1; exit 3\n", "partition": "part01", "account": "proj",
		"standardOutput": "out of %j.txt", "standard_error": "err.txt", "reservation": "", "constraints": nil, "unknown": 1,
	})
	// Weakness 53: a job is known from the moment that its id is.
	if s := state(c.job("alice", id)); s != "PENDING" && s != "RUNNING" {
		t.Errorf("state %q", s)
	}
	job := c.await("alice", id, "FAILED")
	status := job["status"].(map[string]any)
	if words(job["jobId"], job["name"], status["exitCode"], job["account"], job["user"], job["group"], job["partition"], job["nodes"],
		job["cluster"], job["workingDirectory"]) != words(id, "first", "3", "proj", "alice", "alice", "part01", "localhost", "test", c.node.Home("alice")) {
		t.Errorf("%v", job)
	}
	if out, err := os.ReadFile(filepath.Join(c.node.Home("alice"), "out of "+id+".txt")); string(out) != "out\n" {
		t.Errorf("output %q, %v", out, err)
	}
	// Weakness 50: a path with spaces is whole.
	m := c.as("alice", "GET", jobsPath+"/"+id+"/metadata", "").answers(200, metadataShape)["jobs"].([]any)[0].(map[string]any)
	home := c.node.Home("alice")
	if words(m["jobId"], m["standardInput"], m["standardOutput"], m["standardError"]) != words(id, "/dev/null", home+"/out of "+id+".txt", home+"/err.txt") ||
		!strings.HasPrefix(m["script"].(string), "#!/bin/sh\necho out;") {
		t.Errorf("metadata %v", m)
	}
}

func TestAScriptOnTheSystemIsTakenBeforeOneInTheBody(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	home := c.node.Home("bob")
	path := filepath.Join(home, "my script's.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n:\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := c.submit("bob", map[string]any{"working_directory": home, "script_path": path, "script": "#!/bin/sh\nexit 9\n"})
	job := c.await("bob", id, "COMPLETED", "FAILED")
	if state(job) != "COMPLETED" || job["name"] != "my script's.sh" {
		t.Errorf("%v", job)
	}
}

func TestNamesOfJobsSurviveAndDisturbNobody(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	// Weakness 38: one such name broke the lists of all users.
	names := []string{"a|b", "two\nlines", "tab\there", `"'$(id)` + "`", "Jürgen 日本", "\x1f\x1e", "a,b", "x%y", "-n"}
	ids := map[string]string{}
	for _, name := range names {
		ids[name] = c.submit("carol", map[string]any{"name": name, "script": "#!/bin/sh\nsleep 300\n"})
	}
	defer func() {
		for _, id := range ids {
			c.as("carol", "DELETE", jobsPath+"/"+id, "")
		}
	}()
	for _, login := range []string{"carol", "bob"} {
		query := "?allusers=false&account="
		if login == "bob" {
			query = "?allusers=true"
		}
		found := map[string]string{}
		for _, j := range c.as(login, "GET", jobsPath+query, "").answers(200, jobsShape)["jobs"].([]any) {
			job := j.(map[string]any)
			found[job["jobId"].(string)] = job["name"].(string)
		}
		for name, id := range ids {
			if found[id] != name {
				t.Errorf("%s sees job %s, %q, as %q", login, id, name, found[id])
			}
		}
	}
	for _, name := range names {
		v := c.as("carol", "GET", jobsPath+"?name="+url.QueryEscape(name), "").answers(200, jobsShape)
		if jobs := v["jobs"].([]any); len(jobs) != 1 || jobs[0].(map[string]any)["jobId"] != ids[name] {
			t.Errorf("by name %q: %v", name, jobs)
		}
		if got := c.job("bob", ids[name]); got["name"] != name {
			t.Errorf("%q is shown as %q", name, got["name"])
		}
	}
}

func TestTheEnvironmentOfAJobArrivesWholeAndIsOnNoCommandLine(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	env := map[string]any{
		"COMMA": "1,2,3", "QUOTES": `'"$HOME` + "`id`", "LINES": "a\nb", "EMPTY": "", "UTF": "ü", "PATH": "/opt/of/the/job:/usr/bin:/bin",
		"TOKEN": "secret-that-nobody-sees",
	}
	for _, key := range []string{"env", "environment"} {
		id := c.submit("alice", map[string]any{
			"script": "#!/bin/sh\n#SBATCH --output=env.%j\nfor n in COMMA QUOTES LINES EMPTY UTF PATH TOKEN; do printenv $n; echo --; done\nprintenv F7T_version SALLYPORT_JOB_PATH\n", key: env,
		})
		c.await("alice", id, "COMPLETED", "FAILED")
		out, err := os.ReadFile(filepath.Join(c.node.Home("alice"), "env."+id))
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		for _, name := range []string{"COMMA", "QUOTES", "LINES", "EMPTY", "UTF", "PATH", "TOKEN"} {
			want += env[name].(string) + "\n--\n"
		}
		if string(out) != want {
			t.Errorf("%s: the job got\n%s\nwant\n%s", key, out, want)
		}
	}
	// The audit log of Slurm, which everybody can read, has the line of submission.
	if line := c.root("sacct --allusers --noheader --parsable2 --format=SubmitLine"); strings.Contains(line, "secret-that") || !strings.Contains(line, "sbatch") {
		t.Errorf("lines of submission:\n%s", line)
	}
	id := c.submit("alice", map[string]any{"script": "#!/bin/sh\n#SBATCH --output=default.%j\nprintenv F7T_version\n"})
	c.await("alice", id, "COMPLETED")
	if out, _ := os.ReadFile(filepath.Join(c.node.Home("alice"), "default."+id)); string(out) != "v2.0.0\n" {
		t.Errorf("default environment: %q", out)
	}
}

func TestArraysAndHeterogeneousJobsHaveIDsOfTheirParts(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	id := c.submit("alice", map[string]any{"name": "arr", "script": "#!/bin/sh\n#SBATCH --array=1-4%1\n#SBATCH --output=/dev/null\nsleep 300\n"})
	c.await("alice", id+"_1", "RUNNING")
	seen := map[string]int{}
	for _, j := range c.as("alice", "GET", jobsPath+"/"+id, "").answers(200, jobsShape)["jobs"].([]any) {
		seen[j.(map[string]any)["jobId"].(string)]++
	}
	if len(seen) != 2 || seen[id+"_1"] != 1 || seen[id+"_[2-4%1]"] != 1 { // weakness 39: each once
		t.Errorf("the array is %v", seen)
	}
	for _, part := range []string{id + "_3", id + "_[2-4%1]"} {
		if job := c.job("alice", part); state(job) != "PENDING" || job["jobId"] != id+"_[2-4%1]" {
			t.Errorf("%s: %v", part, job)
		}
	}
	c.as("alice", "GET", jobsPath+"/"+id+"_1/metadata", "").answers(200, metadataShape)
	if a := c.as("alice", "DELETE", jobsPath+"/"+url.PathEscape(id+"_[2-4]"), ""); a.status != 204 {
		t.Errorf("cancelling elements: %d %s", a.status, a.body)
	}
	if job := c.job("alice", id+"_1"); state(job) != "RUNNING" {
		t.Errorf("another element was hit: %v", job)
	}
	if a := c.as("alice", "DELETE", jobsPath+"/"+id, ""); a.status != 204 {
		t.Errorf("cancelling the array: %d %s", a.status, a.body)
	}
	c.await("alice", id+"_1", "CANCELLED")

	het := c.submit("alice", map[string]any{"script": "#!/bin/sh\n#SBATCH --ntasks=1\n#SBATCH hetjob\n#SBATCH --ntasks=1\nsleep 300\n", "standardOutput": "/dev/null"})
	if jobs := c.as("alice", "GET", jobsPath+"/"+het, "").answers(200, jobsShape)["jobs"].([]any); len(jobs) != 2 {
		t.Errorf("heterogeneous job: %v", jobs)
	}
	if job := c.job("alice", het+"+1"); job["jobId"] != het+"+1" {
		t.Errorf("%v", job)
	}
	if m := c.as("alice", "GET", jobsPath+"/"+het+"/metadata", "").answers(200, metadataShape)["jobs"].([]any); len(m) == 0 {
		t.Error("no metadata")
	}
	if a := c.as("alice", "DELETE", jobsPath+"/"+het, ""); a.status != 204 {
		t.Errorf("cancelling: %d %s", a.status, a.body)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	id := c.submit("alice", map[string]any{"script": "#!/bin/sh\nsleep 300\n", "standardOutput": "/dev/null"})
	c.as("bob", "DELETE", jobsPath+"/"+id, "").fails(403, "Permission denied")
	a := c.as("alice", "DELETE", jobsPath+"/"+id, "")
	if a.status != 204 || a.body != "" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
	c.await("alice", id, "CANCELLED")
	c.as("alice", "DELETE", jobsPath+"/"+id, "").fails(409, "ended already")
	c.as("alice", "DELETE", jobsPath+"/999999", "").fails(404, "Job not found.")
}

func TestAttach(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	id := c.submit("alice", map[string]any{"script": "#!/bin/sh\nsleep 300\n", "standardOutput": "/dev/null"})
	c.await("alice", id, "RUNNING")
	run := func(id, command string) answer {
		return c.as("alice", "PUT", jobsPath+"/"+id+"/attach", jsonOf(t, map[string]any{"command": command}))
	}
	out := filepath.Join(c.node.Home("alice"), "attached to.txt")
	if a := run(id, `echo "$SLURM_JOB_ID" > '`+out+`'`); a.status != 204 || a.body != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if text, err := os.ReadFile(out); string(text) != id+"\n" {
		t.Errorf("it wrote %q, %v", text, err)
	}
	run(id, "exit 5").fails(500, "exit_status:5")
	run("999999", "true").fails(404, "Job not found.")
	run(id, "").fails(400, "command: Field required")
	if a := c.as("alice", "DELETE", jobsPath+"/"+id, ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.await("alice", id, "CANCELLED")
	run(id, "true").fails(409, "ended already")
}

func TestWhatIsNotThereOrNotAcceptable(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	c.as("alice", "GET", jobsPath+"/999999", "").fails(404, "Job not found.")
	c.as("alice", "GET", jobsPath+"/999999/metadata", "").fails(404, "Job not found.")
	for _, id := range []string{"a b", "-1", "1;id", "1_", "%2e%2e", strings.Repeat("1", 300)} {
		f := c.as("alice", "GET", jobsPath+"/"+url.PathEscape(id), "").fails(400, "job_id")
		if f.ErrorType != "validation" || f.Data.Fields[0].Location != "path" {
			t.Errorf("%q: %+v", id, f)
		}
	}
	for query, field := range map[string]string{
		"?time_window=2h": "time_window", "?allusers=perhaps": "allusers", "?name=" + strings.Repeat("x", 236): "name",
	} {
		c.as("alice", "GET", jobsPath+query, "").fails(400, field)
	}
	for _, window := range []string{"", "1h", "8h", "24h", "3d", "7d"} {
		c.as("alice", "GET", jobsPath+"?time_window="+window, "").answers(200, jobsShape)
	}
	home := c.node.Home("alice")
	in := func(more string) string { return `{"job":{"workingDirectory":"` + home + `",` + more + `}}` }
	for body, phrase := range map[string]string{
		"{":                              "not a JSON object",
		"[]":                             "not a JSON object",
		"{}":                             "job: Field required",
		`{"job":[]}`:                     "job: Input should be a valid object",
		`{"job":{"script":"#!/bin/sh"}}`: "job.workingDirectory: Field required",
		`{"job":{"currentWorkingDirectory":"/tmp","script":"x"}}`:        "job.workingDirectory: Field required",
		`{"job":{"workingDirectory":"/tmp"}}`:                            "job.script: Either",
		`{"job":{"workingDirectory":7,"script":"x"}}`:                    "job.workingDirectory: Input should be a valid string",
		`{"job":{"workingDirectory":"/tmp","script":"x","env":["A=1"]}}`: "job.env: Input should be a valid dictionary",
		`{"job":{"workingDirectory":"/tmp","script":"x","env":{"A":1}}}`: "job.env.A: Input should be a valid string",
		in(`"script":"#!/bin/sh","env":{"A=B":"1"}`):                     "env",
	} {
		c.as("alice", "POST", jobsPath, body).fails(400, phrase)
	}
	// The spawner shows what the scheduler says for status 500 only.
	f := c.as("alice", "POST", jobsPath, in(`"script":"#!/bin/sh\n","partition":"nope"`)).
		fails(500, "Unexpected Slurm command response. exit_status:1 std_err:sbatch: error: ")
	if len(f.CausedBy) != 1 || !strings.Contains(f.Message, "nope") {
		t.Errorf("%+v", f)
	}
	c.as("alice", "POST", jobsPath, in(`"script":"echo no interpreter"`)).fails(500, "sbatch: error:")
}

func TestASubmissionWithAKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	body := jsonOf(t, map[string]any{"job": map[string]any{"workingDirectory": c.node.Home("bob"), "script": "#!/bin/sh\n:\n", "name": "once"}})
	first := c.as("bob", "POST", jobsPath, body, "Idempotency-Key", "k1")
	again := c.as("bob", "POST", jobsPath, body, "Idempotency-Key", "k1")
	other := c.as("bob", "POST", jobsPath, body, "Idempotency-Key", "k2")
	if first.status != 201 || first.body != again.body || first.body == other.body {
		t.Errorf("%s, again %s, with another key %s", first.body, again.body, other.body)
	}
}

func TestASubmissionOfUnknownOutcomeSaysSo(t *testing.T) {
	t.Parallel()
	body := `{"job":{"workingDirectory":"/tmp","script":"#!/bin/sh"}}`
	for _, run := range []refusing{
		{err: executor.ErrOutcomeUnknown},
		{err: fmt.Errorf("late: %w", executor.ErrOutcomeUnknown), node: "login1:22"},
		{err: executor.ErrClosed, node: "login1:22"},
		{err: executor.ErrRevoked, node: "login1:22"},
	} {
		a := bareSlurm(t, run).as("alice", "POST", "/compute/clustera/jobs", body)
		a.fails(424, "The outcome of the submission is unknown")
		if a.header.Get("F7T-ErrorCode") != "outcome_unknown" || a.header.Get("Retry-After") != "" {
			t.Errorf("%v: %v", run.err, a.header)
		}
	}
	bareSlurm(t, refusing{late: true, node: "login1:22"}).as("alice", "POST", "/compute/clustera/jobs", body).
		fails(408, "Command execution timeout limit exceeded. The outcome of the submission is unknown")
	// What was not started can be tried again.
	bareSlurm(t, refusing{err: executor.ErrUnavailable, node: "login1:22"}).as("alice", "POST", "/compute/clustera/jobs", body).fails(503, "unhealthy")
	bareSlurm(t, refusing{err: executor.ErrClosed}).as("alice", "POST", "/compute/clustera/jobs", body).fails(503, "shutting down")
	bareSlurm(t, refusing{err: executor.ErrBusy}).as("alice", "POST", "/compute/clustera/jobs", body).fails(429, "Nothing was done")
}

func TestBackPressureIsWhatClientsWaitFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err    error
		status int
		phrase string
		retry  string
	}{
		{executor.ErrBusy, 429, "Nothing was done", "1"},
		{executor.ErrUnavailable, 503, "The ssh service for the requested system is unhealthy", "5"},
		{executor.ErrLoginRefused, 424, "Unable to establish SSH connection.", ""},
		{executor.ErrHostKey, 424, "Unable to establish SSH connection.", ""},
		{executor.ErrNoCredential, 403, "No credential", ""},
		{executor.ErrOutcomeUnknown, 424, "SSH connection Reset.", ""},
		{fmt.Errorf("secret path /etc/x"), 500, "Something is wrong with the service", ""},
	} {
		s := bareSlurm(t, refusing{err: tc.err})
		for _, path := range []string{"/compute/clustera/jobs", "/compute/clustera/jobs/7", "/status/clustera/nodes", "/status/clustera/userinfo"} {
			a := s.as("alice", "GET", path, "")
			a.fails(tc.status, tc.phrase)
			if a.header.Get("Retry-After") != tc.retry || strings.Contains(a.body, "secret") || a.header.Get("F7T-AuthUsername") != "alice" {
				t.Errorf("%v: %v %s", tc.err, a.header, a.body)
			}
		}
	}
}

func TestAccountingThatIsDownMeansPartialDataAndNoFailure(t *testing.T) {
	c := slurm(t)
	id := c.submit("alice", map[string]any{"script": "#!/bin/sh\nsleep 300\n", "standardOutput": "/dev/null"})
	c.await("alice", id, "RUNNING")
	c.root("pkill -x slurmdbd; while pgrep -x slurmdbd; do sleep 0.1; done >/dev/null")
	defer c.root("slurmdbd; until sacctmgr -n list cluster; do sleep 0.1; done >/dev/null 2>&1")
	a := c.as("alice", "GET", jobsPath, "")
	a.answers(200, jobsShape)
	if !strings.Contains(a.body, `"jobId":"`+id+`"`) || a.header.Get("F7T-PartialData") != "sacct" {
		t.Errorf("%v %s", a.header, a.body)
	}
	if job := c.job("alice", id); state(job) != "RUNNING" {
		t.Errorf("%v", job)
	}
	a = c.as("alice", "GET", jobsPath+"/999999", "")
	a.fails(429, "sacct does not answer")
	if a.header.Get("Retry-After") != "10" {
		t.Errorf("%v", a.header)
	}
	v := c.as("alice", "GET", "/status/clustera/userinfo", "").answers(200, map[string]shape{
		"user": userInfoShape["user"], "group": userInfoShape["group"], "groups": userInfoShape["groups"], "accounts": "list?",
	})
	if v["accounts"] != nil {
		t.Errorf("%v", v)
	}
	if a := c.as("alice", "DELETE", jobsPath+"/"+id, ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
