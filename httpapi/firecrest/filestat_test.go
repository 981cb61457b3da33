package firecrest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var (
	statShape = map[string]shape{"output": map[string]shape{
		"mode": "int", "ino": "int", "dev": "int", "nlink": "int", "uid": "int", "gid": "int", "size": "int", "atime": "int", "ctime": "int", "mtime": "int",
	}}
	fileShape = map[string]shape{
		"name": "string", "type": "string", "linkTarget": "string?", "user": "string", "group": "string", "permissions": "string",
		"lastModified": "string", "size": "string",
	}
)

func inner(v map[string]any) map[string]any { return v["output"].(map[string]any) }

func TestStat(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		path, link := s.file("f.txt", "twelve bytes"), filepath.Join(s.dir, "link")
		if err := os.Symlink("f.txt", link); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(1000, 0), time.Unix(1700000000, 0)); err != nil {
			t.Fatal(err)
		}
		v := inner(s.get("stat", path).answers(200, statShape))
		if words(v["mode"], v["size"], v["atime"], v["mtime"]) != "33188 12 1000 1700000000" {
			t.Errorf("%v", v)
		}
		number := func(v any) int64 {
			n, err := v.(json.Number).Int64()
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if number(inner(s.get("stat", link).answers(200, statShape))["mode"])&0o170000 != 0o120000 {
			t.Error("a link is followed")
		}
		followed := inner(s.get("stat", link, "dereference", "TRUE", "exact", "true").answers(200, statShape))
		if words(followed["mode"], followed["size"], followed["nlink"]) != "33188 12 1" || number(followed["ino"]) == 0 || number(followed["ctime"]) < 1700000001 {
			t.Errorf("%v", followed)
		}
		// AiiDA and pyfirecrest know a missing file by these words.
		for _, exact := range []string{"false", "true"} {
			missing := filepath.Join(s.dir, "none")
			f := s.get("stat", missing, "exact", exact).fails(404, "stat: cannot statx '"+missing+"': No such file or directory")
			if f.ErrorType != "error" || *f.User != "alice" {
				t.Errorf("%+v", f)
			}
		}
		s.get("stat", path+"/x").fails(404, "No such file or directory")
		s.root(`chmod 0 "$1"`, s.dir)
		s.get("stat", path).fails(403, "Permission denied")
		s.root(`chmod 700 "$1"`, s.dir)
	})
}

func TestPathsMustBeBelowAFileSystem(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	home := s.node.Home("alice")
	for path, phrase := range map[string]string{
		"relative": "is not an absolute path.", "~": "is not an absolute path.", "./x": "is not an absolute path.",
		"/":                        "does not match any of the defined filesystem paths for the requested system (clustera).",
		"/etc/passwd":              "does not match any",
		home + "/../../../etc":     "does not match any",
		s.node.Dir() + "/home2":    "does not match any",
		s.node.Dir() + "/home/..":  "does not match any",
		s.node.Dir() + "/home/../": "does not match any",
	} {
		s.get("stat", path).fails(400, phrase)
		s.get("ls", path).fails(400, phrase)
	}
	s.as("alice", "GET", opsPath+"stat", "").fails(400, "path: Field required")
	s.as("alice", "GET", opsPath+"stat?path=", "").fails(400, "path: Field required")
	s.as("alice", "GET", opsPath+"stat?path=%2fa%00b", "").fails(400, "NUL")
	for _, path := range []string{home, home + "/", home + "/./../alice", s.node.Dir() + "/home", "/" + home} {
		s.get("stat", path).answers(200, statShape)
	}
	s.as("", "GET", opsPath+"stat?path=/", "").fails(401, "Not authenticated")
	s.as("alice", "GET", "/filesystem/nowhere/ops/stat?path=/", "").fails(404, "System not found")
}
