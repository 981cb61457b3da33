// Package fromsource makes programs that tests need and no package of the
// distribution has, from pinned sources, once for a checkout: they are kept in .cache.
package fromsource

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Install returns the path of a Go program at a version, such as
// "github.com/openfga/openfga/cmd/openfga". Its own go.sum pins what it is made of.
func Install(ctx context.Context, program, version string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(root, ".cache", filepath.Base(program)+"-"+version)
	path := filepath.Join(folder, filepath.Base(program))
	return path, Once(ctx, path, func() error {
		Progress("building " + program + "@" + version + " (some minutes without a build cache)")
		install := exec.CommandContext(ctx, "go", "install", program+"@"+version)
		install.Dir = os.TempDir() // outside our module
		install.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+folder, "GOFLAGS=")
		return Run(install)
	})
}

// Once runs build unless the file is there, and only in one of the processes that
// `go test ./...` has at the same time.
func Once(ctx context.Context, file string, build func() error) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	root, err := Root()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, ".cache"), 0o750); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(root, ".cache", "build.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // closing gives the lock back
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	return build()
}

// Run runs a command, whose output is part of the error.
func Run(cmd *exec.Cmd) error {
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	return nil
}

// Progress tells who waits what for.
func Progress(line string) { fmt.Fprintln(os.Stderr, "fromsource: "+line) }

// Digest names the content of files.
func Digest(paths ...string) (string, error) {
	sum := sha256.New()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// Root is the folder above the working directory that holds our go.mod; tests run in
// the folder of their package.
func Root() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(folder, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module sallyport\n") {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("the working directory is not in the sallyport repository")
		}
		folder = parent
	}
}
