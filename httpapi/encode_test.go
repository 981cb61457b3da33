package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// needSeeds fails a fuzz target whose seeds are gone.
func needSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds in testdata/fuzz/%s (%v)", f.Name(), err)
	}
}

// framesOf sends data in pieces of these sizes and returns the frames.
func framesOf(t *testing.T, data, sizes []byte) []outputFrame {
	t.Helper()
	w := httptest.NewRecorder()
	s := &stream{
		w: w, heartbeat: time.Hour, gone: func(error) {},
		frames: make(chan sending), stop: make(chan struct{}), owner: sync.WaitGroup{},
	}
	s.open(mediaNDJSON)
	out := s.output(eventStdout)
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(sizes) > 0 {
			n = min(n, int(sizes[i%len(sizes)])+1)
		}
		if written, err := out.Write(data[:n]); err != nil || written != n {
			t.Fatalf("wrote %d of %d: %v", written, n, err)
		}
		data = data[n:]
	}
	out.finish()
	s.close()
	var frames []outputFrame
	for dec := json.NewDecoder(w.Body); dec.More(); {
		var f outputFrame
		if err := dec.Decode(&f); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	return frames
}

// FuzzFrames: however a stream is cut into pieces, its frames hold the same
// bytes, and text stays text.
func FuzzFrames(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		data = data[:min(len(data), 512)] // each byte may be a frame
		var joined []byte
		for _, frame := range framesOf(t, data, sizes) {
			switch {
			case frame.Data != nil && frame.DataBase64 == nil:
				joined = append(joined, *frame.Data...)
			case frame.DataBase64 != nil && frame.Data == nil && !utf8.Valid(data):
				raw, err := base64.StdEncoding.DecodeString(*frame.DataBase64)
				if err != nil {
					t.Fatal(err)
				}
				joined = append(joined, raw...)
			default:
				t.Fatalf("frame %+v of %q", frame, data)
			}
		}
		if !bytes.Equal(joined, data) {
			t.Fatalf("%q came out as %q", data, joined)
		}
	})
}

// FuzzObject: no body panics, and what is accepted is what encoding/json reads,
// byte for byte when it is encoded again.
func FuzzObject(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := parseObject(body)
		if err != nil {
			problemOf(context.Background(), err)
			return
		}
		cmd, err := commandOf(o, false)
		if err != nil {
			if p := problemOf(context.Background(), err); p.Code != "field_invalid" || p.Field == "" {
				t.Fatalf("%q: problem %+v", body, p)
			}
			return
		}
		if (cmd.Line == "") == (len(cmd.Argv) == 0) {
			t.Fatalf("%q: neither or both of command and argv", body)
		}
		var want struct {
			Command string
			Argv    []string
			Env     map[string]string
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("%q was accepted and is no JSON: %v", body, err)
		}
		if want.Command != cmd.Line || len(want.Argv) != len(cmd.Argv) || len(want.Env) != len(cmd.Env) {
			t.Fatalf("%q: read as %+v, want %+v", body, cmd, want)
		}
		if cmd.Timeout < 0 || cmd.MaxOutput < 0 {
			t.Fatalf("%q: negative limits in %+v", body, cmd)
		}
	})
}

func TestOutputIsTextOrBase64ForBothStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ out, err, wantOut, wantErr, encoding string }{
		{"", "", "", "", "utf-8"},
		{"ü", "x", "ü", "x", "utf-8"},
		{"\xff", "x", "/w==", "eA==", "base64"},
		{"x", "\xe2\x82", "eA==", "4oI=", "base64"},
	} {
		out, err := collected(c.out), collected(c.err)
		encoding := encodingOf(out, err)
		if out.json(t, encoding) != c.wantOut || err.json(t, encoding) != c.wantErr || encoding != c.encoding {
			t.Errorf("%q, %q: got %q, %q in %s", c.out, c.err, out.json(t, encoding), err.json(t, encoding), encoding)
		}
	}
}

func TestACharacterIsHeldBackUntilItIsWhole(t *testing.T) {
	t.Parallel()
	var s splitter
	for _, c := range []struct{ in, out string }{
		{"a\xe2", "a"},
		{"\x82", ""},
		{"\xacb", "€b"},
		{"\xf0\x9f\x98", ""},
		{"\x80", "😀"},
		{"\xe2x", "\xe2x"},       // not a character: no reason to wait
		{"\x80\x80", "\x80\x80"}, // goes on, but nothing began
		{"\xf0", ""},
	} {
		if got := s.next([]byte(c.in)); string(got) != c.out {
			t.Errorf("%q: sent %q, want %q", c.in, got, c.out)
		}
	}
	if rest := s.rest(); string(rest) != "\xf0" {
		t.Errorf("rest %q", rest)
	}
}

// A golden file must not be a leftover: each is used by a test by its name.
func TestEveryGoldenFileIsUsed(t *testing.T) {
	t.Parallel()
	var source []byte
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tests {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, data...)
	}
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files (%v)", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if !bytes.Contains(source, []byte(name[:len(name)-len(".golden")])) {
			t.Errorf("%s is not used", file)
		}
	}
}
