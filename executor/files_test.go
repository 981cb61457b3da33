package executor_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"sallyport/executor"
	"sallyport/internal/loginnode"
	"sallyport/store/audit"
)

// fileNodes are the ways to the files of a node.
var fileNodes = map[string]string{
	"internal-sftp": "internal-sftp",
	"sftp-server":   "/usr/lib/openssh/sftp-server",
	"commands":      "none",
}

// A filesCluster is a cluster with files on it.
type filesCluster struct {
	*cluster
	*executor.Files
	dir string // of the user, and empty
}

func newFiles(t testing.TB, sftp string, change func(*executor.Config)) *filesCluster {
	t.Helper()
	node := loginnode.Config{SFTP: sftp}
	if os.Geteuid() == 0 {
		node.Users = []loginnode.User{{Name: "alice", Shell: "/bin/bash", Groups: []string{"project"}}}
	}
	c := newCluster(t, node, change)
	f, err := c.executor.Files(t.Context(), c.caller, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	dir := filepath.Join(c.Home(c.user), "files")
	if err := f.Mkdir(t.Context(), dir, executor.Mode{}, false); err != nil {
		t.Fatal(err)
	}
	return &filesCluster{cluster: c, Files: f, dir: dir}
}

func (c *filesCluster) write(t testing.TB, path, content string) {
	t.Helper()
	if _, err := c.Write(t.Context(), path, strings.NewReader(content), executor.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *filesCluster) content(t testing.TB, path string, offset, size int64) string {
	t.Helper()
	f, err := c.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	n, err := f.WriteRange(t.Context(), &b, offset, size)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d bytes, %d written, %v", n, b.Len(), err)
	}
	return b.String()
}

func (c *filesCluster) names(t testing.TB, dir string, o executor.ListOptions) []string {
	t.Helper()
	var names []string
	err := c.List(t.Context(), dir, o, func(i executor.FileInfo) error {
		names = append(names, i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// eachWay runs a conformance test over every way to the files.
func eachWay(t *testing.T, test func(t *testing.T, c *filesCluster)) {
	t.Helper()
	for name, sftp := range fileNodes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFiles(t, sftp, nil))
		})
	}
}

func TestFilesAreDescribed(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		path := c.dir + "/file"
		c.write(t, path, "hello\n")
		if err := c.Chmod(t.Context(), path, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := c.Symlink(t.Context(), "file", c.dir+"/link"); err != nil {
			t.Fatal(err)
		}
		var want syscall.Stat_t
		if err := syscall.Stat(path, &want); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{path, c.dir + "/link"} {
			i, err := c.Stat(t.Context(), name, true)
			if err != nil || i.Name != name || i.Mode != want.Mode || i.Size != 6 || i.UID != want.Uid || i.GID != want.Gid ||
				i.Modified.Unix() != want.Mtim.Sec || i.Accessed.Unix() != want.Atim.Sec || !i.IsRegular() {
				t.Errorf("%s: %+v, %v", name, i, err)
			}
			i, err = c.StatFull(t.Context(), name, true)
			if err != nil || i.Inode != want.Ino || i.Device != want.Dev || i.Links != 1 || i.Changed.Unix() != want.Ctim.Sec || i.Mode != want.Mode {
				t.Errorf("%s in full: %+v, %v", name, i, err)
			}
		}
		link, err := c.Stat(t.Context(), c.dir+"/link", false)
		if err != nil || !link.IsLink() || link.Size != 4 {
			t.Errorf("%+v, %v", link, err)
		}
		if target, err := c.ReadLink(t.Context(), c.dir+"/link"); err != nil || target != "file" {
			t.Errorf("%q, %v", target, err)
		}
		if found, err := c.RealPath(t.Context(), c.dir+"/../files/link"); err != nil || found != path {
			t.Errorf("%q, %v", found, err)
		}
		if found, err := c.RealPath(t.Context(), c.dir+"/new"); err != nil || found != c.dir+"/new" {
			t.Errorf("%q, %v", found, err)
		}
		if relative, err := c.Stat(t.Context(), "files/file", false); err != nil || relative.Size != 6 {
			t.Errorf("%+v, %v", relative, err)
		}
		if space, err := c.Space(t.Context(), c.dir); err != nil || space.Size == 0 || space.Available > space.Size {
			t.Errorf("%+v, %v", space, err)
		}
	})
}

