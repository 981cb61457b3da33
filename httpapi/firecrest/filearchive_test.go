package firecrest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var checksumShape = map[string]shape{"output": map[string]shape{"algorithm": "string", "checksum": "string"}}

func TestChecksum(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		for _, raw := range append([]string{"a  b"}, hostile...) { // weakness 42: spaces
			s.file(raw, raw)
			v := inner(s.get("checksum", s.dir+"/"+shownName(raw)).answers(200, checksumShape))
			sum := sha256.Sum256([]byte(raw))
			if words(v["algorithm"], v["checksum"]) != words("SHA256", hex.EncodeToString(sum[:])) {
				t.Errorf("%q: %v", raw, v)
			}
		}
		s.root(`mkfifo "$1/pipe" && touch "$1/roots" && chmod 600 "$1/roots"`, s.dir)
		s.get("checksum", s.dir+"/none").fails(404, "sha256sum: '"+s.dir+"/none': No such file or directory")
		s.get("checksum", s.dir).fails(400, "Is a directory")
		s.get("checksum", s.dir+"/pipe").fails(400, "Not a regular file")
		s.get("checksum", s.dir+"/roots").fails(403, "Permission denied")
	})
}

func TestFileType(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		for _, raw := range hostile {
			s.file(raw, "text\n")
			if got := s.get("file", s.dir+"/"+shownName(raw)).answers(200, textShape)["output"]; got != "ASCII text" {
				t.Errorf("%q: %q", raw, got)
			}
		}
		if got := s.get("file", s.dir).answers(200, textShape)["output"]; got != "directory" {
			t.Errorf("%q", got)
		}
		// Weakness 44: FirecREST answers 200.
		s.get("file", s.dir+"/none").fails(404, "No such file or directory")
	})
}

// Weakness 34: what a login script prints is not taken for the answer.
func TestNoiseOfALoginScriptDoesNoHarm(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		home := s.node.Home("carol")
		s.root(`echo 'echo; echo Welcome; echo "rm: x: Permission denied" >&2' >"$1/.bashrc" && echo text >"$1/f" && chown -R carol "$1"`, home)
		if got := s.as("carol", "GET", opsPath+"file"+query(home+"/f"), "").answers(200, textShape)["output"]; got != "ASCII text" {
			t.Errorf("%q", got)
		}
		v := inner(s.as("carol", "GET", opsPath+"checksum"+query(home+"/f"), "").answers(200, checksumShape))
		if sum := sha256.Sum256([]byte("text\n")); v["checksum"] != hex.EncodeToString(sum[:]) {
			t.Errorf("%v", v)
		}
	})
}

// members are the names in an archive, in order.
func members(t *testing.T, archive, option string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tar", "-t", option, "--quoting-style=literal", "--null", "-f", archive).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	names := strings.Fields(string(out))
	slices.Sort(names)
	return names
}

func TestCompressAndExtract(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		s.root(`cd "$1" && mkdir -p tree/a out && echo 1 >tree/f.txt && echo 2 >tree/a/g.txt && echo 3 >tree/a/h.c && ln -s f.txt tree/l && echo 4 >beside.txt
			chown -Rh alice tree out`, s.dir)
		for _, c := range []struct {
			compression, option string
			magic               string
		}{{"", "-z", "\x1f\x8b"}, {"gzip", "-z", "\x1f\x8b"}, {"none", "--no-auto-compress", "tree/"}, {"bzip2", "-j", "BZh"}, {"xz", "-J", "\xfd7zXZ"}} {
			for pattern, want := range map[string]string{
				"": "[tree/ tree/a/ tree/a/g.txt tree/a/h.c tree/f.txt tree/l]", `.*\.txt`: "[./tree/a/g.txt ./tree/f.txt]",
			} {
				archive := s.dir + "/x.tar"
				body := map[string]any{"source_path": s.dir + "/tree", "target_path": archive, "dereference": false, "match_pattern": nil}
				if pattern != "" {
					body["match_pattern"] = pattern
				}
				if c.compression != "" {
					body["compression"] = c.compression
				}
				s.send("POST", "compress", body).empty()
				text, err := os.ReadFile(archive)
				if err != nil || pattern == "" && !strings.HasPrefix(string(text), c.magic) {
					t.Errorf("%s: %.10q, %v", c.compression, text, err)
				}
				if got := words(members(t, archive, c.option)); got != want { // weakness 47
					t.Errorf("%s of %q: %s, want %s", c.compression, pattern, got, want)
				}
				body = map[string]any{"sourcePath": archive, "targetPath": s.dir + "/out"}
				if c.compression != "" {
					body["compression"] = c.compression
				}
				s.send("POST", "extract", body).empty()
				s.holds("out/tree/a/g.txt", "2\n")
				s.root(`rm -r "$1/out/tree"`, s.dir)
			}
		}
		s.only("beside.txt", "out", "tree", "x.tar") // and no temporary file
	})
}

