package firecrest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var oneShape = map[string]shape{"output": fileShape}

func (s *fileSite) delete(path string) answer {
	s.t.Helper()
	return s.as("alice", "DELETE", opsPath+"rm"+query(path), "")
}

func (a answer) empty() {
	a.t.Helper()
	if a.status != 204 || a.body != "" || a.header.Get("Content-Type") != "application/json" {
		a.t.Errorf("%s: %d %s %v", a.what, a.status, a.body, a.header)
	}
}

func TestMkdir(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		d := s.dir + "/d"
		v := inner(s.send("POST", "mkdir", map[string]any{"path": d}).answers(201, oneShape))
		if v["name"] != d || view(v) != words("d", "rwxr-xr-x", "alice", "alice", v["size"], nil) {
			t.Errorf("%v", v)
		}
		s.send("POST", "mkdir", map[string]any{"path": d}).fails(400, "mkdir: cannot create directory '"+d+"': File exists")
		s.send("POST", "mkdir", map[string]any{"source_path": d, "parent": true}).answers(201, oneShape)
		s.send("POST", "mkdir", map[string]any{"sourcePath": d + "/e/f", "parent": false}).fails(404, "No such file or directory")
		s.send("POST", "mkdir", map[string]any{"sourcePath": d + "/e/f/", "parent": true}).answers(201, oneShape)
		s.send("POST", "mkdir", map[string]any{"path": d + "/../../../bob/x", "parent": true}).fails(403, "Permission denied")
		s.send("POST", "mkdir", map[string]any{"path": "/tmp/x"}).fails(400, "does not match any")
		s.send("POST", "mkdir", map[string]any{"parent": true}).fails(400, "path: Field required")
		s.as("alice", "POST", opsPath+"mkdir", "{").fails(400, "JSON object")
		// Weakness 3: what is checked is what is used.
		s.as("alice", "POST", opsPath+"mkdir"+query(s.dir), `{"path":"/tmp/sallyport-x"}`).fails(400, "does not match any")
	})
}

func TestSymlink(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		path, link := s.file("f", "content"), s.dir+"/l"
		v := inner(s.send("POST", "symlink", map[string]any{"sourcePath": path, "linkPath": link}).answers(201, oneShape))
		if words(v["name"], v["type"], v["linkTarget"]) != words(link, "l", path) {
			t.Errorf("%v", v)
		}
		s.holds("l", "content")
		s.send("POST", "symlink", map[string]any{"path": path, "link_path": link}).fails(400, "File exists")
		s.send("POST", "symlink", map[string]any{"path": path, "linkPath": s.dir}).fails(400, "File exists")
		s.send("POST", "symlink", map[string]any{"path": path, "linkPath": s.dir + "/no/l"}).fails(404, "No such file or directory")
		s.send("POST", "symlink", map[string]any{"path": s.dir + "/dangling", "linkPath": s.dir + "/l2"}).answers(201, oneShape)
		s.send("POST", "symlink", map[string]any{"path": "/etc/passwd", "linkPath": s.dir + "/l3"}).fails(400, "does not match any")
		s.send("POST", "symlink", map[string]any{"path": path, "linkPath": "/tmp/l3"}).fails(400, "does not match any")
		s.send("POST", "symlink", map[string]any{"path": path}).fails(400, "linkPath: Field required")
	})
}

func TestRm(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		s.root(`cd "$1" && mkdir -p tree/a/b outside && touch tree/a/b/c outside/stays && chmod 400 tree/a/b/c && ln -s ../../outside tree/a/out && ln -s outside link
			chown -Rh alice tree outside link && mkdir roots && touch roots/f`, s.dir)
		s.delete(s.file("f", "")).empty()
		s.delete(s.dir+"/f").fails(404, "rm: cannot remove '"+s.dir+"/f': No such file or directory")
		s.delete(s.dir + "/tree").empty()
		s.delete(s.dir + "/link").empty()
		s.holds("outside/stays", "")
		s.delete(s.dir+"/roots").fails(403, "Permission denied")
		s.delete("/etc/passwd").fails(400, "does not match any")
		for _, all := range []string{"/home", "/home/", "/home/x/.."} {
			s.delete(s.node.Dir()+all).fails(400, "A whole file system is not removed")
		}
		s.as("alice", "DELETE", opsPath+"rm", "").fails(400, "path: Field required")
		s.only("outside", "roots")
	})
}

