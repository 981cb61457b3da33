package idp

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"sallyport/internal/fromsource"
)

// buildDex returns the path of a dex binary made from e2e/idp. The binary is
// kept in .cache under the digest of its go.sum.
func buildDex(ctx context.Context) (string, error) {
	root, err := fromsource.Root()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "e2e", "idp")
	digest, err := fromsource.Digest(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, ".cache", "dex-"+digest)
	return program, fromsource.Once(ctx, program, func() error {
		fromsource.Progress("building dex from e2e/idp (about a minute without a build cache)")
		fresh := program + ".new"
		build := exec.CommandContext(ctx, "go", "build", "-C", module, "-o", fresh, "github.com/dexidp/dex/cmd/dex")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := fromsource.Run(build); err != nil {
			return err
		}
		return os.Rename(fresh, program)
	})
}

// installOIDCProvider returns the folder of the oidc-provider script after its
// dependencies are there. The scripts of packages are not run.
func installOIDCProvider(ctx context.Context) (string, error) {
	root, err := fromsource.Root()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(root, "e2e", "oidc-provider")
	digest, err := fromsource.Digest(filepath.Join(folder, "package-lock.json"))
	if err != nil {
		return "", err
	}
	// Npm removes node_modules before it installs, and with it the stamp.
	stamp := filepath.Join(folder, "node_modules", ".installed-"+digest)
	return folder, fromsource.Once(ctx, stamp, func() error {
		fromsource.Progress("installing oidc-provider into e2e/oidc-provider")
		install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		install.Dir = folder
		if err := fromsource.Run(install); err != nil {
			return err
		}
		return os.WriteFile(stamp, nil, 0o600)
	})
}
