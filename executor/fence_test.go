package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/executor"
)

// fenced are files within "in" of a folder that also has "out", which is named "front" by a
// link, so that the folder of the configuration is itself one.
func fenced(t *testing.T, c *filesCluster, folders ...string) *executor.Files {
	t.Helper()
	for _, name := range []string{"/in", "/in/sub", "/out", "/out/deep", "/other"} {
		if err := c.Mkdir(t.Context(), c.dir+name, executor.Mode{}, false); err != nil {
			t.Fatal(err)
		}
	}
	c.write(t, c.dir+"/in/file", "mine")
	c.write(t, c.dir+"/out/secret", "secret")
	c.write(t, c.dir+"/other/file", "other")
	c.link(t, "in", "front")
	if folders == nil {
		folders = []string{"/front"}
	}
	for i, f := range folders {
		folders[i] = c.dir + f
	}
	return c.Within(executor.Fence{Folders: folders})
}

func (c *filesCluster) link(t *testing.T, target, name string) {
	t.Helper()
	if err := c.Symlink(t.Context(), target, c.dir+"/"+name); err != nil {
		t.Fatal(err)
	}
}

// everyOperation is each operation on a path, and whether it follows a link at its end.
func everyOperation(ctx context.Context, f *executor.Files) []struct {
	name    string
	follows bool
	do      func(path string) error
} {
	uid := uint32(os.Getuid())
	return []struct {
		name    string
		follows bool
		do      func(path string) error
	}{
		{"stat", true, func(p string) error { _, err := f.Stat(ctx, p, true); return err }},
		{"lstat", false, func(p string) error { _, err := f.Stat(ctx, p, false); return err }},
		{"full stat", true, func(p string) error { _, err := f.StatFull(ctx, p, true); return err }},
		{"readlink", false, func(p string) error { _, err := f.ReadLink(ctx, p); return err }},
		{"realpath", true, func(p string) error { _, err := f.RealPath(ctx, p); return err }},
		{"space", true, func(p string) error { _, err := f.Space(ctx, p); return err }},
		{"list", true, func(p string) error {
			return f.List(ctx, p, executor.ListOptions{Recursive: true, Hidden: true}, func(i executor.FileInfo) error {
				return errors.New("an entry was shown")
			})
		}},
		{"open", true, func(p string) error {
			file, err := f.Open(ctx, p)
			if err == nil {
				file.Close()
			}
			return err
		}},
		{"write", true, func(p string) error {
			_, err := f.Write(ctx, p, strings.NewReader("new"), executor.WriteOptions{})
			return err
		}},
		{"mkdir", false, func(p string) error { return f.Mkdir(ctx, p, executor.Mode{}, false) }},
		{"mkdir -p", false, func(p string) error { return f.Mkdir(ctx, p+"/a/b", executor.Mode{}, true) }},
		{"chmod", true, func(p string) error { return f.Chmod(ctx, p, 0o700) }},
		{"chown", true, func(p string) error { return f.Chown(ctx, p, &uid, nil) }},
		{"symlink to", true, func(p string) error { return f.Symlink(ctx, p, p+"-link") }},
		{"rename to", false, func(p string) error { return f.Rename(ctx, p, p+"-renamed") }},
		{"remove", false, func(p string) error { return f.Remove(ctx, p) }},
		{"remove all", false, func(p string) error { return f.RemoveAll(ctx, p) }},
		{"locate", true, func(p string) error { _, err := f.Locate(ctx, executor.Place{Path: p, Follow: true}); return err }},
	}
}

