package firecrest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/executor"
	"sallyport/httpapi"
	"sallyport/httpapi/firecrest"
	"sallyport/httpapi/firecrest/s3"
	"sallyport/policy"
)

// noStorage must not be asked for anything.
type noStorage struct{ t *testing.T }

func (s noStorage) Stage(context.Context, string, int64, s3.Side, s3.Side) (s3.Object, error) {
	s.t.Error("an object was prepared")
	return s3.Object{}, errInTest
}
func (noStorage) Abort(context.Context, s3.Object) {}
func (noStorage) Describe() s3.Description         { return s3.Description{} }

var errInTest = fmt.Errorf("not in this test")

// newNarrowSite is a site whose policy allows bob all, and alice all but what the rule
// denies.
func newNarrowSite(t *testing.T, denied ...string) *fileSite {
	t.Helper()
	return newRuledSite(t, policy.Rule{Name: "guests", Deny: true, Users: []string{"alice"}, Operations: denied}, policy.Rule{Name: "rest"})
}

func newRuledSite(t *testing.T, ruled ...policy.Rule) *fileSite {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a node with users of its own")
	}
	node := fileNodes["internal-sftp"]
	node.once.Do(func() { node.start("internal-sftp") })
	if node.err != nil {
		t.Fatal(node.err)
	}
	run, err := executor.New(executor.Config{
		Systems:     []executor.System{{Name: "ClusterA", Nodes: []string{node.Addr()}, KnownHosts: []string{node.KnownHosts()}, DefaultTimeout: 20 * time.Second}},
		Credentials: node.ca, Audit: noAudit{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	rules, err := policy.New(policy.Config{
		Operations: slices.Concat(httpapi.Operations(), firecrest.Operations()), Systems: []string{"ClusterA"},
		Powers: slices.Concat(httpapi.Powers(), firecrest.Powers()),
		Rules:  ruled,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &fileSite{node: node, site: serveWith(t, firecrest.Config{
		Commands: run, Staging: noStorage{t}, Streaming: &firecrest.Streaming{Hosts: []string{"127.0.0.1"}, Wait: time.Minute, MaxUpload: 1 << 20},
		Systems: []firecrest.System{{
			Name: "ClusterA", Scheduler: "slurm", FileSystems: []firecrest.FileSystem{{Path: node.Dir() + "/home", DataType: "users", DefaultWorkDir: true}},
		}},
	}, rules)}
	if s.dir, err = os.MkdirTemp(node.Home("alice"), "t"); err != nil { //nolint:usetesting // it must be below the home
		t.Fatal(err)
	}
	s.root(`chown alice:alice "$1" && echo one >"$1/file" && mkdir "$1/tree" && touch "$1/tree/leaf" && chown -R alice:alice "$1"`, s.dir)
	return s
}

var powers = []string{"exec", "certificates.issue", "compute.submit", "compute.attach"}

// Each call of who may run no commands is served over SFTP, or denied with a reason: no
// call is left out, and what has a need of a command says so in its table.
func TestWhoMayRunNoCommandsIsOfferedFilesAlone(t *testing.T) {
	t.Parallel()
	s := newNarrowSite(t, powers...)
	const denied, policyDenied = "commands_denied", "policy_denied"
	file, q := s.dir+"/file", "?path="+s.dir
	body := func(text string) string { return strings.NewReplacer("DIR", s.dir).Replace(text) }
	stream := `{"path":"DIR/file","transferDirectives":{"transferMethod":"streamer"}}`
	staged := `{"path":"DIR/file","transferDirectives":{"transferMethod":"s3","fileSize":5}}`
	const ops, transfer, jobs = "/filesystem/clustera/ops/", "/filesystem/clustera/transfer/", "/compute/clustera/jobs"
	tried := map[string]bool{}
	for _, c := range []struct{ operation, method, path, body, code string }{
		{"status.systems", "GET", "/status/systems", "", ""},
		{"status.nodes", "GET", "/status/clustera/nodes", "", denied},
		{"status.partitions", "GET", "/status/clustera/partitions", "", denied},
		{"status.reservations", "GET", "/status/clustera/reservations", "", denied},
		{"status.userinfo", "GET", "/status/clustera/userinfo", "", denied},
		{"status.userinfo", "HEAD", "/status/clustera/userinfo", "", denied},
		{"status.userinfo", "GET", "/STATUS/ClusterA/%75serinfo/", "", denied},
		{"filesystem.ls", "GET", ops + "ls" + q + "&recursive=true", "", ""},
		{"filesystem.stat", "GET", ops + "stat" + q, "", ""},
		{"filesystem.stat", "GET", ops + "stat" + q + "&exact=true", "", denied},
		{"filesystem.head", "GET", ops + "head?path=" + file, "", ""},
		{"filesystem.tail", "GET", ops + "tail?path=" + file, "", ""},
		{"filesystem.view", "GET", ops + "view?path=" + file, "", ""},
		{"filesystem.download", "GET", ops + "download?path=" + file, "", ""},
		{"filesystem.upload", "POST", ops + "upload" + q, "", ""},
		{"filesystem.chmod", "PUT", ops + "chmod", `{"path":"DIR/file","mode":"600"}`, ""},
		{"filesystem.chmod", "PUT", ops + "chmod", `{"path":"DIR/file","mode":"u+x"}`, denied},
		{"filesystem.chown", "PUT", ops + "chown", `{"path":"DIR/file","owner":"alice"}`, denied},
		{"filesystem.mkdir", "POST", ops + "mkdir", `{"path":"DIR/new/deep","parent":true}`, ""},
		{"filesystem.symlink", "POST", ops + "symlink", `{"path":"DIR/file","linkPath":"DIR/link"}`, ""},
		{"filesystem.rm", "DELETE", ops + "rm?path=" + s.dir + "/link", "", ""},
		{"filesystem.rm", "DELETE", ops + "rm?path=" + s.dir + "/tree", "", denied},
		{"filesystem.checksum", "GET", ops + "checksum?path=" + file, "", denied},
		{"filesystem.file", "GET", ops + "file?path=" + file, "", denied},
		{"filesystem.compress", "POST", ops + "compress", `{"path":"DIR/tree","targetPath":"DIR/a.tgz"}`, denied},
		{"filesystem.extract", "POST", ops + "extract", `{"path":"DIR/a.tgz","targetPath":"DIR"}`, denied},
		{"transfer.mv", "POST", transfer + "mv", `{"path":"DIR/file","targetPath":"DIR/b"}`, denied},
		{"transfer.cp", "POST", transfer + "cp", `{"path":"DIR/file","targetPath":"DIR/b"}`, denied},
		{"transfer.rm", "DELETE", transfer + "rm?path=" + file, "", denied},
		{"transfer.compress", "POST", transfer + "compress", `{"path":"DIR/tree","targetPath":"DIR/a.tgz"}`, denied},
		{"transfer.extract", "POST", transfer + "extract", `{"path":"DIR/a.tgz","targetPath":"DIR"}`, denied},
		{"transfer.upload", "POST", transfer + "upload", staged, denied},
		{"transfer.upload", "POST", transfer + "upload", strings.ReplaceAll(stream, "file", "new-file"), ""},
		{"transfer.download", "POST", transfer + "download", staged, denied},
		{"transfer.download", "POST", transfer + "download", stream, ""},
		{"compute.list", "GET", jobs, "", denied},
		{"compute.show", "GET", jobs + "/7", "", denied},
		{"compute.metadata", "GET", jobs + "/7/metadata", "", denied},
		{"compute.cancel", "DELETE", jobs + "/7", "", denied},
		{"compute.submit", "POST", jobs, `{"job":{"script":"#!/bin/sh\nid","workingDirectory":"DIR"}}`, policyDenied},
		{"compute.attach", "PUT", jobs + "/7/attach", `{"command":"id"}`, policyDenied},
		{"", "POST", "/v1/systems/ClusterA/exec", `{"argv":["id"]}`, policyDenied},
	} {
		tried[c.operation] = true
		text, headers := body(c.body), []string{"Content-Type", "application/json"}
		if c.operation == "filesystem.upload" {
			text, headers[1] = form(t, "bashrc", "id")
		}
		a := s.as("alice", c.method, c.path, text, headers...)
		code := a.header.Get("F7T-ErrorCode")
		if c.operation == "" && strings.Contains(a.body, `"policy_denied"`) {
			code = policyDenied
		}
		if code != c.code || (a.status >= 400) != (c.code != "") || c.code != "" && a.status != 403 {
			t.Errorf("%s %s: %d %q, want %q: %s", c.method, c.path, a.status, code, c.code, a.body)
		}
		if c.code == denied && c.method != "HEAD" && !strings.Contains(a.body, "run no commands on this system") {
			t.Errorf("%s: the caller is told %s", c.operation, a.body)
		}
		need := slices.Contains(firecrest.Commands(), c.operation)
		if need != (c.code != "") && c.operation != "" && !slices.Contains([]string{"filesystem.stat", "filesystem.chmod", "filesystem.rm", "transfer.upload", "transfer.download"}, c.operation) {
			t.Errorf("%s: the table says that it needs a command: %v", c.operation, need)
		}
	}
	for _, name := range firecrest.Operations() {
		if !tried[name] {
			t.Errorf("%s was not tried", name)
		}
	}
	if a := s.as("bob", "GET", "/status/clustera/userinfo", ""); a.header.Get("F7T-ErrorCode") == denied {
		t.Errorf("bob, who may run commands: %d %s", a.status, a.body)
	}
}

// Any one of the powers makes all of them useless to deny: who has one is not held to
// files, and is told nothing else.
func TestOnePowerIsEnoughToRunCommands(t *testing.T) {
	t.Parallel()
	for _, left := range append([]string{""}, powers...) {
		t.Run("with "+left, func(t *testing.T) {
			t.Parallel()
			s := newNarrowSite(t, slices.DeleteFunc(slices.Clone(powers), func(name string) bool { return name == left })...)
			a := s.as("alice", "GET", opsPath+"checksum?path="+s.dir+"/file", "")
			if code := a.header.Get("F7T-ErrorCode"); (code == "commands_denied") != (left == "") || (a.status == 200) != (left != "") {
				t.Errorf("%d %q: %s", a.status, code, a.body)
			}
		})
	}
}

// Who may submit some jobs may run commands, whatever those jobs are. Who may run commands
// only for paths may run none, since a command names no path.
func TestAPowerForSomeJobsIsOne(t *testing.T) {
	t.Parallel()
	files := policy.Rule{Name: "files", Operations: []string{"filesystem.*"}}
	for name, c := range map[string]struct {
		rule policy.Rule
		may  bool
	}{
		"jobs below a folder":     {policy.Rule{Operations: []string{"compute.submit"}, Paths: []string{"/scratch"}}, true},
		"jobs of an account":      {policy.Rule{Operations: []string{"compute.submit"}, When: `job.account == "training"`}, true},
		"jobs but of an account":  {policy.Rule{Operations: []string{"compute.submit"}, When: `!(job.account in ["staff"])`}, true},
		"jobs of somebody else":   {policy.Rule{Operations: []string{"compute.submit"}, When: `user == "bob" && job.account == "training"`}, false},
		"commands below a folder": {policy.Rule{Operations: []string{"exec", "compute.attach", "certificates.issue"}, Paths: []string{"/scratch"}}, false},
		"commands by a path":      {policy.Rule{Operations: []string{"exec", "compute.attach", "certificates.issue"}, When: `path.startsWith("/scratch")`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.rule.Name = "power"
			s := newRuledSite(t, files, c.rule)
			a := s.as("alice", "GET", opsPath+"checksum?path="+s.dir+"/file", "")
			if code := a.header.Get("F7T-ErrorCode"); (a.status == 200) != c.may || (code == "commands_denied") == c.may {
				t.Errorf("%d %q: %s", a.status, code, a.body)
			}
		})
	}
}
