package executor_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sallyport/executor"
	"sallyport/internal/loginnode"
)

// What a login script prints spoils SFTP, and must not spoil commands too.
func TestFilesOfAnAccountWhoseLoginScriptPrints(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give an account a login script")
	}
	c := newCluster(t, loginnode.Config{
		SFTP: "/usr/lib/openssh/sftp-server", Users: []loginnode.User{{Name: "alice", Shell: "/bin/bash"}},
	}, nil)
	home := c.Home(c.user)
	noise := "echo; echo Welcome; printf '81a4 1 0 0'; echo 'x: Permission denied' >&2\n"
	if err := os.WriteFile(filepath.Join(home, ".bashrc"), []byte(noise), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := c.executor.Files(t.Context(), c.caller, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Node() != "" {
		t.Error("SFTP works in spite of the noise")
	}
	noisy := &filesCluster{cluster: c, Files: f, dir: filepath.Join(home, "d")}
	if err := f.Mkdir(t.Context(), noisy.dir, executor.Mode{}, false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(noisy.dir, "f")
	noisy.write(t, path, "content")
	if got := noisy.content(t, path, 0, 100); got != "content" {
		t.Errorf("%q", got)
	}
	if got := noisy.names(t, noisy.dir, executor.ListOptions{}); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if info, err := f.Stat(t.Context(), path, false); err != nil || info.Size != 7 {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := f.Stat(t.Context(), filepath.Join(noisy.dir, "none"), false); !errors.Is(err, executor.ErrNotFound) {
		t.Error(err)
	}
}
