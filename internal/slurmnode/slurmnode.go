// Package slurmnode starts a login node with a real Slurm in it, for tests: slurmctld, slurmd, slurmdbd and MariaDB run as
// plain processes of the node (see package loginnode) and end with it. It takes about 20 s and root: start one for all
// tests of a package.
//
// The cluster "test" has one node, "localhost", of 2 sockets with 3 cores of 2 threads and 4,000 MB, the partitions "part01"
// (the default) and "hid" (hidden), and the accounts "staff" (every user's default) and "proj".
package slurmnode

import (
	"cmp"
	"context"
	_ "embed" // setup.sh
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/loginnode"
)

//go:embed setup.sh
var setupScript string

// A Node is a login node with a Slurm.
type Node struct {
	*loginnode.Node
	// Version is Slurm's, such as "22.05.8".
	Version string
}

// programs are those that the node starts, with their Debian packages.
var programs = map[string]string{
	"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "slurmdbd": "slurmdbd", "munged": "munge",
	"mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server", "nsenter": "util-linux",
}

// Available returns nil if a node can be started here, else an error that says what is missing.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("slurmnode: only root can start a Slurm with users of its own")
	}
	for name, pkg := range programs {
		if _, err := look(name); err != nil {
			return fmt.Errorf("slurmnode: %s is not installed (Debian package %s)", name, pkg)
		}
	}
	return loginnode.Available()
}

func look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	return path, err
}

// Start starts a node and returns when Slurm takes jobs. ctx bounds the start. cfg.Setup is this package's.
func Start(ctx context.Context, cfg loginnode.Config) (*Node, error) {
	if err := Available(); err != nil { //nolint:contextcheck // it has a limit of its own
		return nil, err
	}
	version, err := slurmVersion(ctx)
	if err != nil {
		return nil, err
	}
	variables, err := variables(ctx, cfg, version)
	if err != nil {
		return nil, err
	}
	cfg.Setup = variables + setupScript
	node, err := loginnode.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := await(ctx, filepath.Join(node.Dir(), "slurm")); err != nil {
		return nil, errors.Join(err, node.Close())
	}
	return &Node{Node: node, Version: version}, nil
}

var versionText = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`)

func slurmVersion(ctx context.Context) (string, error) {
	path, err := look("slurmd")
	if err != nil {
		return "", fmt.Errorf("slurmnode: %w", err)
	}
	out, err := exec.CommandContext(ctx, path, "-V").Output()
	version := versionText.FindString(string(out))
	if err != nil || version == "" {
		return "", fmt.Errorf("slurmnode: slurmd -V names no version: %q: %w", out, err)
	}
	return version, nil
}

// variables are what setup.sh expects.
func variables(ctx context.Context, cfg loginnode.Config, version string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("slurmnode: %w", err)
	}
	host, _, _ = strings.Cut(host, ".")
	// Slurm 22.05 has no way to go without cgroups; its v1 plugin makes none unless it is asked to.
	plugin := "disabled"
	if version < "23" {
		plugin = "cgroup/v1"
	}
	var text strings.Builder
	text.WriteString("host=" + host + "\nplugin=" + plugin + "\n")
	for _, name := range []string{"ctld", "slurmd", "dbd"} {
		port, err := freePort(ctx)
		if err != nil {
			return "", err
		}
		text.WriteString(name + "=" + strconv.Itoa(port) + "\n")
	}
	names := make([]string, 0, len(cfg.Users))
	for _, u := range cfg.Users {
		names = append(names, u.Name)
	}
	text.WriteString("users='" + strings.Join(names, " ") + "'\n")
	return text.String(), nil
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("slurmnode: choosing a port: %w", err)
	}
	defer l.Close() //nolint:errcheck // it never was used
	return l.Addr().(*net.TCPAddr).Port, nil
}

var errSetup = errors.New("its setup failed")

// await waits for what setup.sh leaves when it is done.
func await(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			return nil
		}
		_, failed := os.Stat(filepath.Join(dir, "failed"))
		var why error
		select {
		case <-tick.C:
		case <-ctx.Done():
			why = ctx.Err()
		}
		if failed == nil || why != nil {
			return fmt.Errorf("slurmnode: Slurm does not start: %w\n%s", cmp.Or(why, errSetup), logs(dir))
		}
	}
}

// logs are the ends of all logs.
func logs(dir string) string {
	var b strings.Builder
	for _, name := range []string{"setup", "munged", "mariadb", "slurmdbd", "slurmctld", "slurmd"} {
		text, err := os.ReadFile(filepath.Join(dir, name+".log"))
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "\n== %s\n%s", name, text[max(0, len(text)-2000):])
	}
	return b.String()
}
