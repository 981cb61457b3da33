package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// hostile are bodies that take many times their bytes once they are decoded.
func hostile(size int) map[string]string {
	keys := func(form string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, form, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	fill := func(unit string) string { return strings.TrimSuffix(strings.Repeat(unit, size/len(unit)), ",") }
	return map[string]string{
		"argv of empty strings":     `{"argv":[` + fill(`"",`) + `]}`,
		"argv of escapes":           `{"argv":[` + fill(`"\u0001",`) + `]}`,
		"env of tiny keys":          `{"command":"x","env":{` + keys(`"%x":"",`) + `}}`,
		"env that names keys twice": `{"command":"x","env":{` + fill(`"a":"",`) + `}}`,
		"principals":                `{"public_key":"x","principals":[` + fill(`"",`) + `]}`,
		"unknown keys":              `{` + keys(`"%x":1,`) + `}`,
		"nested lists":              `{"argv":` + strings.Repeat("[", size/2) + strings.Repeat("]", size/2) + `}`,
		"nested objects":            `{"env":` + strings.Repeat(`{"":`, size/5) + "1" + strings.Repeat("}", size/5) + `}`,
		"empty objects":             `{"argv":[` + fill(`{},`) + `]}`,
		"numbers":                   `{"argv":[` + fill(`1,`) + `]}`,
	}
}

// TestValuesOfABodyAreBoundedBeforeItIsDecoded sends the bodies to every route that takes one.
func TestValuesOfABodyAreBoundedBeforeItIsDecoded(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *Config) { cfg.Compat = Compat{SSHKeys: true, DeiC: "deic"} })
	for _, path := range []string{execPath, "/v1/certificates", "/api/v1/ssh-keys", "/deic/sign", "/deic/signJSON"} {
		size := int(s.api.cfg.MaxExecBody)
		if path != execPath {
			size = int(s.api.cfg.MaxCertificateBody)
		}
		for name, body := range hostile(size - 100) {
			if size < MaxBodyValues*4 && !strings.HasPrefix(name, "nested") {
				continue // no more values than are allowed fit into such a body
			}
			a := s.do(http.MethodPost, path, body)
			a.wantProblem(t, http.StatusBadRequest, "body_malformed")
			if len(a.body) > 1000 {
				t.Errorf("%s: %s: the answer has %d bytes", path, name, len(a.body))
			}
		}
	}
	if left, _ := s.api.bodies.state(); left != s.api.cfg.BodyMemory {
		t.Errorf("%d of %d bytes of bodies are left after all answers", left, s.api.cfg.BodyMemory)
	}
}

// TestMemoryIsChargedAsDecoded: no body that passes takes more memory, decoded, than it was
// charged.
func TestMemoryIsChargedAsDecoded(t *testing.T) {
	for name, body := range hostile(MaxBodyValues * 3) {
		text := []byte(body)
		values, depth := shapeOf(text)
		if depth > MaxBodyDepth || values > MaxBodyValues {
			continue
		}
		charged := int64(len(text)) + int64(values)*valueMemory
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		o, err := parseObject(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		kept := []any{o.texts("argv"), o.texts("principals"), o.textMap("env"), o, text}
		runtime.ReadMemStats(&after)
		took := int64(after.TotalAlloc - before.TotalAlloc)
		if took > charged {
			t.Errorf("%s: %d values in %d bytes take %d, charged are %d", name, values, len(text), took, charged)
		}
		t.Logf("%-28s %6d values, %7d bytes: %8d taken, %8d charged", name, values, len(text), took, charged)
		runtime.KeepAlive(kept)
	}
}

// TestMembersAreThoseOfTheDecoder compares the way through a text with encoding/json.
func TestMembersAreThoseOfTheDecoder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		space := rapid.StringMatching(`[ \t\r\n]{0,2}`)
		var list, object []string
		want := map[string]string{}
		for range rapid.IntRange(0, 6).Draw(t, "members") {
			value, err := json.Marshal(map[string]any{"k": []any{rapid.String().Draw(t, "text"), rapid.Float64Range(-1e9, 1e9).Draw(t, "number"), nil, true}})
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "plain") {
				value = value[len(`{"k":[`):strings.LastIndex(string(value), `,null`)]
				value = value[:strings.LastIndexByte(string(value), ',')]
			}
			name := rapid.String().Draw(t, "name")
			key, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, twice := want[name]; twice {
				continue
			}
			want[name] = string(value)
			list = append(list, space.Draw(t, "a")+string(value)+space.Draw(t, "b"))
			object = append(object, space.Draw(t, "a")+string(key)+space.Draw(t, "b")+":"+list[len(list)-1])
		}
		o, err := parseObject([]byte("{" + strings.Join(object, ",") + space.Draw(t, "end") + "}"))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for name, raw := range o.fields {
			got[name] = string(raw)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		n := 0
		for key, value := range membersOf([]byte("[" + strings.Join(list, ",") + " ]")) {
			if key != nil || string(value) != strings.Trim(list[n], " \t\r\n") {
				t.Errorf("member %d is %q", n, value)
			}
			n++
		}
		if n != len(list) {
			t.Errorf("%d members of %d", n, len(list))
		}
	})
}

func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"\"]"],"b":{"c":null}}`, `{}`, `{"a" : "\\" , "b":-1e9 }`, `[`, "{\"\\ud800\":0}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseObject(data)
		var want map[string]json.RawMessage
		wanted := json.Unmarshal(data, &want)
		if err == nil && (wanted != nil || len(o.fields) != len(want)) {
			t.Fatalf("%q: %d fields, encoding/json has %d, %v", data, len(o.fields), len(want), wanted)
		}
		if err != nil {
			return
		}
		for name := range o.fields {
			if _, ok := want[name]; !ok {
				t.Errorf("%q: field %q", data, name)
			}
			_, _, _ = o.text(name), o.texts(name), o.textMap(name) // must not panic
		}
		values, depth := shapeOf(data)
		if values < len(want) || depth < 1 {
			t.Errorf("%q: %d values, %d deep", data, values, depth)
		}
	})
}