func TestCompressOfWhatIsAwkward(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	pack := func(body map[string]any) answer { return s.send("POST", "compress", body) }
	// Weaknesses 1 and 2: names and folders are never text of a shell.
	for _, raw := range hostile {
		name := shownName(raw)
		s.root(`mkdir "$1" && mkdir "$1/$2" "$1/out" && echo x >"$1/$2/f" && echo y >"$1/$2/$2" && chown -R alice "$1"`, filepath.Join(s.dir, raw), raw)
		dir := s.dir + "/" + name
		for _, pattern := range []any{nil, `.*`} {
			if pattern != nil && strings.Contains(raw, "\n") { // which the dot of find(1) does not match
				continue
			}
			archive := dir + "/" + name + ".tgz"
			pack(map[string]any{"path": dir + "/" + name, "targetPath": archive, "matchPattern": pattern}).empty()
			s.send("POST", "extract", map[string]any{"path": archive, "targetPath": dir + "/out"}).empty()
			s.holds(raw+"/out/"+raw+"/f", "x\n")
			s.holds(raw+"/out/"+raw+"/"+raw, "y\n")
			s.root(`rm -r "$1/out" && mkdir "$1/out" && chown alice "$1/out"`, filepath.Join(s.dir, raw))
		}
		s.delete(dir).empty()
	}
	if _, err := os.Lstat(filepath.Join(s.node.Home("alice"), "pwned")); err == nil {
		t.Error("a name was run")
	}

	s.root(`cd "$1" && mkdir d && echo 1 >d/f && ln -s f d/l && touch d/roots && chown -R alice d && ln -s d link`, s.dir)
	pack(map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/d/in.tgz"}).empty()
	if got := words(members(t, s.dir+"/d/in.tgz", "-z")); got != "[d/ d/f d/l d/roots]" {
		t.Errorf("%s", got)
	}
	pack(map[string]any{"path": s.dir + "/d/", "targetPath": s.dir + "/d/in.tgz", "matchPattern": `\./[fl]`, "dereference": true}).empty()
	if got := words(members(t, s.dir+"/d/in.tgz", "-z")); got != "[./f]" {
		t.Errorf("%s", got)
	}
	pack(map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/no.tgz", "matchPattern": `$(touch pwned)`}).empty()
	if got := members(t, s.dir+"/no.tgz", "-z"); len(got) != 0 {
		t.Errorf("%s", got)
	}
	for _, c := range []struct {
		body   map[string]any
		status int
		phrase string
	}{
		{map[string]any{"path": s.dir + "/none", "targetPath": s.dir + "/y.tgz"}, 404, "No such file or directory"},
		{map[string]any{"path": s.dir + "/none", "targetPath": s.dir + "/y.tgz", "matchPattern": "x"}, 404, "No such file or directory"},
		{map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/none/y.tgz"}, 404, "No such file or directory"},
		{map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/d"}, 400, "Is a directory"},
		{map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/y.tgz", "matchPattern": `\(`}, 500, "Remote process failed with exit status:1"},
		{map[string]any{"path": s.dir + "/d", "targetPath": "/tmp/y.tgz"}, 400, "does not match any"}, // weakness 4
		{map[string]any{"path": "/etc", "targetPath": s.dir + "/y.tgz"}, 400, "does not match any"},
		{map[string]any{"path": s.dir + "/d"}, 400, "targetPath: Field required"},
		{map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/y.tgz", "compression": "zip"}, 400, "compression: Input should be one of"},
	} {
		pack(c.body).fails(c.status, c.phrase)
	}
	s.root(`chmod 0 "$1/d/roots"; chown root "$1/d/roots"`, s.dir)
	pack(map[string]any{"path": s.dir + "/d", "targetPath": s.dir + "/y.tgz"}).fails(403, "Permission denied")
	s.only("d", "link", "no.tgz")
}

func TestExtractOfWhatIsAwkward(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	s.root(`cd "$1" && mkdir out roots && touch f && tar -czf a.tgz f && chown alice out`, s.dir)
	for _, c := range []struct {
		body   map[string]any
		status int
		phrase string
	}{
		{map[string]any{"path": s.dir + "/none", "targetPath": s.dir + "/out"}, 404, "No such file or directory"},
		{map[string]any{"path": s.dir + "/a.tgz", "targetPath": s.dir + "/none"}, 404, "No such file or directory"},
		{map[string]any{"path": s.dir + "/a.tgz", "targetPath": s.dir + "/roots"}, 403, "Permission denied"},
		{map[string]any{"path": s.dir + "/f", "targetPath": s.dir + "/out"}, 500, "Remote process failed with exit status:2 and error message:"},
		{map[string]any{"path": s.dir + "/a.tgz", "targetPath": "/tmp"}, 400, "does not match any"},
		{map[string]any{"path": "/tmp/a.tgz", "targetPath": s.dir + "/out"}, 400, "does not match any"},
		{map[string]any{"path": s.dir + "/a.tgz", "targetPath": s.dir + "/out", "compression": "lz4"}, 400, "compression: "},
	} {
		s.send("POST", "extract", c.body).fails(c.status, c.phrase)
	}
}