func TestFilesErrorsHaveTheirKinds(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		ctx := t.Context()
		c.write(t, c.dir+"/file", "x")
		for _, step := range []error{
			c.Mkdir(ctx, c.dir+"/full/below", executor.Mode{}, true),
			c.Mkdir(ctx, c.dir+"/closed", executor.Permissions(0), false),
		} {
			if step != nil {
				t.Fatal(step)
			}
		}
		if err := syscall.Mkfifo(c.dir+"/pipe", 0o666); err != nil {
			t.Fatal(err)
		}
		none := func(executor.FileInfo) error { return nil }
		open := func(path string) error {
			f, err := c.Open(ctx, path)
			if err == nil {
				f.Close()
			}
			return err
		}
		_, missing := c.Stat(ctx, c.dir+"/no", false)
		_, below := c.Stat(ctx, c.dir+"/file/x", false)
		_, denied := c.Stat(ctx, c.dir+"/closed/x", false)
		_, exclusive := c.Write(ctx, c.dir+"/file", strings.NewReader(""), executor.WriteOptions{Exclusive: true})
		_, onDir := c.Write(ctx, c.dir+"/full", strings.NewReader(""), executor.WriteOptions{})
		_, nowhere := c.Write(ctx, c.dir+"/no/file", strings.NewReader(""), executor.WriteOptions{})
		_, forbidden := c.Write(ctx, "/etc/sallyport-test", strings.NewReader(""), executor.WriteOptions{})
		_, tooMuch := c.Write(ctx, c.dir+"/big", strings.NewReader("12345"), executor.WriteOptions{Max: 4})
		_, full := c.Write(ctx, "/dev/full", strings.NewReader("x"), executor.WriteOptions{})
		_, empty := c.Stat(ctx, "", false)
		_, nul := c.Stat(ctx, "a\x00b", false)
		_, long := c.Stat(ctx, c.dir+"/"+strings.Repeat("n", 256), false)
		for name, test := range map[string]struct{ got, want error }{
			"stat of nothing":                {missing, executor.ErrNotFound},
			"stat in a closed directory":     {denied, executor.ErrPermission},
			"list of nothing":                {c.List(ctx, c.dir+"/no", executor.ListOptions{}, none), executor.ErrNotFound},
			"list of a file":                 {c.List(ctx, c.dir+"/file", executor.ListOptions{}, none), executor.ErrNotDirectory},
			"list of a closed directory":     {c.List(ctx, c.dir+"/closed", executor.ListOptions{}, none), executor.ErrPermission},
			"open of nothing":                {open(c.dir + "/no"), executor.ErrNotFound},
			"open of a directory":            {open(c.dir), executor.ErrIsDirectory},
			"open of a pipe":                 {open(c.dir + "/pipe"), executor.ErrNotRegular},
			"open of a foreign file":         {open("/etc/shadow"), executor.ErrPermission},
			"mkdir of what is there":         {c.Mkdir(ctx, c.dir+"/full", executor.Mode{}, false), executor.ErrExists},
			"mkdir over a file":              {c.Mkdir(ctx, c.dir+"/file", executor.Mode{}, true), executor.ErrExists},
			"mkdir in nothing":               {c.Mkdir(ctx, c.dir+"/no/x", executor.Mode{}, false), executor.ErrNotFound},
			"chmod of nothing":               {c.Chmod(ctx, c.dir+"/no", 0o600), executor.ErrNotFound},
			"chmod of a foreign file":        {c.Chmod(ctx, "/etc/passwd", 0o777), executor.ErrPermission},
			"symlink over a file":            {c.Symlink(ctx, "x", c.dir+"/file"), executor.ErrExists},
			"rename of nothing":              {c.Rename(ctx, c.dir+"/no", c.dir+"/x"), executor.ErrNotFound},
			"rename to a directory":          {c.Rename(ctx, c.dir+"/file", c.dir+"/full"), executor.ErrIsDirectory},
			"remove of nothing":              {c.Remove(ctx, c.dir+"/no"), executor.ErrNotFound},
			"remove of a full directory":     {c.Remove(ctx, c.dir+"/full"), executor.ErrNotEmpty},
			"removal of nothing":             {c.RemoveAll(ctx, c.dir+"/no"), executor.ErrNotFound},
			"exclusive write over a file":    {exclusive, executor.ErrExists},
			"write over a directory":         {onDir, executor.ErrIsDirectory},
			"write into nothing":             {nowhere, executor.ErrNotFound},
			"write where it is not allowed":  {forbidden, executor.ErrPermission},
			"write of too much":              {tooMuch, executor.ErrFileLimit},
			"write over a device":            {full, executor.ErrNotRegular},
			"an empty path":                  {empty, executor.ErrInvalidPath},
			"a path with NUL":                {nul, executor.ErrInvalidPath},
			"a name that is too long":        {long, executor.ErrInvalidPath},
			"a path longer than any":         {c.Remove(ctx, strings.Repeat("/n", 2049)), executor.ErrInvalidPath},
			"more entries than wanted":       {c.List(ctx, c.dir, executor.ListOptions{Max: 2}, none), executor.ErrFileLimit},
			"a list whose reader has enough": {c.List(ctx, c.dir, executor.ListOptions{}, func(executor.FileInfo) error { return io.ErrShortWrite }), io.ErrShortWrite},
		} {
			if !errors.Is(test.got, test.want) {
				t.Errorf("%s: %v, want %v", name, test.got, test.want)
			}
		}
		if !errors.Is(below, executor.ErrNotFound) && !errors.Is(below, executor.ErrNotDirectory) {
			t.Errorf("stat below a file: %v", below)
		}
		if told, ok := errors.AsType[*executor.FileError](missing); !ok || told.Path != c.dir+"/no" || told.Op != "stat" || !strings.Contains(told.Error(), `"`+c.dir+`/no"`) {
			t.Errorf("%#v", missing)
		}
		if left := c.names(t, c.dir, executor.ListOptions{Hidden: true}); !slices.Equal(left, []string{"closed", "file", "full", "pipe"}) {
			t.Errorf("left are %q", left)
		}
	})
}

