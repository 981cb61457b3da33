package firecrest

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestQueriesAreTakenAsTheyStand(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"path=/a;b": "/a;b", "path=/a%3Bb%20c+d": "/a;b c d", "path=/100%": "/100%", "path=/100%zz%2": "/100%zz%2", "path=/%FF": "/\xff",
		"a;b&path=x=y": "x=y", "path": "", "": "", "path=1&path=2": "1", "%70ath=x": "x", "&&path=x": "x",
	} {
		if got := parseQuery(raw).Get("path"); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"a=b", "a=%41&b", "%", "%%41", "a+b=c;d", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		strict, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		got := parseQuery(raw)
		for name := range strict {
			if name != "" && got.Get(name) != strict.Get(name) {
				t.Errorf("%q: %q is %q, and %q to net/url", raw, name, got.Get(name), strict.Get(name))
			}
		}
	})
}

// FuzzPlace checks that no path that is let through leaves the file systems.
func FuzzPlace(f *testing.F) {
	for _, seed := range []string{"/home/a", "/home/../etc", "/home/", "/homes", "/scratch/x/./../y", "\uefff", "/home/\uef80/..", "/home\x00", "//home//a/"} {
		f.Add(seed)
	}
	c := &call{system: &system{System: System{Name: "A", FileSystems: []FileSystem{{Path: "/home"}, {Path: "/scratch/x"}}}}}
	f.Fuzz(func(t *testing.T, text string) {
		in := &fields{location: "query", get: func(string) (any, bool) { return text, true }}
		p := c.place(in, "path")
		if in.finish() != nil {
			return
		}
		clean := strings.TrimSuffix(p.path, "/")
		inside := clean == "/home" || clean == "/scratch/x" || strings.HasPrefix(clean, "/home/") || strings.HasPrefix(clean, "/scratch/x/")
		if !inside || path.Clean(clean) != clean || p.name != text || strings.ContainsRune(clean, 0) {
			t.Errorf("%q became %+v", text, p)
		}
	})
}

func TestNoFileSystemIsRemovedWithWhatItLiesIn(t *testing.T) {
	t.Parallel()
	c := &call{system: &system{System: System{FileSystems: []FileSystem{{Path: "/home"}, {Path: "/home/store/old"}}}}}
	for text, whole := range map[string]bool{
		"/home": true, "/home/": true, "/home/store": true, "/home/store/": true, "/home/store/old": true, "/home/x/../store": true,
		"/home/stor": false, "/home/store/older": false, "/home/store/old/x": false, "/home/x/home": false,
	} {
		in := &fields{location: "query", get: func(string) (any, bool) { return text, true }}
		c.notWhole(in, c.place(in, "path"))
		if got := in.finish() != nil; got != whole {
			t.Errorf("%s: refused %t", text, got)
		}
	}
	c.system.FileSystems = []FileSystem{{Path: "/"}}
	in := &fields{location: "query", get: func(string) (any, bool) { return "/", true }}
	if c.notWhole(in, c.place(in, "path")); in.finish() == nil {
		t.Error("the root is removed")
	}
}