func TestNothingIsDoneThroughALinkThatLeadsOut(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		f := fenced(t, c)
		c.link(t, c.dir+"/out", "in/away")
		c.link(t, "../out", "in/up")
		c.link(t, "/", "in/root")
		c.link(t, c.dir+"/out/none", "in/dangling")
		before := snapshot(t, c.dir)
		for _, p := range []string{
			"away/secret", "up/secret", "up/deep", "root/etc/passwd", "root", "away/none", "up/none/further", "away/", "dangling", "away/../other/file",
		} {
			for _, op := range everyOperation(t.Context(), f) {
				if !op.follows && (p == "root" || p == "dangling") && op.name != "mkdir -p" {
					continue // the link itself is inside
				}
				if op.name == "mkdir -p" && p == "dangling" || strings.HasPrefix(op.name, "remove") && p == "away/" {
					continue // it fails, for another reason
				}
				if err := op.do(c.dir + "/front/" + p); !errors.Is(err, executor.ErrOutside) {
					t.Errorf("%s %s: %v", op.name, p, err)
				}
			}
		}
		for _, p := range []string{c.dir + "/out/secret", c.dir + "/in-not", c.dir + "/frontier", "/etc/passwd", c.dir + "/front/../out/secret"} {
			if _, err := f.Stat(t.Context(), p, true); !errors.Is(err, executor.ErrOutside) {
				t.Errorf("%s: %v", p, err)
			}
		}
		if after := snapshot(t, c.dir); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// snapshot is a tree as root sees it: names, modes, targets and contents.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", strings.TrimPrefix(p, dir), i.Mode())
		switch {
		case i.Mode().IsRegular():
			data, err := os.ReadFile(p)
			fmt.Fprintf(&b, " %q %v", data, err)
		case i.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			fmt.Fprintf(&b, " %q %v", target, err)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWhatLiesWithinAFenceIsUsed(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		f := fenced(t, c, "/front", "/other")
		c.link(t, c.dir+"/other", "in/elsewhere")
		c.link(t, "file", "in/same")
		c.link(t, c.dir+"/out", "in/away")
		ctx, front := t.Context(), c.dir+"/front"
		for _, p := range []string{"/file", "/same", "/elsewhere/file", "/elsewhere/../other/file", "/sub/../file"} {
			file, err := f.Open(ctx, front+p)
			if err != nil {
				t.Errorf("%s: %v", p, err)
				continue
			}
			if _, err := file.WriteRange(ctx, io.Discard, 0, 9); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			file.Close()
		}
		for _, op := range []error{
			f.Mkdir(ctx, front+"/n/m/o", executor.Mode{}, true), f.Mkdir(ctx, front+"/elsewhere/x/", executor.Mode{}, false),
			f.Chmod(ctx, front+"/same", 0o600), f.Symlink(ctx, c.dir+"/other/none/yet", front+"/future"), f.Symlink(ctx, "sub/../file", front+"/relative"),
			f.Rename(ctx, front+"/relative", front+"/elsewhere/moved"), f.Remove(ctx, front+"/future"), f.RemoveAll(ctx, front+"/n"), f.Remove(ctx, front+"/away"),
		} {
			if op != nil {
				t.Error(op)
			}
		}
		if _, err := f.Write(ctx, front+"/same", strings.NewReader("new"), executor.WriteOptions{}); err != nil {
			t.Error(err)
		}
		if got := c.content(t, c.dir+"/in/file", 0, 9); got != "new" {
			t.Errorf("%q", got)
		}
		if _, err := f.Stat(ctx, front+"/none", true); !errors.Is(err, executor.ErrNotFound) {
			t.Error(err)
		}
		if _, err := f.Stat(ctx, front+"/none/further/"+strings.Repeat("x/", 300), true); !errors.Is(err, executor.ErrNotFound) {
			t.Error(err)
		}
		for _, p := range []string{c.dir + "/other", front + "/elsewhere/../other", front + "/elsewhere/../in"} {
			if err := f.RemoveAll(ctx, p); err == nil {
				t.Errorf("%s was removed", p)
			}
		}
	})
}

// What a listing follows is described only if it lies inside.
func TestAListingThatFollowsLinksTellsNothingOfOutside(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		f := fenced(t, c)
		c.link(t, "../out/secret", "in/to-secret")
		c.link(t, "file", "in/to-file")
		links := map[string]bool{}
		err := f.List(t.Context(), c.dir+"/front", executor.ListOptions{Follow: true, Recursive: true}, func(i executor.FileInfo) error {
			links[i.Name] = i.IsLink()
			return nil
		})
		if err != nil || !links["to-secret"] || links["to-file"] || len(links) != 4 {
			t.Errorf("%v %v", links, err)
		}
	})
}

func TestAFenceAsksAboutResolvedPaths(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		fenced(t, c)
		var asked []string
		no := errors.New("no")
		f := c.Within(executor.Fence{Folders: []string{c.dir}, Allow: func(_ context.Context, found []executor.Found) error {
			for _, p := range found {
				asked = append(asked, p.Path)
			}
			return no
		}})
		for _, op := range everyOperation(t.Context(), f) {
			asked = nil
			err := op.do(c.dir + "/front/file")
			real := c.dir + "/in/file"
			if !errors.Is(err, no) || len(asked) == 0 || !strings.HasPrefix(asked[0], real) {
				t.Errorf("%s: %v, asked about %q", op.name, err, asked)
			}
		}
		if _, err := f.Aside().Stat(t.Context(), c.dir+"/front/file", true); err != nil {
			t.Error(err)
		}
		if got := c.content(t, c.dir+"/in/file", 0, 9); got != "mine" {
			t.Errorf("%q", got)
		}
	})
}

// Whatever links there are, nothing outside is read or changed, and what is read inside is
// what the path means.
func TestNoTreeOfLinksLeadsOut(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		f := fenced(t, c)
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		trees, paths := 6, 25
		if c.Files.Node() == "" { // a command each
			trees, paths = 2, 8
		}
		outside := snapshot(t, c.dir+"/out")
		names := []string{"a", "b", "c", "sub", "..", "."}
		targets := append([]string{c.dir + "/out", "/", "../out", "../in", c.dir + "/front", c.dir + "/out/secret", "..", "../.."}, names...)
		pick := func(from []string) string { return from[r.IntN(len(from))] }
		for range trees {
			for range 6 {
				_ = c.Symlink(t.Context(), pick(targets), c.dir+"/in/"+pick([]string{"", "sub/"})+pick(names[:3]))
			}
			for range paths {
				p := c.dir + "/front"
				for range 1 + r.IntN(5) {
					p += "/" + pick(append(names, "out", "secret", "file", "deep", "etc", "passwd"))
				}
				real, _ := filepath.EvalSymlinks(p)
				in := real == c.dir+"/in" || strings.HasPrefix(real, c.dir+"/in/")
				_, err := f.Stat(t.Context(), p, true)
				if err == nil && !in || real != "" && !in && !errors.Is(err, executor.ErrOutside) {
					t.Errorf("seed %d: %s leads to %q: %v", seed, p, real, err)
				}
				if op := everyOperation(t.Context(), f)[r.IntN(18)]; in || op.name != "list" {
					_ = op.do(p)
				}
				if now := snapshot(t, c.dir+"/out"); now != outside {
					t.Fatalf("seed %d: %s changed what is outside:\n%s", seed, p, now)
				}
			}
		}
	})
}
