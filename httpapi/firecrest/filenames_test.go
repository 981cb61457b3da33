package firecrest

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestNamesAreShownAsText(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"plain": "plain", "ü\n'$(x)": "ü\n'$(x)", "a\xffb": "a\uefffb", "\xc3": "\uefc3", "\uef80": "\uefee\uefbe\uef80", "\ufffd": "\ufffd",
	} {
		if got := shown(name); got != want || meant(got) != name {
			t.Errorf("%q is shown as %q, which means %q; want %q", name, got, meant(got), want)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"", "a", "\xff\xfe", "\uef80\uefff", "\xee\xbe", "\xed\xa0\x80", "é\xe9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		text := shown(name)
		encoded, err := json.Marshal(text)
		if err != nil || !utf8.ValidString(text) {
			t.Fatalf("%q: %v", text, err)
		}
		var back string
		if err := json.Unmarshal(encoded, &back); err != nil || meant(back) != name {
			t.Errorf("%q came back as %q, %v", name, meant(back), err)
		}
	})
}
