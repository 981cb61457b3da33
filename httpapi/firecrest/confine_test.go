package firecrest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"strings"
	"testing"
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
