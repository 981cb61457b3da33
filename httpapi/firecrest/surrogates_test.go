package firecrest

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestNamesOfPythonAreBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"path":"/x/\udcff\uDC80y"}`:            "/x/\xff\x80y",
		`{"path":"\ud83d\ude00\udcc3\udcbc"}`:    "😀\xc3\xbc",
		`{"path":"\\udcff \\\udcfe \u00fc\\\\"}`: `\udcff ` + "\\\xfe ü\\\\",
		`{"path":"/x/\uef80"}`:                   "/x/\x80",
		`{"path":"plain"}`:                       "plain",
	} {
		f, err := parseBody([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := meant(f.text("path")); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{`{"path":"\udc7f"}`, `{"path":"\ud83d"}`, `{"path":"\ud83dx"}`, `{"path":"\ud83d\u0041"}`, `{"path":"\udfff"}`, `{"path":"\ud83d\ud83d\ude00"}`} {
		if _, err := parseBody([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

// What is good JSON without surrogates stays as it is, and nothing becomes longer.
func FuzzBytesOfPython(f *testing.F) {
	for _, seed := range []string{`{"a":"\udcff"}`, `\`, `\u`, `"\\\udc80"`, `"\ud83d\ude00"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		ok := bytesOfPython(text)
		if len(text) != len(before) {
			t.Fatal("another length")
		}
		var v any
		if json.Unmarshal(before, &v) == nil && !json.Valid(text) {
			t.Fatalf("%q became %q, which is no JSON", before, text)
		}
		if !bytes.Contains(before, []byte(`\u`)) && (!ok || !bytes.Equal(before, text)) {
			t.Fatalf("%q became %q", before, text)
		}
		if ok && utf8.Valid(before) && !utf8.Valid(text) {
			t.Fatalf("%q became %q", before, text)
		}
	})
}
