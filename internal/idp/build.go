package idp

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

// buildDex returns the path of a dex binary made from e2e/idp. The binary is
// kept in .cache under the digest of its go.sum.
func buildDex(ctx context.Context) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "e2e", "idp")
	digest, err := fileDigest(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, ".cache", "dex-"+digest)
	return program, once(ctx, root, program, func() error {
		progress("building dex from e2e/idp (about a minute without a build cache)")
		fresh := program + ".new"
		build := exec.CommandContext(ctx, "go", "build", "-C", module, "-o", fresh, "github.com/dexidp/dex/cmd/dex")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := run(build); err != nil {
			return err
		}
		return os.Rename(fresh, program)
	})
}

// installOIDCProvider returns the folder of the oidc-provider script after its
// dependencies are there. The scripts of packages are not run.
func installOIDCProvider(ctx context.Context) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(root, "e2e", "oidc-provider")
	digest, err := fileDigest(filepath.Join(folder, "package-lock.json"))
	if err != nil {
		return "", err
	}
	// Npm removes node_modules before it installs, and with it the stamp.
	stamp := filepath.Join(folder, "node_modules", ".installed-"+digest)
	return folder, once(ctx, root, stamp, func() error {
		progress("installing oidc-provider into e2e/oidc-provider")
		install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		install.Dir = folder
		if err := run(install); err != nil {
			return err
		}
		return os.WriteFile(stamp, nil, 0o600)
	})
}

// once runs make unless the file is there, and only in one of the processes that
// `go test ./...` has at the same time.
func once(ctx context.Context, root, file string, build func() error) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(root, ".cache"), 0o750); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(root, ".cache", "idp.lock"), os.O_CREATE|os.O_RDWR, 0o600)
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

func run(cmd *exec.Cmd) error {
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	return nil
}

func progress(line string) {
	fmt.Fprintln(os.Stderr, "idp: "+line)
}

func fileDigest(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6]), nil
}

// repository is the folder above the working directory that holds our go.mod;
// tests run in the folder of their package.
func repository() (string, error) {
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
