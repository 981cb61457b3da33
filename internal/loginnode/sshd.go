package loginnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// Available returns nil if a login node can be started here, else an error that says what is missing and how to get it. As
// root it tries whether namespaces can be made: most containers may not.
func Available() error {
	if _, err := lookSshd(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if _, err := exec.LookPath("mount"); err != nil {
		return fmt.Errorf("loginnode: mount is not installed (Debian package mount): %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "mount -t proc proc /proc && mount -t tmpfs tmpfs /run")
	cmd.SysProcAttr = ownNamespaces()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loginnode: this root may not make mount and PID namespaces (in a container: CAP_SYS_ADMIN): %w\n%s", err, out)
	}
	return nil
}

func ownNamespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS, // with this, Go makes the mount tree private
	}
}

// lookSshd finds sshd by absolute path, without which it refuses to start.
func lookSshd() (string, error) {
	for _, name := range []string{"sshd", "/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"} {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", errors.New("loginnode: sshd is not installed (Debian package openssh-server)")
}

type sshVersion struct{ major, minor int }

func (v sshVersion) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

var versionText = regexp.MustCompile(`OpenSSH_(\d+)\.(\d+)`)

// sshdVersion asks sshd. Before 9.3 it has no -V, complains, and shows its version with the usage.
func sshdVersion(ctx context.Context, sshd string) (sshVersion, error) {
	out, err := exec.CommandContext(ctx, sshd, "-V").CombinedOutput()
	m := versionText.FindSubmatch(out)
	if m == nil {
		return sshVersion{}, fmt.Errorf("loginnode: %s -V names no version: %q: %w", sshd, out, err)
	}
	major, _ := strconv.Atoi(string(m[1])) // digits by the pattern
	minor, _ := strconv.Atoi(string(m[2]))
	return sshVersion{major, minor}, nil
}
