package firecrest_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/s3server"
)

const transferPath = "/filesystem/clustera/transfer/"

// refusedOutside says that a call was refused since a path leads out.
func (a answer) refusedOutside() {
	a.t.Helper()
	a.fails(http.StatusForbidden, "leads out of the file systems")
	if code := a.header.Get("F7T-ErrorCode"); code != "path_outside" {
		a.t.Errorf("%s: code %q", a.what, code)
	}
}

// No job is submitted, and no object prepared, for a path that a link leads out of the
// file systems.
func TestNoJobIsSubmittedForWhatLiesOutside(t *testing.T) {
	t.Parallel()
	c, server := stagingSite(t)
	home := c.node.Home("alice")
	outside := c.node.Dir() + "/outside-of-jobs"
	c.root("mkdir -p " + outside + " " + home + "/jail && echo secret >" + outside + "/secret && chmod -R 777 " + outside +
		" && cd " + home + "/jail && echo plain >plain && ln -s " + outside + " out && ln -s / root && ln -s " + outside + "/secret link && chown -hR alice .")
	jail := home + "/jail"
	for _, path := range []string{jail + "/out/secret", jail + "/root" + outside + "/secret", jail + "/out/new"} {
		for _, call := range []struct {
			op   string
			body map[string]any
		}{
			{"mv", map[string]any{"path": path, "targetPath": jail + "/m"}},
			{"mv", map[string]any{"path": jail + "/plain", "targetPath": path}},
			{"cp", map[string]any{"path": path, "targetPath": jail + "/m"}},
			{"cp", map[string]any{"path": jail + "/plain", "targetPath": path}},
			{"compress", map[string]any{"path": path, "targetPath": jail + "/m.tgz"}},
			{"compress", map[string]any{"path": jail + "/plain", "targetPath": path}},
			{"extract", map[string]any{"path": jail + "/plain", "targetPath": path}},
			{"extract", map[string]any{"path": path, "targetPath": jail}},
			{"upload", map[string]any{"path": path, "transferDirectives": map[string]any{"transferMethod": "s3", "fileSize": 1}}},
			{"download", map[string]any{"path": path, "transferDirectives": map[string]any{"transferMethod": "s3"}}},
		} {
			c.as("alice", "POST", transferPath+call.op, jsonOf(t, call.body)).refusedOutside()
		}
		c.as("alice", "DELETE", transferPath+"rm"+query(path), "").refusedOutside()
	}
	// A link that is the last part is followed where what it leads to is read or written.
	c.as("alice", "POST", transferPath+"download", jsonOf(t, map[string]any{"path": jail + "/link", "transferDirectives": map[string]any{"transferMethod": "s3"}})).refusedOutside()
	for _, job := range []map[string]any{
		{"workingDirectory": jail + "/out"},
		{"workingDirectory": outside},
		{"workingDirectory": "/"},
		{"workingDirectory": jail, "standardOutput": "out/planted"},
		{"workingDirectory": jail, "standardError": outside + "/planted"},
		{"workingDirectory": jail, "standardOutput": jail + "/out/%j.txt"},
		{"workingDirectory": jail, "standardInput": "link"},
		{"workingDirectory": jail, "standardOutput": "../../../outside-of-jobs/planted"},
		{"workingDirectory": jail, "standardOutput": "%x/../out/planted"},
		{"workingDirectory": jail, "scriptPath": jail + "/out/secret"},
		{"workingDirectory": jail, "scriptPath": outside + "/secret"},
		{"workingDirectory": jail, "scriptPath": jail + "/link"},
	} {
		if job["scriptPath"] == nil {
			job["script"] = "#!/bin/sh\nid\n"
		}
		c.as("alice", "POST", jobsPath, jsonOf(t, map[string]any{"job": job})).refusedOutside()
	}
	if objects, err := os.ReadDir(filepath.Join(server.Dir, s3server.Bucket, "alice")); len(objects) > 0 {
		t.Errorf("objects were prepared: %v, %v", objects, err)
	}
	// Where links are followed below a folder the job itself finds out, before it reads one.
	if _, errors := c.handled("POST", "cp", 201, map[string]any{"path": jail, "targetPath": home + "/copied", "dereference": true}, "FAILED"); !strings.Contains(errors, "leads out of the file systems") {
		t.Errorf("the copy said %q", errors)
	}
	if left := c.root("ls -A " + outside + "; cat " + outside + "/secret; find " + home + "/copied -name secret 2>/dev/null || :"); left != "secret\nsecret\n" {
		t.Errorf("outside is now %q", left)
	}
}

// A stream is offered for no path that leads out, and one whose folder is replaced by a
// link before the client comes moves nothing.
func TestNoStreamLeadsOut(t *testing.T) {
	t.Parallel()
	s := newStreams(t, time.Minute)
	outside := s.node.Dir() + "/outside-of-streams"
	s.root(`mkdir -p "$1" && echo secret >"$1/secret" && chmod -R 777 "$1" && cd "$2" && ln -s "$1" out && ln -s / root && ln -s "$1/secret" link && mkdir d && echo plain >d/secret && chown -hR alice .`, outside, s.dir)
	for _, path := range []string{"/out/secret", "/out/new", "/root" + outside + "/new", "/link"} {
		for _, op := range []string{"upload", "download"} {
			if path == "/link" && op == "upload" {
				continue // it replaces nothing, a link neither
			}
			s.as("alice", "POST", transferPath+op, jsonOf(t, map[string]any{"path": s.dir + path, "transferDirectives": map[string]any{"transferMethod": "streamer"}})).refusedOutside()
		}
	}
	up, upSecret := s.offer("upload", s.dir+"/d/new")
	down, downSecret := s.offer("download", s.dir+"/d/secret")
	s.root(`cd "$1" && mv d was && ln -s "$2" d && chown -h alice d`, s.dir, outside)
	s.send(s.enter(upSecret), sent([]byte("planted")))
	s.send(s.enter(downSecret), nil)
	if a, b := s.state(up), s.state(down); a != "FAILED" || b != "FAILED" {
		t.Errorf("upload %s, download %s", a, b)
	}
	if left := s.root(`ls -A "$1"; cat "$1/secret"`, outside); left != "secret\nsecret\n" {
		t.Errorf("outside is now %q", left)
	}
}