func TestFilesAreListed(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		ctx := t.Context()
		for _, dir := range []string{"/sub/deep", "/.hidden/x", "/closed/x"} {
			if err := c.Mkdir(ctx, c.dir+dir, executor.Mode{}, true); err != nil {
				t.Fatal(err)
			}
		}
		c.write(t, c.dir+"/sub/file", "12")
		for link, target := range map[string]string{"/dangling": "nowhere", "/loop": ".", "/sub/up": "..", "/tofile": "sub/file"} {
			if err := c.Symlink(ctx, target, c.dir+link); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Chmod(ctx, c.dir+"/closed", 0); err != nil {
			t.Fatal(err)
		}
		all := func(o executor.ListOptions, want ...string) {
			t.Helper()
			if got := c.names(t, c.dir, o); !slices.Equal(got, want) {
				t.Errorf("%+v: %q, want %q", o, got, want)
			}
		}
		all(executor.ListOptions{}, "closed", "dangling", "loop", "sub", "tofile")
		all(executor.ListOptions{Hidden: true}, ".hidden", "closed", "dangling", "loop", "sub", "tofile")
		all(executor.ListOptions{Recursive: true}, "closed", "dangling", "loop", "sub", "sub/deep", "sub/file", "sub/up", "tofile")
		all(executor.ListOptions{Recursive: true, Follow: true}, "closed", "dangling", "loop", "sub", "sub/deep", "sub/file", "sub/up", "tofile")
		all(executor.ListOptions{Recursive: true, Hidden: true}, ".hidden", ".hidden/x", "closed", "dangling", "loop", "sub", "sub/deep", "sub/file", "sub/up", "tofile")
		if got := c.names(t, c.dir+"/loop", executor.ListOptions{}); len(got) != 5 {
			t.Errorf("through a link: %q", got)
		}
		for _, o := range []executor.ListOptions{{}, {Follow: true}, {Targets: true}, {Follow: true, Targets: true}} {
			err := c.List(ctx, c.dir, o, func(i executor.FileInfo) error {
				targets := map[string]string{"dangling": "nowhere", "loop": ".", "tofile": "sub/file"}
				want := ""
				if o.Targets {
					want = targets[i.Name]
				}
				link := targets[i.Name] != "" && (!o.Follow || i.Name == "dangling")
				if i.Target != want || i.IsLink() != link || i.Name == "tofile" && o.Follow && i.Size != 2 || i.Modified.IsZero() {
					t.Errorf("%+v: %+v", o, i)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestFilesAreWrittenWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		ctx, path := t.Context(), c.dir+"/file"
		mode := func(path string) uint32 {
			t.Helper()
			i, err := c.Stat(ctx, path, false)
			if err != nil {
				t.Fatal(err)
			}
			return i.Mode
		}
		big := bytes.Repeat([]byte("0123456789abcdef"), 70_001)
		w, err := c.Write(ctx, path, bytes.NewReader(big), executor.WriteOptions{Mode: executor.Permissions(0o604)})
		if err != nil || w.Size != int64(len(big)) || w.SHA256 != sha256.Sum256(big) || mode(path) != 0o100604 {
			t.Errorf("%d bytes, mode %o, %v", w.Size, mode(path), err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%d bytes on the disk, %v", len(got), err)
		}
		for _, r := range [][2]int64{{0, 1}, {5, 40_000}, {32768, 32768}, {1_000_000, 1 << 40}, {int64(len(big)) - 1, 10}, {int64(len(big)), 10}, {1 << 40, 10}, {0, 1<<63 - 1}, {7, 1<<63 - 1}, {3, 0}} {
			from, to := min(r[0], int64(len(big))), min(int64(len(big)), r[0]+min(r[1], 1<<41))
			if got := c.content(t, path, r[0], r[1]); got != string(big[from:max(from, to)]) {
				t.Errorf("range %d: %d bytes, want %d", r, len(got), to-from)
			}
		}
		// A failed write leaves the file as it was, and nothing beside it.
		broken := errors.New("client is gone")
		_, err = c.Write(ctx, path, io.MultiReader(bytes.NewReader(big[:100_000]), readerFunc(func([]byte) (int, error) { return 0, broken })), executor.WriteOptions{})
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		short, cancel := context.WithCancel(ctx)
		_, err = c.Write(short, path, io.MultiReader(bytes.NewReader(big[:100_000]), readerFunc(func([]byte) (int, error) {
			cancel()
			<-c.done(t)
			return 0, io.EOF
		})), executor.WriteOptions{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if got := c.names(t, c.dir, executor.ListOptions{Hidden: true}); !slices.Equal(got, []string{"file"}) {
			t.Errorf("left are %q", got)
		}
		// A link stays one, and so does the mode.
		if err := c.Symlink(ctx, "file", c.dir+"/link"); err != nil {
			t.Fatal(err)
		}
		c.write(t, c.dir+"/link", "new")
		if mode(path) != 0o100604 || mode(c.dir+"/link")&0o170000 != 0o120000 || c.content(t, path, 0, 100) != "new" {
			t.Errorf("modes %o and %o", mode(path), mode(c.dir+"/link"))
		}
		if _, err := c.Write(ctx, c.dir+"/excl", strings.NewReader(""), executor.WriteOptions{Exclusive: true, Max: 1}); err != nil || c.content(t, c.dir+"/excl", 0, 10) != "" {
			t.Errorf("exclusive: %v", err)
		}
		if err := c.Chmod(ctx, c.dir, 0o2751); err != nil || mode(c.dir) != 0o42751 {
			t.Errorf("mode %o, %v", mode(c.dir), err)
		}
		if err := c.Mkdir(ctx, c.dir+"/a/b", executor.Permissions(0o700), true); err != nil || mode(c.dir+"/a/b")&0o777 != 0o700 {
			t.Errorf("mode %o, %v", mode(c.dir+"/a/b"), err)
		}
		// And the group, as far as the caller may give it.
		if os.Geteuid() == 0 {
			_, gid, err := c.IDs(ctx, "", "project")
			if err != nil || c.Chown(ctx, path, nil, gid) != nil {
				t.Fatal(err)
			}
			c.write(t, path, "newer")
			if i, err := c.Stat(ctx, path, false); err != nil || i.GID != *gid || i.Mode != 0o100604 {
				t.Errorf("%+v, %v", i, err)
			}
		}
		if err := c.Rename(ctx, c.dir+"/excl", path); err != nil || c.content(t, path, 0, 10) != "" {
			t.Error(err)
		}
		if i, err := c.Stat(ctx, path, false); err != nil || c.Chown(ctx, path, nil, &i.GID) != nil || c.Chown(ctx, path, &i.UID, nil) != nil {
			t.Errorf("chown to what it is: %v", err)
		}
		root := uint32(0)
		if err := c.Chown(ctx, path, &root, nil); !errors.Is(err, executor.ErrPermission) {
			t.Errorf("chown to root: %v", err)
		}
		// The way of ".." is the node's: behind a link it leads elsewhere.
		if err := c.Mkdir(ctx, c.dir+"/x/y", executor.Mode{}, true); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Symlink(ctx, "x/y", c.dir+"/z"), c.Mkdir(ctx, c.dir+"/z/../made/here", executor.Mode{}, true)); err != nil {
			t.Error(err)
		}
		if got := c.names(t, c.dir+"/z/..", executor.ListOptions{Recursive: true}); !slices.Equal(got, []string{"made", "made/here", "y"}) {
			t.Errorf("list has %q", got)
		}
		if got := c.content(t, "/proc/self/status", 0, 1<<20); !strings.Contains(got, "Uid:") {
			t.Errorf("a file without a size: %q", got)
		}
	})
}

// done is closed at the end of the test.
func (c *filesCluster) done(t *testing.T) <-chan struct{} { return t.Context().Done() }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFilesRemoveAllFollowsNoLinks(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		ctx := t.Context()
		for _, dir := range []string{"/keep", "/tree/a/b", "/-rf"} {
			if err := c.Mkdir(ctx, c.dir+dir, executor.Mode{}, true); err != nil {
				t.Fatal(err)
			}
		}
		c.write(t, c.dir+"/keep/file", "x")
		c.write(t, c.dir+"/tree/a/file", "x")
		for link, target := range map[string]string{"/tree/a/out": c.dir + "/keep", "/link": "keep"} {
			if err := c.Symlink(ctx, target, c.dir+link); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{c.dir + "/tree", c.dir + "/link", "files/-rf"} {
			if err := c.RemoveAll(ctx, path); err != nil {
				t.Error(err)
			}
		}
		if got := c.names(t, c.dir, executor.ListOptions{Recursive: true}); !slices.Equal(got, []string{"keep", "keep/file"}) {
			t.Errorf("left are %q", got)
		}
	})
}

// A relative path is the same one for a command as for SFTP.
func TestFilesBelowAnotherStartingDirectory(t *testing.T) {
	t.Parallel()
	start := t.TempDir()
	for _, dir := range []string{filepath.Dir(start), start} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	c := newFiles(t, "internal-sftp -d "+start, nil)
	if err := c.Mkdir(t.Context(), "files/x", executor.Mode{}, true); err != nil {
		t.Fatal(err)
	}
	if i, err := c.StatFull(t.Context(), "files/x", false); err != nil || !i.IsDir() || i.Inode == 0 {
		t.Errorf("%+v, %v", i, err)
	}
	if err := c.RemoveAll(t.Context(), "files"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.dir); err != nil {
		t.Errorf("the directory of that name in the home: %v", err)
	}
	if left, err := os.ReadDir(start); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestFilesHaveNames(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		i, err := c.Stat(t.Context(), c.dir, false)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // asked, and remembered
			users, groups, err := c.Names(t.Context(), []uint32{i.UID, 0, 4_000_000_000, 0}, []uint32{i.GID, 0, 4_000_000_000})
			if err != nil || users[i.UID] != c.user || users[0] != "root" || users[4_000_000_000] != "4000000000" || groups[0] != "root" || groups[4_000_000_000] != "4000000000" {
				t.Errorf("%v, %v, %v", users, groups, err)
			}
		}
		uid, gid, err := c.IDs(t.Context(), c.user, "root")
		if err != nil || *uid != i.UID || *gid != 0 {
			t.Errorf("%v, %v, %v", uid, gid, err)
		}
		if uid, gid, err = c.IDs(t.Context(), "", "4000000001"); err != nil || uid != nil || *gid != 4_000_000_001 {
			t.Errorf("%v, %v, %v", uid, gid, err)
		}
		for _, name := range []string{"nobody-of-that-name", "--help", "-s", "a:b", "$(id)"} {
			if _, _, err := c.IDs(t.Context(), name, ""); !errors.Is(err, executor.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestFilesAreOnRecord(t *testing.T) {
	t.Parallel()
	for name, changesOnly := range map[string]bool{"reads": false, "changes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newFiles(t, "", func(cfg *executor.Config) { cfg.AuditChangesOnly = changesOnly })
			path := c.dir + "/\xff"
			c.write(t, path, "hello")
			c.content(t, path, 0, 10)
			c.names(t, c.dir, executor.ListOptions{})
			_, _ = c.Stat(t.Context(), path, false)
			if err := c.Mkdir(t.Context(), c.dir, executor.Mode{}, false); !errors.Is(err, executor.ErrExists) {
				t.Error(err)
			}
			starts, ends, reads := c.audit.of(audit.FileStart), c.audit.of(audit.FileEnd), c.audit.of(audit.FileRead)
			if len(starts) != 3 || len(ends) != 3 || len(reads) != map[bool]int{false: 2, true: 0}[changesOnly] {
				t.Fatalf("%d starts, %d ends, %d reads", len(starts), len(ends), len(reads))
			}
			s, e := starts[1], ends[1]
			if s.Detail["operation"] != "write" || s.Detail["path"] != path || s.Detail["path_sha256"] == "" || s.Outcome != audit.Unknown || s.Node != c.Addr() ||
				s.Detail["token_sha256"] == "" || s.Detail["jti"] == "" || e.Detail["jti"] != "" ||
				s.Detail["certificate_serial"] == "" || e.Detail["file_id"] != s.Detail["file_id"] || e.Outcome != audit.Success ||
				e.Detail["bytes"] != "5" || e.Detail["sha256"] != fmt.Sprintf("%x", sha256.Sum256([]byte("hello"))) {
				t.Errorf("%+v\n%+v", s, e)
			}
			if e := ends[2]; e.Outcome != audit.Failure || e.Reason != "file exists" {
				t.Errorf("%+v", e)
			}
			// Without a record nothing happens.
			refused := errors.New("disk is full")
			c.audit.refuse = func(audit.Event) error { return refused }
			if err := c.Remove(t.Context(), path); !errors.Is(err, refused) {
				t.Errorf("remove: %v", err)
			}
			if _, err := c.Open(t.Context(), path); errors.Is(err, refused) == changesOnly {
				t.Errorf("open: %v", err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// A body that breaks off ends with io.ErrUnexpectedEOF, which is no end of a file.
func TestAWriteWhoseInputBreaksOffChangesNothing(t *testing.T) {
	t.Parallel()
	c := newFiles(t, "internal-sftp", nil)
	path := filepath.Join(c.dir, "f")
	c.write(t, path, "before")
	for _, why := range []error{io.ErrUnexpectedEOF, fmt.Errorf("body: %w", io.ErrUnexpectedEOF), io.ErrClosedPipe} {
		broken := io.MultiReader(strings.NewReader("part"), iotest.ErrReader(why))
		if _, err := c.Write(t.Context(), path, broken, executor.WriteOptions{}); !errors.Is(err, why) {
			t.Errorf("%v: %v", why, err)
		}
	}
	if got := c.content(t, path, 0, 100); got != "before" {
		t.Errorf("the file has %q", got)
	}
}
