package firecrest_test

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	textShape    = map[string]shape{"output": "string"}
	contentShape = map[string]shape{"output": map[string]shape{"content": "string", "contentType": "string", "startPosition": "int", "endPosition": "int"}}
)

func TestView(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		path := s.file("f", "aé\x00\xff<&>\n\"z")
		view := func(more ...string) any { return s.get("view", path, more...).answers(200, textShape)["output"] }
		for _, c := range []struct {
			more []string
			want string
		}{
			{nil, "aé\x00\ufffd<&>\n\"z"},
			{[]string{"size", "1"}, "a"},
			{[]string{"size", "2"}, "a\ufffd"},
			{[]string{"offset", "3", "size", "2"}, "\x00\ufffd"},
			{[]string{"offset", "10"}, "z"},
			{[]string{"offset", "11"}, ""},
			{[]string{"offset", "99999999999"}, ""},
			{[]string{"size", "5242880"}, "aé\x00\ufffd<&>\n\"z"},
		} {
			if got := view(c.more...); got != c.want {
				t.Errorf("%v: %q, want %q", c.more, got, c.want)
			}
		}
		s.get("view", path, "offset", "-1").fails(400, "`offset` value must be an integer value equal or greater than 0")
		s.get("view", path, "size", "0").fails(400, "`size` value must be an integer value greater than 0")
		s.get("view", path, "size", "5242881").fails(400, "`size` value must be less than 5242880 bytes")
		s.get("view", path, "size", "x").fails(400, "valid integer")
		s.get("view", s.dir+"/none").fails(404, "No such file or directory")
		s.get("view", s.dir).fails(400, "Is a directory")
		s.root(`mkfifo "$1/pipe" && chown alice "$1/pipe" && touch "$1/roots" && chmod 600 "$1/roots"`, s.dir)
		s.get("view", s.dir+"/pipe").fails(400, "Not a regular file")
		s.get("view", s.dir+"/roots").fails(403, "Permission denied")
		if got := s.get("view", s.file("empty", "")).answers(200, textShape)["output"]; got != "" {
			t.Errorf("%q", got)
		}
	})
}

// Weakness 43: FirecREST fails from half of its limit on.
func TestViewShowsAnyPartUpToTheLimit(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	const size = 6 << 20
	path := s.file("big", strings.Repeat("0123456789abcdé", size/16))
	if got := s.get("view", path, "size", "5242880", "offset", "16").answers(200, textShape)["output"].(string); len(got) != 5<<20 || !strings.HasPrefix(got, "0123456789abcdé0") || strings.ContainsRune(got, utf8.RuneError) {
		t.Errorf("%d bytes: %.40q", len(got), got)
	}
}

// TestHeadAndTailAreThoseOfCoreutils has the real programs say what is right.
func TestHeadAndTailAreThoseOfCoreutils(t *testing.T) {
	onFiles(t, func(t *testing.T, s *fileSite) {
		long := strings.Repeat("x", 70_000) + "\n" + strings.Repeat("line\n", 30_000) + "end"
		for i, text := range []string{"", "\n", "a", "a\n", "a\nb\nc", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "\n\n\n\n\n\n\n\n\n\n\n\n\n", long} {
			path := s.file(fmt.Sprint("f", i), text)
			for _, n := range []string{"", "lines 1", "lines 2", "lines 11", "lines 12", "lines 13", "lines 30000", "bytes 1", "bytes 3", "bytes 100000", "bytes 300000"} {
				if len(text) < 1000 && len(n) > 8 {
					continue
				}
				kind, count, _ := strings.Cut(n, " ")
				for op, sign := range map[string]string{"head": "", "head-": "-", "tail": "-", "tail+": "+"} {
					program, more := op[:4], []string{}
					args := []string{"--", path}
					if n != "" {
						more = []string{kind, count}
						args = append([]string{"--" + kind + "=" + strings.TrimPrefix(sign, " ") + count}, args...)
					}
					if len(op) > 4 {
						more = append(more, "skipTrailing", "true", "skipHeading", "true")
					}
					want, err := exec.CommandContext(t.Context(), program, args...).Output()
					if err != nil {
						t.Fatal(err)
					}
					if got := inner(s.get(program, path, more...).answers(200, contentShape))["content"]; got != string(want) {
						t.Errorf("%s %v of %.20q: %d bytes %.30q, want %d bytes %.30q", op, more, text, len(got.(string)), got, len(want), want)
					}
				}
			}
		}
	})
}

func TestHeadAndTailSayWhatTheyShow(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	path := s.file("f", "l1\nl2\nl3\n")
	for _, c := range []struct{ op, query, want string }{
		{"head", "", "lines 0 10"},
		{"head", "lines=2", "lines 0 2"},
		{"head", "lines=2&skipTrailing=true", "lines 0 -2"},
		{"head", "bytes=4&skipTrailing=false", "bytes 0 4"},
		{"head", "bytes=4&skipTrailing=true", "bytes 0 -4"},
		{"head", "skipTrailing=true", "lines 0 10"},
		{"head", "lines=0", "lines 0 0"},
		{"head", "lines=0&bytes=3", "bytes 0 0"},
		{"head", "lines=&bytes=3", "bytes 0 3"},
		{"tail", "", "lines 10 -1"},
		{"tail", "lines=2", "lines -2 -1"},
		{"tail", "lines=2&skipHeading=true", "lines 2 -1"},
		{"tail", "bytes=4", "bytes -4 -1"},
		{"tail", "bytes=4&skipHeading=1", "bytes 4 -1"},
	} {
		v := inner(s.as("alice", "GET", opsPath+c.op+query(path)+"&"+c.query, "").answers(200, contentShape))
		if got := words(v["contentType"], v["startPosition"], v["endPosition"]); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.op, c.query, got, c.want)
		}
	}
	for _, op := range []string{"head", "tail"} {
		s.get(op, path, "lines", "1", "bytes", "1").fails(400, "Only one of `bytes` or `lines` can be specified.")
		s.get(op, path, "lines", "-1").fails(400, "must not be negative")
		s.get(op, path, "lines", "ten").fails(400, "valid integer")
		s.get(op, s.dir+"/none").fails(404, op+": cannot open '"+s.dir+"/none': No such file or directory")
		s.get(op, s.dir).fails(400, "Is a directory") // weakness 44
	}
	if got := inner(s.get("head", path, "lines", "1").answers(200, contentShape))["content"]; got != "l1\n" {
		t.Errorf("%q", got)
	}
}

func TestHeadAndTailAreBounded(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 1000)
	path := s.file("f", strings.Repeat("123456789\n", 200))
	for _, op := range []string{"head", "tail"} {
		if got := inner(s.get(op, path, "lines", "100").answers(200, contentShape))["content"].(string); len(got) != 1000 {
			t.Errorf("%d bytes", len(got))
		}
		for _, more := range [][]string{{"lines", "101"}, {"bytes", "1001"}, {"bytes", "2", "skipTrailing", "true", "skipHeading", "true"}} {
			s.get(op, path, more...).fails(413, "Command output exceeded buffer limit.")
		}
	}
}

func TestTextIsWholeWhereverItIsCut(t *testing.T) {
	t.Parallel()
	s := newFileSite(t, "internal-sftp", 0)
	var text strings.Builder
	for range 100_000 {
		text.WriteRune([]rune("aé日𝄞\n\"\\\x00")[rand.IntN(8)])
	}
	if got := s.get("view", s.file("f", text.String())).answers(200, textShape)["output"]; got != text.String() {
		t.Error("the text has changed")
	}
}
