package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// An installation is a data folder, and the source of its backups.
type installation struct {
	dir    string
	source Source
}

// install makes a data folder with content by name.
func install(t *testing.T, content map[string]string) installation {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return installation{dir, Source{
		Root: dir, Store: filepath.Join(dir, "sallyport.db"), Audit: filepath.Join(dir, "audit"), Config: filepath.Join(dir, "sallyport.toml"),
		Version: "1.2.3", Host: "ca1", Without: []string{filepath.Join(dir, "left-out")},
		Snapshot: func(context.Context) (io.ReadCloser, int64, error) {
			return io.NopCloser(strings.NewReader("snapshot")), int64(len("snapshot")), nil
		},
	}}
}

func usual() map[string]string {
	return map[string]string{
		"sallyport.db": "live", "sallyport.toml": "config", "ca_key": "secret", "ca_key.pub": "public", "keys/second": "other secret",
		"audit/head": "head", "audit/audit-000001.jsonl": "line 1\n", "audit/audit-000002.jsonl": "line 2\n", "audit/notes": "not the log's",
		"left-out": "x", ".snapshot-123": "of a crash",
	}
}

func written(t *testing.T, s Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), &b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree reads all files below dir by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestARestoredFolderHasWhatBelongsToTheService(t *testing.T) {
	t.Parallel()
	in := install(t, usual())
	archive := written(t, in.source)
	dir := filepath.Join(t.TempDir(), "new")
	m, err := Extract(t.Context(), bytes.NewReader(archive), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := usual()
	want["sallyport.db"] = "snapshot"
	for _, name := range []string{"audit/notes", "left-out", ".snapshot-123"} {
		delete(want, name)
	}
	if got := tree(t, dir); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if m.Store != "sallyport.db" || m.Audit != "audit" || m.Config != "sallyport.toml" || m.Version != "1.2.3" || m.Host != "ca1" || m.Created.IsZero() {
		t.Errorf("manifest %+v", m)
	}
	for _, path := range []string{dir, filepath.Join(dir, "keys")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if _, count, err := Inspect(t.Context(), bytes.NewReader(archive)); err != nil || count != len(want) {
		t.Errorf("Inspect: %d files, %v", count, err)
	}
}

func TestPartsOutsideOfTheDataFolderComeAlong(t *testing.T) {
	t.Parallel()
	in, other := install(t, map[string]string{"known_hosts": "hosts"}), t.TempDir()
	for name, text := range map[string]string{"my.toml": "config", "my.key": "secret", "log/head": "head"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(other, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(other, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in.source.Config, in.source.Key, in.source.Audit = filepath.Join(other, "my.toml"), filepath.Join(other, "my.key"), filepath.Join(other, "log")
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := Extract(t.Context(), bytes.NewReader(written(t, in.source)), dir, nil); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"known_hosts": "hosts", "sallyport.db": "snapshot", "sallyport.toml": "config", "ca_key": "secret", "audit/head": "head"}
	if got := tree(t, dir); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The store is copied between the first and the second look at the files.
func TestFilesThatChangeMeanwhileSpoilTheBackup(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(dir string) error{
		"a key is replaced":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca_key"), []byte("sEcret"), 0o600) },
		"a key is destroyed": func(dir string) error { return os.Remove(filepath.Join(dir, "keys/second")) },
		"a key is added":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "keys/third"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := install(t, usual())
			snapshot := in.source.Snapshot
			in.source.Snapshot = func(ctx context.Context) (io.ReadCloser, int64, error) {
				if err := change(in.dir); err != nil {
					return nil, 0, err
				}
				return snapshot(ctx)
			}
			if err := Write(t.Context(), io.Discard, in.source); !errors.Is(err, ErrChanged) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnAuditLogThatGrowsMeanwhileDoesNot(t *testing.T) {
	t.Parallel()
	in := install(t, usual())
	snapshot := in.source.Snapshot
	in.source.Snapshot = func(ctx context.Context) (io.ReadCloser, int64, error) {
		f, err := os.OpenFile(filepath.Join(in.dir, "audit/audit-000002.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("line 3\n")
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return nil, 0, err
		}
		return snapshot(ctx)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := Extract(t.Context(), bytes.NewReader(written(t, in.source)), dir, nil); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir)["audit/audit-000002.jsonl"]; got != "line 2\nline 3\n" {
		t.Errorf("the log is %q: the store would be ahead of it", got)
	}
}

func TestAFolderWithSomethingInItIsLeftAlone(t *testing.T) {
	t.Parallel()
	archive := written(t, install(t, usual()).source)
	above := t.TempDir()
	dir := filepath.Join(above, "new")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "precious"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Extract(t.Context(), bytes.NewReader(archive), dir, nil); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v", err)
	}
	if got := tree(t, above); len(got) != 1 {
		t.Errorf("there is %v", got)
	}
	empty := t.TempDir()
	if _, err := Extract(t.Context(), bytes.NewReader(archive), empty, nil); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

// wantNoTrace extracts r and wants an error, and nothing left behind.
func wantNoTrace(t *testing.T, ctx context.Context, r io.Reader, finish func(string, Manifest) error) error {
	t.Helper()
	above := t.TempDir()
	_, err := Extract(ctx, r, filepath.Join(above, "new"), finish)
	if err == nil {
		t.Error("there was no error")
	}
	if left, _ := os.ReadDir(above); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
	return err
}

func TestAFailureLeavesNoTrace(t *testing.T) {
	t.Parallel()
	archive := written(t, install(t, usual()).source)
	broken := errors.New("broken")
	for cut := 0; cut < len(archive); cut += 512 { // each header, each content
		if err := wantNoTrace(t, t.Context(), io.MultiReader(bytes.NewReader(archive[:cut]), iotest.ErrReader(broken)), nil); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", cut, err)
		}
	}
	// The seal around an archive may break only after it.
	if err := wantNoTrace(t, t.Context(), io.MultiReader(bytes.NewReader(archive), iotest.ErrReader(broken)), nil); !errors.Is(err, broken) {
		t.Errorf("after the end: %v", err)
	}
	refuse := func(string, Manifest) error { return broken }
	if err := wantNoTrace(t, t.Context(), bytes.NewReader(archive), refuse); !errors.Is(err, broken) {
		t.Errorf("what finish says: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := wantNoTrace(t, ctx, bytes.NewReader(archive), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// forge makes an archive with a good manifest and the given entries.
func forge(t *testing.T, manifest string, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	headers = slices.Concat([]tar.Header{{Name: manifestName, Size: int64(len(manifest))}}, headers)
	for i, h := range headers {
		h.Mode = 0o600
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := io.WriteString(w, manifest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestForgedArchivesAreRefused(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(Manifest{Format: format, Store: "db", Audit: "audit", Config: "toml"})
	if err != nil {
		t.Fatal(err)
	}
	good, db, config := string(text), tar.Header{Name: "db"}, tar.Header{Name: "toml"}
	for name, archive := range map[string]io.Reader{
		"nothing":                 strings.NewReader(""),
		"no archive":              strings.NewReader(strings.Repeat("x", 2048)),
		"no manifest":             forge(t, "", db, config),
		"another format":          forge(t, strings.Replace(good, `"format":1`, `"format":2`, 1), db, config),
		"a store elsewhere":       forge(t, strings.Replace(good, `"db"`, `"../db"`, 1), db, config),
		"no store":                forge(t, good, config),
		"no configuration":        forge(t, good, db),
		"a name that climbs":      forge(t, good, db, config, tar.Header{Name: "../evil"}),
		"a name that climbs late": forge(t, good, db, config, tar.Header{Name: "a/../../evil"}),
		"an absolute name":        forge(t, good, db, config, tar.Header{Name: "/tmp/evil"}),
		"an empty name":           forge(t, good, db, config, tar.Header{Name: "."}),
		"a control character":     forge(t, good, db, config, tar.Header{Name: "a\nb"}),
		"a symbolic link":         forge(t, good, db, config, tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"a hard link":             forge(t, good, db, config, tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"a device":                forge(t, good, db, config, tar.Header{Name: "dev", Typeflag: tar.TypeChar}),
		"a name twice":            forge(t, good, db, config, db),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := wantNoTrace(t, t.Context(), archive, nil); !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAMissingDataFolderIsAnError(t *testing.T) {
	t.Parallel()
	in := install(t, usual())
	in.source.Root = filepath.Join(in.dir, "nowhere")
	if err := Write(t.Context(), io.Discard, in.source); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
