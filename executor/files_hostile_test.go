package executor_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sallyport/executor"
)

// hostileName draws a file name with all that shells, parsers and terminals trip over.
func hostileName(rt *rapid.T) string {
	alphabet := []string{"a", "B", "é", "'", `"`, "\\", "\n", "\t", "\r", " ", "$", "$(id)", "`id`", "&", ";", "|", "*", "?", "[", "~", "-", "--", "!", "(", ")", ",", "=", "%", "%s", "#", "\x01", "\x7f", "\xff", "\xc3", "\u202e", "..", ".", ":", "->", "{", "}"}
	name := strings.Join(rapid.SliceOfN(rapid.SampledFrom(alphabet), 1, 20).Draw(rt, "name"), "")
	if name == "." || name == ".." {
		return "x" + name
	}
	return name
}

func TestFilesNamesSurviveEveryOperation(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, c *filesCluster) {
		turn := 0
		rapid.Check(t, func(rt *rapid.T) {
			a, b := hostileName(rt), hostileName(rt)
			turn++
			// The directory makes absolute paths of names that begin with anything;
			// relative ones begin in the home directory.
			dir := fmt.Sprintf("%s/%d", c.dir, turn)
			at := dir + "/"
			if rapid.Bool().Draw(rt, "relative") {
				at = fmt.Sprintf("files/%d/", turn)
			}
			if a == b {
				b += "2"
			}
			ctx := t.Context()
			link := a + "l"
			if link == b {
				link += "l"
			}
			written, err := c.Write(ctx, at+"file", strings.NewReader(a), executor.WriteOptions{})
			if !errors.Is(err, executor.ErrNotFound) {
				rt.Fatal(written, err)
			}
			steps := []error{
				c.Mkdir(ctx, at+a, executor.Mode{}, true),
				c.Rename(ctx, at+a, at+b),
				c.Symlink(ctx, b, at+link),
				c.Chmod(ctx, at+link, 0o750),
			}
			_, err = c.Write(ctx, at+b+"/"+a, strings.NewReader(b), executor.WriteOptions{Exclusive: true})
			steps = append(steps, err)
			if err := errors.Join(steps...); err != nil {
				rt.Fatal(err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
				rt.Fatalf("%v, %v", entries, err)
			}
			var names []string
			err = c.List(ctx, strings.TrimSuffix(at, "/"), executor.ListOptions{Hidden: true, Recursive: true, Targets: true}, func(i executor.FileInfo) error {
				names = append(names, i.Name)
				if i.Name == link && i.Target != b {
					rt.Errorf("target %q, want %q", i.Target, b)
				}
				return nil
			})
			slices.Sort(names)
			want := []string{b, b + "/" + a, link}
			slices.Sort(want)
			if err != nil || !slices.Equal(names, want) {
				rt.Fatalf("list has %q, want %q; %v", names, want, err)
			}
			if target, err := c.ReadLink(ctx, at+link); err != nil || target != b {
				rt.Errorf("target %q, want %q; %v", target, b, err)
			}
			if found, err := c.RealPath(ctx, at+link+"/"+a); err != nil || found != dir+"/"+b+"/"+a {
				rt.Errorf("real path %q, %v", found, err)
			}
			if i, err := c.Stat(ctx, at+link, true); err != nil || i.Mode != 0o40750 {
				rt.Errorf("%+v, %v", i, err)
			}
			if got := c.content(t, at+b+"/"+a, 0, 1<<20); got != b {
				rt.Errorf("content %q, want %q", got, b)
			}
			if err := errors.Join(c.Remove(ctx, at+link), c.RemoveAll(ctx, at+b), c.Remove(ctx, dir)); err != nil {
				rt.Fatal(err)
			}
		})
	})
}