func TestChmod(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		path, d := s.file("f", ""), s.dir+"/d"
		s.root(`mkdir "$1" && chown alice:physics "$1" && chmod 2755 "$1" && ln -s f "$2/l" && touch "$2/roots"`, d, s.dir)
		for _, c := range []struct{ path, mode, want string }{
			{path, "640", "rw-r-----"},
			{path, "0", "---------"},
			{path, "u=rwx,go=rX", "rwxr-xr-x"},
			{path, "-x", "rw-r--r--"},
			{path, "4711", "rws--x--x"},
			{path, "00600", "rw-------"},
			{path, "g=u", "rw-rw----"},
			{path, "+600", "rw-rw----"},
			{s.dir + "/l", "644", "rwxrwxrwx"},
			{d, "700", "rwx--S---"},
			{d, "00700", "rwx------"},
			{d, "1777", "rwxrwxrwt"},
			{d, "g+s", "rwxrwsrwt"},
			{d, "0777", "rwxrwsrwx"},
		} {
			v := inner(s.send("PUT", "chmod", map[string]any{"path": c.path, "mode": c.mode}).answers(200, oneShape))
			if v["name"] != c.path || v["permissions"] != c.want {
				t.Errorf("%s: %v, want %s", c.mode, v, c.want)
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", info, err)
		}
		for _, mode := range []string{"", "8", "999", "u+q", "--reference=/etc/passwd", "644 /etc", "644;id", "7777777"} {
			s.send("PUT", "chmod", map[string]any{"path": path, "mode": mode}).fails(400, "mode: ")
		}
		s.send("PUT", "chmod", map[string]any{"path": path, "mode": 644}).fails(400, "mode: Input should be a valid string")
		for _, mode := range []string{"644", "u+x"} {
			s.send("PUT", "chmod", map[string]any{"path": s.dir + "/none", "mode": mode}).fails(404, "No such file or directory")
			s.send("PUT", "chmod", map[string]any{"path": s.dir + "/roots", "mode": mode}).fails(403, "")
		}
		s.as("alice", "PUT", opsPath+"chmod"+query(s.dir), `{"path":"/tmp","mode":"777"}`).fails(400, "does not match any")
	})
}

func TestChown(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		path := s.file("f", "")
		change := func(owner, group any) answer {
			return s.send("PUT", "chown", map[string]any{"path": path, "owner": owner, "group": group})
		}
		for _, c := range []struct {
			owner, group any
			want         string
		}{{"alice", "physics", "physics"}, {nil, nil, "physics"}, {"", "alice", "alice"}, {nil, "physics", "physics"}, {"alice", "", "physics"}} {
			v := inner(change(c.owner, c.group).answers(200, oneShape))
			if words(v["name"], v["user"], v["group"]) != words(path, "alice", c.want) {
				t.Errorf("%v: %v", c, v)
			}
		}
		s.send("PUT", "chown", map[string]any{"sourcePath": path}).answers(200, oneShape)
		id := strings.TrimSpace(s.root("id -g alice"))
		if v := inner(change("", id).answers(200, oneShape)); v["group"] != "alice" {
			t.Errorf("%v", v)
		}
		change("bob", "").fails(403, "Permission denied")
		change("", "bob").fails(403, "Permission denied")
		change("nobody-has-this-name", "").fails(400, "chown: invalid user: 'nobody-has-this-name'")
		change("", "-x").fails(400, "chown: invalid group: '-x'")
		change("alice:physics", "").fails(400, "invalid user")
		change(7, "").fails(400, "owner: Input should be a valid string")
		s.send("PUT", "chown", map[string]any{"path": s.dir + "/none", "owner": "alice"}).fails(404, "No such file or directory")
	})
}

// Weaknesses 1 and 41: every name goes through every operation.
func TestAwkwardNamesGoThroughEveryChange(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		for _, raw := range hostile {
			name := shownName(raw)
			d := s.dir + "/" + name
			v := inner(s.send("POST", "mkdir", map[string]any{"path": d}).answers(201, oneShape))
			if v["name"] != d {
				t.Errorf("%q: %v", name, v)
			}
			if info, err := os.Lstat(filepath.Join(s.dir, raw)); err != nil || !info.IsDir() {
				t.Errorf("%q: %v", raw, err)
			}
			v = inner(s.send("POST", "symlink", map[string]any{"path": d, "linkPath": d + "/" + name}).answers(201, oneShape))
			if v["linkTarget"] != d {
				t.Errorf("%q: %v", name, v)
			}
			s.send("PUT", "chmod", map[string]any{"path": d, "mode": "750"}).answers(200, oneShape)
			s.send("PUT", "chmod", map[string]any{"path": d, "mode": "g-x"}).answers(200, oneShape)
			s.send("PUT", "chown", map[string]any{"path": d, "group": "physics"}).answers(200, oneShape)
			s.delete(d).empty()
		}
		s.only()
		if _, err := os.Lstat(filepath.Join(s.node.Home("alice"), "pwned")); err == nil {
			t.Error("a name was run")
		}
	})
}

// shownName is a name as the API shows it, by rules of its own.
func shownName(raw string) string {
	switch raw {
	case "\xff\xfe":
		return "\uefff\ueffe"
	case "a\xc3":
		return "a\uefc3"
	case "\uefff":
		return "\uefee\uefbf\uefbf"
	}
	return raw
}
