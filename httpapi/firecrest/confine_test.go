package firecrest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"strings"
	"testing"

	"sallyport/httpapi/firecrest"
	"sallyport/policy"
)

// archive is a tar of entries: "name" is a file that holds its name, "name -> target" a link,
// "name => target" a hard link, "name/" a folder.
func archive(t *testing.T, entries ...string) string {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, e := range entries {
		h := &tar.Header{Name: e, Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(e))}
		if name, target, ok := strings.Cut(e, " -> "); ok {
			h = &tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}
		} else if name, target, ok := strings.Cut(e, " => "); ok {
			h = &tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink, Mode: 0o644}
		} else if strings.HasSuffix(e, "/") {
			h = &tar.Header{Name: e, Typeflag: tar.TypeDir, Mode: 0o755}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write([]byte(e))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// An archive may bring a link to anywhere. It leads nowhere: neither what reads nor what
// changes goes through it.
func TestALinkFromAnArchiveLeadsNowhere(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		outside := s.node.Dir() + "/outside-" + s.dir[strings.LastIndexByte(s.dir, '/')+1:]
		s.root(`mkdir -p "$1/deep" && echo secret >"$1/secret" && chmod -R 777 "$1" && mkdir -p "$2/x" && chown alice "$2/x"`, outside, s.dir)
		s.file("a.tgz", archive(t, "root -> /", "up -> ../../../../../..", "out -> "+outside, "fine"))
		s.send("POST", "extract", map[string]any{"path": s.dir + "/a.tgz", "targetPath": s.dir + "/x"}).empty()
		s.file("plain", "plain")
		for _, p := range []string{"/x/root" + outside + "/secret", "/x/out/secret", "/x/out/deep", "/x/out/new", "/x/root/etc/passwd"} {
			p = s.dir + p
			for _, name := range []string{"ls", "stat", "stat&dereference=true", "stat&exact=true", "head", "tail", "view", "checksum", "file", "download"} {
				name, more, _ := strings.Cut(name, "&")
				s.as("alice", "GET", opsPath+name+query(p)+"&"+more, "").fails(403, "leads out of the file systems")
			}
			for _, c := range []struct{ method, op, body string }{
				{"PUT", "chmod", jsonOf(t, map[string]any{"path": p, "mode": "777"})},
				{"PUT", "chmod", jsonOf(t, map[string]any{"path": p, "mode": "u+x"})},
				{"PUT", "chown", jsonOf(t, map[string]any{"path": p, "owner": "alice"})},
				{"POST", "mkdir", jsonOf(t, map[string]any{"path": p})},
				{"POST", "mkdir", jsonOf(t, map[string]any{"path": p + "/a/b", "parent": true})},
				{"POST", "symlink", jsonOf(t, map[string]any{"path": s.dir + "/plain", "linkPath": p})},
				{"POST", "symlink", jsonOf(t, map[string]any{"path": p, "linkPath": s.dir + "/l"})},
				{"POST", "compress", jsonOf(t, map[string]any{"path": p, "targetPath": s.dir + "/c.tgz"})},
				{"POST", "compress", jsonOf(t, map[string]any{"path": s.dir + "/plain", "targetPath": p})},
				{"POST", "compress", jsonOf(t, map[string]any{"path": s.dir + "/x", "targetPath": s.dir + "/c.tgz", "dereference": true})},
				{"POST", "extract", jsonOf(t, map[string]any{"path": s.dir + "/a.tgz", "targetPath": p})},
				{"POST", "extract", jsonOf(t, map[string]any{"path": p, "targetPath": s.dir + "/x"})},
				{"DELETE", "rm" + query(p), ""},
			} {
				if a := s.as("alice", c.method, opsPath+c.op, c.body); a.status != 403 || !strings.Contains(a.body, "out of the file systems") {
					t.Errorf("%s %s %s: %d %s", c.op, c.body, p, a.status, a.body)
				}
			}
			if a := s.upload(p, "f", "new"); a.status != 403 {
				t.Errorf("upload to %s: %d %s", p, a.status, a.body)
			}
		}
		// A file of a second archive does not go through the link of the first one.
		s.file("b.tgz", archive(t, "out/planted"))
		s.as("alice", "POST", opsPath+"extract", jsonOf(t, map[string]any{"path": s.dir + "/b.tgz", "targetPath": s.dir + "/x"})).fails(500, "")
		for _, escape := range [][]string{
			{"l -> " + outside, "l/planted"},
			{"../planted"},
			{outside + "/planted"},
			{"h => " + outside + "/secret"},
			{"l -> " + outside + "/secret", "h => l", "l"},
			{"d/", "d/l -> ../../..", "d/l" + outside + "/planted"},
		} {
			s.file("c.tgz", archive(t, escape...))
			s.as("alice", "POST", opsPath+"extract", jsonOf(t, map[string]any{"path": s.dir + "/c.tgz", "targetPath": s.dir + "/x"}))
		}
		entries, err := os.ReadDir(outside)
		if text, _ := os.ReadFile(outside + "/secret"); err != nil || len(entries) != 2 || string(text) != "secret\n" {
			t.Errorf("%v %v %q", entries, err, text)
		}
		// A link that stays is good, and so is to remove one.
		s.send("POST", "symlink", map[string]any{"path": s.dir + "/plain", "linkPath": s.dir + "/x/good"}).answers(201, oneShape)
		s.get("view", s.dir+"/x/good").answers(200, textShape)
		s.delete(s.dir + "/x/root").empty()
	})
}

