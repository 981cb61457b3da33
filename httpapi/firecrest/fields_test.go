package firecrest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sallyport/httpapi"
)

func TestFieldsAreTakenAsLenientlyAsFirecRESTTakesThem(t *testing.T) {
	t.Parallel()
	f, err := parseBody([]byte(`{"sourcePath":"/a","target_path":"/b","nothing":null,"empty":"","on":"ON","off":0,"n":"7","m":8,
		"job":{"working_directory":"/w","env":{"A":"1"}}, "unknown":[1,2]}`))
	if err != nil {
		t.Fatal(err)
	}
	job := f.object("job")
	got := []any{
		f.required("path", "sourcePath"), f.text("targetPath"), f.text("nothing"), f.text("empty"), f.flag("on", false), f.flag("off", true),
		f.flag("absent", true), f.whole("n", 0), f.whole("m", 0), f.whole("absent", 9), f.oneOf("empty", "gzip", "none", "gzip"),
		job.required("workingDirectory"), job.texts("env", "environment")["A"],
	}
	want := []any{"/a", "/b", "", "", true, false, true, int64(7), int64(8), int64(9), "gzip", "/w", "1"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("number %d is %v, want %v", i, got[i], want[i])
		}
	}
	if err := f.finish(); err != nil {
		t.Error(err)
	}
}

func TestAllMistakesAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	f, err := parseBody([]byte(`{"path":1,"n":"x","flag":"perhaps","kind":"zip","nul":"a\u0000b","job":{"env":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	f.required("path")
	f.required("targetPath")
	f.whole("n", 0)
	f.flag("flag", false)
	f.oneOf("kind", "", "none", "gzip")
	f.text("nul")
	f.object("job").texts("env")
	refused, ok := errors.AsType[*failure](f.finish())
	if !ok || refused.status != 400 || refused.kind != "validation" {
		t.Fatalf("got %v", refused)
	}
	var names []string
	for _, m := range refused.fields {
		names = append(names, m.Location+"."+m.Name)
	}
	if got := strings.Join(names, " "); got != "body.path body.targetPath body.n body.flag body.kind body.nul body.job.env" {
		t.Errorf("got %s", got)
	}
}

func TestABodyIsOneJSONObject(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "null", "[]", "7", "{", "{}}", "{}{}", "{} x", "{\"a\":\"\xff\"}"} {
		if _, err := parseBody([]byte(text)); !errors.Is(err, errBadJSON) {
			t.Errorf("%q: %v", text, err)
		}
	}
	// It would be replaced, and another file meant than the one that is named.
	for _, text := range []string{`{"path":"/a\ud800"}`, `{"a":["\\","\udc00\ud800"]}`} {
		if _, err := parseBody([]byte(text)); !errors.Is(err, errSurrogate) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if f, err := parseBody([]byte(`{"path":"\ud83d\ude00\\ud800"}`)); err != nil || f.text("path") != "😀\\ud800" {
		t.Errorf("a whole pair: %v", err)
	}
	if _, err := parseBody([]byte(" {} \n")); err != nil {
		t.Error(err)
	}
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"job":{"env":{"A":"1"}}}`, `[`, `{"a":1}{`, `null`, "\xff", `{"path":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := parseBody(text)
		if err != nil {
			return
		}
		job := body.object("job")
		job.texts("env", "environment")
		body.object("transferDirectives").text("transferMethod")
		body.text("path", "sourcePath")
		body.whole("n", 0)
		body.flag("flag", false)
		if err := body.finish(); err != nil && !strings.Contains(err.Error(), "body ") {
			t.Errorf("%v", err)
		}
	})
}

func TestMistakesOfABodyOfManyValuesAreBounded(t *testing.T) {
	t.Parallel()
	var most strings.Builder
	for i := range httpapi.MaxBodyValues - 10 {
		fmt.Fprintf(&most, `,"%s%d":1`, strings.Repeat("é", 200), i)
	}
	f, err := parseBody([]byte(`{"env":{"a":1` + most.String() + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	f.texts("env")
	refused, ok := errors.AsType[*failure](f.finish())
	if !ok || len(refused.fields) != maxMistakes || len(refused.message) > maxMistakes*200 {
		t.Fatalf("%d mistakes are told in %d bytes", len(refused.fields), len(refused.message))
	}
}
