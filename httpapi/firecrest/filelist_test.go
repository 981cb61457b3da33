package firecrest_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var listShape = map[string]shape{"output": []shape{fileShape}}

// list is what ls shows, by name, and the names in order.
func (s *fileSite) list(path string, more ...string) (map[string]map[string]any, []string) {
	s.t.Helper()
	files, names := map[string]map[string]any{}, []string{}
	for _, e := range s.get("ls", path, more...).answers(200, listShape)["output"].([]any) {
		m := e.(map[string]any)
		files[m["name"].(string)] = m
		names = append(names, m["name"].(string))
	}
	return files, names
}

func view(m map[string]any) string {
	return words(m["type"], m["permissions"], m["user"], m["group"], m["size"], m["linkTarget"])
}

func TestList(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		s.file("b.txt", "12345")
		s.root(`cd "$1" && mkdir -m 2750 d .h && touch d/x d/.y .h/z && ln -s d to-d && ln -s nowhere dangling && mkfifo pipe && mknod dev c 1 3
			chown -R alice:physics . && chmod 4710 b.txt && chgrp 61999 pipe && chmod 1777 d`, s.dir)
		if err := os.Chtimes(s.dir+"/b.txt", time.Unix(0, 0), time.Date(2026, 7, 1, 10, 0, 0, 5, time.UTC)); err != nil {
			t.Fatal(err)
		}
		files, names := s.list(s.dir)
		if words(names) != "[b.txt d dangling dev pipe to-d]" {
			t.Errorf("%q", names)
		}
		for name, want := range map[string]string{
			"b.txt": "- rws--x--- alice physics 5 <nil>", "d": "d rwxrwsrwt alice physics", "dangling": "l rwxrwxrwx alice physics 7 nowhere",
			"to-d": "l rwxrwxrwx alice physics 1 d", "pipe": "p rw-r--r-- alice 61999 0 <nil>", "dev": "c rw-r--r-- alice physics",
		} {
			if got := view(files[name]); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		// The time is the node's, in summer.
		if files["b.txt"]["lastModified"] != "2026-07-01T12:00:00" {
			t.Errorf("%v", files["b.txt"])
		}
		if _, names = s.list(s.dir, "showHidden", "true"); !slices.Contains(names, ".h") || slices.Contains(names, ".") || len(names) != 7 {
			t.Errorf("%q", names)
		}
		if _, names = s.list(s.dir, "recursive", "1"); words(names) != "[b.txt d dangling dev pipe to-d d/x]" {
			t.Errorf("%q", names)
		}
		if _, names = s.list(s.dir, "recursive", "yes", "showHidden", "on"); words(names) != "[.h b.txt d dangling dev pipe to-d .h/z d/.y d/x]" {
			t.Errorf("%q", names)
		}
		files, _ = s.list(s.dir, "dereference", "true", "numericUid", "true")
		id := strings.Fields(s.root("id -u alice; getent group physics | cut -d: -f3"))
		if got := view(files["to-d"]); !strings.HasPrefix(got, "d rwxrwsrwt "+id[0]+" "+id[1]) || files["to-d"]["linkTarget"] != nil {
			t.Errorf("%s", got)
		}
		if files["dangling"]["linkTarget"] != "nowhere" {
			t.Errorf("%v", files["dangling"])
		}
	})
}

func TestListOfWhatIsNoDirectory(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		s.root(`cd "$1" && mkdir d && touch d/x && ln -s d link && ln -s none broken`, s.dir)
		for path, want := range map[string]string{
			"/d/x": "[" + s.dir + "/d/x]", "//d/x": "[" + s.dir + "//d/x]", "/link": "[" + s.dir + "/link]", "/link/": "[x]", "/broken": "[" + s.dir + "/broken]",
		} {
			if _, names := s.list(s.dir + path); words(names) != want {
				t.Errorf("%s: %q, want %s", path, names, want)
			}
		}
		files, _ := s.list(s.dir + "/link")
		if m := files[s.dir+"/link"]; m["linkTarget"] != "d" || m["type"] != "l" {
			t.Errorf("%v", m)
		}
		if _, names := s.list(s.dir+"/link", "dereference", "true"); words(names) != "[x]" {
			t.Errorf("%q", names)
		}
		if files, _ = s.list(s.dir+"/broken", "dereference", "true"); files[s.dir+"/broken"]["linkTarget"] != "none" {
			t.Errorf("%v", files)
		}
		s.get("ls", s.dir+"/none").fails(404, "ls: cannot access '"+s.dir+"/none': No such file or directory")
		s.root(`mkdir -m 0 "$1/closed" && chown alice "$1/closed" && mkdir -m 711 "$1/root"`, s.dir)
		s.get("ls", s.dir+"/closed").fails(403, "Permission denied")
		s.get("ls", s.dir+"/root").fails(403, "Permission denied")
	})
}

// Weaknesses 1 and 41: every name comes as it is, and can be used in the next call.
func TestAwkwardNamesAreListedAndFound(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		for _, name := range hostile {
			s.file(name, name)
			if err := os.Symlink(name, filepath.Join(s.dir, "l"+name[:min(len(name), 100)])); err != nil {
				t.Fatal(err)
			}
		}
		files, names := s.list(s.dir, "showHidden", "true")
		if len(names) != 2*len(hostile) {
			t.Errorf("%d names, want %d: %q", len(names), 2*len(hostile), names)
		}
		for name, m := range files {
			v := inner(s.get("stat", s.dir+"/"+name, "dereference", "true").answers(200, statShape))
			target := name
			if m["type"] == "l" {
				target = m["linkTarget"].(string)
			} else if words(v["size"]) != m["size"] {
				t.Errorf("%q: size %v, %v", name, m["size"], v["size"])
			}
			if files[target]["size"] != words(v["size"]) {
				t.Errorf("%q is a link to %q, of size %v", name, target, v["size"])
			}
		}
		// Bytes that are no text may also be sent as they are.
		s.as("alice", "GET", opsPath+"stat?path="+url.QueryEscape(s.dir)+"/%FF%FE", "").answers(200, statShape)
	})
}

func TestALongListIsRefusedBeforeItBegins(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 20_000)
	s.root(`cd "$1" && seq -f n%g 1 200 | xargs touch`, s.dir)
	if _, names := s.list(s.dir); len(names) != 200 {
		t.Errorf("%d names", len(names))
	}
	s.root(`cd "$1" && seq -f n%g 1 400 | xargs touch`, s.dir)
	s.get("ls", s.dir).fails(413, "Command output exceeded buffer limit.")
}

func TestADeepTreeIsListedInTheOrderOfLs(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	s.root(`cd "$1" && mkdir -p a/s/t a.b b && touch a/s/t/f a/x a.b/y b/z top && chown -R alice .`, s.dir)
	_, names := s.list(s.dir, "recursive", "true")
	if got := fmt.Sprint(names); got != "[a a.b b top a/s a/x a/s/t a/s/t/f a.b/y b/z]" {
		t.Errorf("%s", got)
	}
}
