package importfirecrest_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"sallyport/internal/importfirecrest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// folder is what stands in the folder of oldkeys.yaml.
func folder(path string) ([]importfirecrest.Source, error) {
	if path != "clusters" {
		return nil, fmt.Errorf("no folder %q", path)
	}
	return []importfirecrest.Source{
		{Name: "clusters/a.yaml", Text: []byte("name: one\nssh: {host: one.example.org, port: 22}\nscheduler: {type: slurm, version: '24'}\n")},
		{Name: "clusters/b.yaml", Text: []byte("name: ONE\nssh: {host: two.example.org, port: 22}\nscheduler: {type: pbs, version: '23'}\n")},
	}, nil
}

func notes(r importfirecrest.Result) string {
	var b strings.Builder
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%d: %s: %s\n", n.Line, n.Key, n.Text)
	}
	return b.String()
}

// What comes out is compared with files that people have read; that they are good
// configurations is tested where those are loaded.
func TestConfigurationsAreConverted(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := importfirecrest.Convert(text, folder)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		golden := strings.TrimSuffix(file, ".yaml") + ".toml"
		if *update {
			if err := os.WriteFile(golden, []byte(got.TOML), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.TOML); diff != "" {
			t.Errorf("%s (run with -update to accept):\n%s", file, diff)
		}
		// Nothing secret comes out, nowhere.
		for _, secret := range []string{"hunter2", "dGhpcyBpcyBubyBrZXk", "AAAAdGhpcw", "s3cret-of-the-account", "a-secret-access-key", "an-access-key", "another-secret"} {
			if strings.Contains(got.TOML+notes(got), secret) {
				t.Errorf("%s: %q comes out", file, secret)
			}
		}
	}
}

// Every key is used or named, whatever its name.
func TestNoKeyIsDroppedInSilence(t *testing.T) {
	text, err := os.ReadFile("testdata/three.yaml")
	if err != nil {
		t.Fatal(err)
	}
	spoilt := strings.NewReplacer(
		"host:", "hots:", "usernameClaim", "userNameClaims", "file_systems", "filesystems", "default_work_dir", "defaultworkdirs",
		"idle_timeout", "idletime", "version:", "vers:", "max_ops_file_size", "max_size").Replace(string(text))
	got, err := importfirecrest.Convert([]byte(spoilt), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"clusters[0].ssh.hots: is not known", "auth.authentication.userNameClaims: is not known", "clusters[0].filesystems: is not known",
		"clusters[2].ssh.timeout.idletime: is not known", "clusters[2].scheduler.vers: is not known", "clusters[0].data_operation.max_size: is not known",
	} {
		if !strings.Contains(notes(got), want) {
			t.Errorf("nothing about %q in\n%s", want, notes(got))
		}
	}
}

func TestWhatIsNoConfigurationIsRefusedInOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "empty",
		"- a":                                   "no mapping",
		"a: [":                                  "line 1",
		"x: 1\n  y: 2":                          "line 2",
		"systems: []\nauth: {}":                 "no configuration of FirecREST v2",
		"auth: {}\nclusters: 'path:elsewhere'":  `no folder "elsewhere"`,
		"a: &a [*a, *a]":                        "line 1: with its aliases followed",
		"auth: {}\nclusters: []\n---\na: 1":     "line 3: a second document",
		"auth: {}\nclusters: []\na: !include b": "line 3: tags",
		"auth: {}\nclusters: []\n{a: b}: 1":     "line 3: a key is no text",
		"a: {b_c: 1,\n bC: 2}":                  "line 2: a key stands twice, first in line 1",
		"a: *b":                                 "an alias has no anchor",
		strings.Repeat("#", importfirecrest.MaxBytes+1): "more than",
	} {
		_, err := importfirecrest.Convert([]byte(text), folder)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// Whatever stands in a file, what comes out is TOML, in which nothing stands that the
// conversion did not mean to write.
func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("auth: &a {authentication: *a}\nclusters: [*a, {name: \"x\\n[ca]\\nenabled = true\", ssh: {host: 'a\"b'}}]\nssh_credentials: *a"))
	tables := []string{"ca", "executor", "firecrest", "issuers", "policy", "static_keys", "systems"}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := importfirecrest.Convert(text, folder)
		if err != nil {
			return
		}
		tree := map[string]any{}
		if _, err := toml.Decode(got.TOML, &tree); err != nil {
			t.Fatalf("%v in\n%s", err, got.TOML)
		}
		for key := range tree {
			if !slices.Contains(tables, key) {
				t.Fatalf("table %q in\n%s", key, got.TOML)
			}
		}
	})
}
