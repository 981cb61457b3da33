package firecrest_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sallyport/executor"
	"sallyport/httpapi/firecrest"
	"sallyport/identity"
)

// refusing is an executor that runs nothing, for what is decided before a command.
type refusing struct {
	err  error
	node string // where the command was started
	late bool   // it was ended because its time was over
}

func (r refusing) Run(context.Context, identity.Identity, string, executor.Command) (executor.Result, error) {
	result := executor.Result{ExitCode: -1, TimedOut: r.late}
	result.Node = r.node
	return result, r.err
}

func (r refusing) Files(context.Context, identity.Identity, string) (*executor.Files, error) {
	return nil, r.err
}

func (r refusing) Systems(identity.Identity) []executor.SystemInfo { return nil }

func (r refusing) System(caller identity.Identity, name string) (executor.SystemInfo, error) {
	if caller.Login() == "mallory" {
		return executor.SystemInfo{}, fmt.Errorf("system %q: %w", name, identity.ErrNoLogin)
	}
	return executor.SystemInfo{Name: name, Nodes: []string{"login1:22"}}, nil
}

func bare(t *testing.T, err error) *site {
	t.Helper()
	return serve(t, firecrest.Config{Commands: refusing{err: err}, Systems: []firecrest.System{{Name: "ClusterA"}}})
}

func TestPathsAreTakenInAnyCaseWithAndWithoutASlash(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	for _, path := range []string{"/status/liveness", "/status/liveness/", "/Status/LIVENESS/"} {
		if a := s.as("", "GET", path, ""); a.status != 200 || !strings.Contains(a.body, `"healthcheckRuns"`) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := s.as("", "HEAD", "/status/liveness/", ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	for _, path := range []string{"/status", "/status/", "/status/liveness//", "/status//liveness", "/compute/nothing/here", "/filesystem"} {
		s.as("alice", "GET", path, "").fails(404, "Not Found")
	}
	a := s.as("alice", "DELETE", "/status/liveness", "")
	a.fails(405, "Method Not Allowed")
	if a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
}

func TestEveryAnswerCarriesTheHeadersOfFirecREST(t *testing.T) {
	t.Parallel()
	s := bare(t, nil)
	a := s.as("", "GET", "/status/liveness/", "", "X-Request-ID", "abc", "X-Correlation-ID", "job-7")
	for name, want := range map[string]string{
		"F7T-AppVersion": `^2\.6\.0$`, "F7T-Timestamp": `^\d{10}\.\d+$`, "X-Request-ID": `^abc$`, "X-Correlation-ID": `^job-7$`,
		"Content-Type": `^application/json$`,
	} {
		if got := a.header.Get(name); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	// An id that is not safe is replaced and does not end the request (weakness 25).
	a = s.as("", "GET", "/status/liveness/", "", "X-Request-ID", "a b<script>", "X-Correlation-ID", strings.Repeat("x", 500))
	if id := a.header.Get("X-Request-ID"); a.status != 200 || strings.ContainsAny(id, " <") || id == "" || len(a.header.Get("X-Correlation-ID")) > 64 {
		t.Errorf("%d %v", a.status, a.header)
	}
}

func TestConfigurationMistakesAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := firecrest.New(firecrest.Config{MaxBody: -1, Systems: []firecrest.System{
		{Name: "a", FileSystems: []firecrest.FileSystem{{Path: "home", DataType: "x"}, {Path: "/h/", DataType: "users"}}},
		{Name: "A"},
		{Name: "systems"},
	}})
	for _, want := range []string{
		"a runner is required", "is negative", `"home" is not an absolute, clean path`, `data type "x" is none of users`,
		`"/h/" is not an absolute`, `system "A": another one has this name`, `system "systems": the name is`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// bareSlurm is bare with a scheduler.
func bareSlurm(t *testing.T, run refusing) *site {
	t.Helper()
	return serve(t, firecrest.Config{Commands: run, Systems: []firecrest.System{{Name: "ClusterA", Scheduler: "slurm"}}})
}
