package firecrest_test

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

var transferShape = map[string]shape{"transferJob": map[string]shape{
	"jobId": "string", "system": "string", "workingDirectory": "string", "logs": map[string]shape{"outputLog": "string", "errorLog": "string"},
}}

// handled submits a job that handles files, waits for its end, and returns both logs.
func (c *cluster) handled(method, op string, status int, in map[string]any, state string) (output, errors string) {
	c.t.Helper()
	target, body := "/filesystem/ClusterA/transfer/"+op, ""
	if method == http.MethodDelete {
		target += "?path=" + url.QueryEscape(in["path"].(string))
	} else {
		body = jsonOf(c.t, in)
	}
	v := c.as("alice", method, target, body).answers(status, transferShape)["transferJob"].(map[string]any)
	c.await("alice", v["jobId"].(string), state)
	if v["workingDirectory"] != c.node.Home("alice") || v["system"] != "ClusterA" {
		c.t.Errorf("%s: %v", op, v)
	}
	logs := v["logs"].(map[string]any)
	read := func(name string) string {
		text, err := os.ReadFile(logs[name].(string))
		if err != nil {
			c.t.Error(err)
		}
		return string(text)
	}
	return read("outputLog"), read("errorLog")
}

func TestJobsHandleFiles(t *testing.T) {
	t.Parallel()
	c := slurm(t)
	home := c.node.Home("alice")
	c.root(`cd ` + home + ` && mkdir "it's" && echo x >"it's/f" && ln -s f "it's/l" && chown -R alice "it's"`)
	path := func(name string) string { return home + "/" + name }
	for _, step := range []struct {
		method, op string
		status     int
		in         map[string]any
		done       string
		there      string
	}{
		{"POST", "cp", 201, map[string]any{"path": path("it's"), "targetPath": path("$(id) copy"), "account": "proj"}, "copied", "$(id) copy/l"},
		{"POST", "mv", 201, map[string]any{"sourcePath": path("$(id) copy"), "target_path": path("-moved")}, "moved", "-moved/f"},
		{"POST", "compress", 201, map[string]any{"path": path("-moved"), "targetPath": path("a;b.tgz")}, "compressed", "a;b.tgz"},
		{"POST", "extract", 201, map[string]any{"path": path("a;b.tgz"), "targetPath": path("it's")}, "extracted", "it's/-moved/f"},
		{"POST", "cp", 201, map[string]any{"path": path("it's"), "targetPath": path("dos\r\n'\r")}, "copied", "dos\r\n'\r/f"},
		{"POST", "compress", 201, map[string]any{"path": path("it's"), "targetPath": path("m.tgz"), "matchPattern": ".*/f"}, "compressed", "m.tgz"},
		{"DELETE", "rm", 200, map[string]any{"path": path("-moved")}, "deleted", "it's"},
	} {
		output, _ := c.handled(step.method, step.op, step.status, step.in, "COMPLETED")
		if !strings.Contains(output, "Files were successfully "+step.done+".\n") || !strings.Contains(output, " Job (id:") {
			t.Errorf("%s: output is %q", step.op, output)
		}
		if _, err := os.Lstat(path(step.there)); err != nil {
			t.Errorf("%s: %v", step.op, err)
		}
	}
	if _, err := os.Lstat(path("-moved")); err == nil {
		t.Error("what was deleted is there")
	}
	// FirecREST's jobs end well whatever happened.
	output, errors := c.handled("POST", "mv", 201, map[string]any{"path": path("none"), "targetPath": path("x")}, "FAILED")
	if strings.Contains(output, "successfully") || !strings.Contains(errors, "Unable to move files exit code:1 error: ") || !strings.Contains(errors, "No such file or directory") {
		t.Errorf("logs are %q and %q", output, errors)
	}
	for op, method := range map[string]string{"mv": "POST", "cp": "POST", "compress": "POST", "extract": "POST"} {
		c.as("alice", method, "/filesystem/clustera/transfer/"+op, jsonOf(t, map[string]any{"path": "/etc/passwd", "targetPath": path("x")})).fails(http.StatusBadRequest, "does not match any")
		c.as("alice", method, "/filesystem/clustera/transfer/"+op, jsonOf(t, map[string]any{"path": path("x"), "targetPath": "/etc/x"})).fails(http.StatusBadRequest, "does not match any")
		c.as("alice", method, "/filesystem/clustera/transfer/"+op, "{}").fails(http.StatusBadRequest, "targetPath")
	}
	c.as("alice", "DELETE", "/filesystem/clustera/transfer/rm?path="+url.QueryEscape(c.node.Dir()+"/home"), "").fails(http.StatusBadRequest, "A whole file system is not removed")
}