// confined is a fileSite whose policy has rules.
func confined(t *testing.T, sftp string, rules func(dir string) []policy.Rule) *fileSite {
	t.Helper()
	s := newFileSite(t, sftp, 0)
	s.root(`mkdir "$1/open" "$1/shut" && echo text >"$1/open/f" && echo text >"$1/shut/f" && ln -s ../shut "$1/open/l" && ln -s ../open "$1/shut/back" && chown -hR alice "$1"`, s.dir)
	p, err := policy.New(policy.Config{Rules: rules(s.dir), Operations: firecrest.Operations(), Powers: firecrest.Powers(), Systems: []string{"ClusterA"}})
	if err != nil {
		t.Fatal(err)
	}
	s.site = serveWith(t, s.config, p)
	return s
}

// Rules per path hold for where a path leads, for both of two, and for what a tree holds.
func TestAPolicyDecidesByWhereAPathLeads(t *testing.T) {
	t.Parallel()
	for sftp := range fileNodes {
		t.Run(sftp, func(t *testing.T) {
			t.Parallel()
			s := confined(t, sftp, func(dir string) []policy.Rule {
				return []policy.Rule{
					{Name: "shut", Deny: true, Paths: []string{dir + "/shut"}, Message: "It is shut."},
					{Name: "own", When: `path.startsWith("` + dir + `")`},
				}
			})
			s.get("view", s.dir+"/open/f").answers(200, textShape)
			s.get("view", s.dir+"/shut/back/f").answers(200, textShape)
			s.get("ls", s.dir).answers(200, listShape)
			for _, p := range []string{"/shut/f", "/open/l/f", "/shut/back/../f", "/open/l"} {
				for _, op := range []string{"stat", "ls", "view", "checksum", "download", "head"} {
					if p == "/open/l" && (op == "stat" || op == "ls") {
						continue // the link itself is open
					}
					if a := s.get(op, s.dir+p); a.status != 403 || a.header.Get("F7T-ErrorCode") != "policy_denied" || !strings.Contains(a.body, "It is shut.") {
						t.Errorf("%s %s: %d %s", op, p, a.status, a.body)
					}
				}
			}
			s.get("ls", s.dir, "recursive", "true").fails(403, "It is shut.")
			s.delete(s.dir).fails(403, "It is shut.")
			s.delete(s.dir+"/open/l/f").fails(403, "It is shut.")
			s.send("POST", "symlink", map[string]any{"path": s.dir + "/shut/f", "linkPath": s.dir + "/open/n"}).fails(403, "It is shut.")
			s.send("POST", "compress", map[string]any{"path": s.dir + "/open", "targetPath": s.dir + "/shut/a.tgz"}).fails(403, "It is shut.")
			s.send("POST", "compress", map[string]any{"path": s.dir, "targetPath": s.dir + "/a.tgz"}).fails(403, "It is shut.")
			s.send("POST", "mkdir", map[string]any{"path": s.dir + "/open/l/d"}).fails(403, "It is shut.")
			s.upload(s.dir+"/open/l", "f", "new").fails(403, "It is shut.")
			s.upload(s.dir+"/open", "g", "new").stored("new")
			if text, err := os.ReadFile(s.dir + "/shut/f"); err != nil || string(text) != "text\n" {
				t.Errorf("%q %v", text, err)
			}
		})
	}
}
