package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

const nodeFilesLong = `Write the files that keep a login node up to date into the folder DIR, laid out
as on the node: the distribution key that the node believes, the settings, the
program or script that fetches, and its systemd units. Copy them as they are,
owned by root, with your configuration management; then, on each node:

  systemctl daemon-reload
  systemctl enable --now sallyport-node-sync.timer
  systemctl start sallyport-node-sync.service

The distribution key must reach the nodes over a way that you trust: whoever
replaces it decides whom the nodes trust. With it goes the version of the manifest
that the service publishes now: a node that has none yet takes nothing older. Make
the files anew after "sallyport ca compromise", for nodes that lose their disk at a
boot.`

type nodeFilesOptions struct {
	url, key, program string
	least             versionFlag
	config            *string
}

func newNodeFiles(s streams) *cobra.Command {
	var opt nodeFilesOptions
	cmd := &cobra.Command{
		Use: "files DIR", Short: "Write what a node needs to keep itself up to date", Long: nodeFilesLong, Args: exactArgs("DIR"),
		Example: "  sallyport node files node --url https://sallyport.example.org",
	}
	opt.config = configFlag(cmd, s)
	f := cmd.Flags()
	f.StringVar(&opt.url, "url", "", "the service as the nodes reach it, or a mirror of it (required)")
	f.StringVar(&opt.key, "distribution-key", "", "public key file (default: distribution_key.pub in the data folder)")
	f.Var(&opt.least, "at-least", "`VERSION` of the manifest that the nodes are to expect (default: what the service publishes now)")
	f.StringVar(&opt.program, "program", "", `path of sallyport on the nodes, such as /usr/local/bin/sallyport (default: a POSIX shell script that is written too)`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := opt.files(cmd.Context(), s)
		if err != nil {
			return err
		}
		for _, f := range files {
			path := filepath.Join(args[0], f.path)
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%q exists already; nothing was written: remove it, or give another folder", path)
			}
		}
		for _, f := range files {
			path := filepath.Join(args[0], f.path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // what root and everyone on a node may read
				return err
			}
			if err := writeNew(path, f.content, f.mode); err != nil {
				return err
			}
			fmt.Fprintln(s.out, path)
		}
		return nil
	}
	return cmd
}

// A nodeFile is a file of a login node.
type nodeFile struct {
	path    string // below the root of the node
	content []byte
	mode    fs.FileMode
}

const scriptPath = "/usr/local/sbin/sallyport-node-sync"

var (
	programPath = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
	settingText = regexp.MustCompile(`^[A-Za-z0-9:/?&=._~@%+\[\]-]+$`)
)

func (opt *nodeFilesOptions) files(ctx context.Context, s streams) ([]nodeFile, error) {
	if u, err := url.Parse(opt.url); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || !settingText.MatchString(opt.url) {
		return nil, usageError{fmt.Errorf("--url: %q is not a URL such as https://sallyport.example.org", opt.url)}
	}
	if opt.program != "" && !programPath.MatchString(opt.program) {
		return nil, usageError{fmt.Errorf("--program: %q is not an absolute path of letters, digits, dot, dash and underscore", opt.program)}
	}
	key, err := opt.distributionKey(s)
	if err != nil {
		return nil, err
	}
	settings, err := opt.settings(ctx, s)
	if err != nil {
		return nil, err
	}
	folder := filepath.Dir(sshdconfig.DefaultTrustedUserCAKeys)
	service := sshdconfig.NodeSyncService
	files := []nodeFile{
		{filepath.Join(folder, nodesync.SignersFile), []byte(nodesync.SignersLine(key)), 0o644},
		{filepath.Join(folder, "sync.env"), settings, 0o644},
	}
	if opt.program == "" {
		files = append(files, nodeFile{scriptPath, sshdconfig.NodeSyncScript, 0o755})
	} else {
		service = bytes.Replace(service, []byte("\nExecStart="+scriptPath+"\n"), []byte("\nExecStart="+opt.program+" node sync\n"), 1)
	}
	return append(files,
		nodeFile{"/etc/systemd/system/sallyport-node-sync.service", service, 0o644},
		nodeFile{"/etc/systemd/system/sallyport-node-sync.timer", sshdconfig.NodeSyncTimer, 0o644}), nil
}

// settings are the variables of a node. A node that is new, or that loses its disk, takes nothing older than the version there.
func (opt *nodeFilesOptions) settings(ctx context.Context, s streams) ([]byte, error) {
	text := fmt.Sprintf("SALLYPORT_URL=%s\n", opt.url)
	least, err := opt.least.version()
	if err == nil && least == 0 {
		least, err = opt.published(ctx, s)
	}
	switch usage := (usageError{}); {
	case errors.As(err, &usage):
		return nil, err
	case err == nil && least > 0:
		return fmt.Appendf(nil, "%sSALLYPORT_NODE_AT_LEAST=%d\n", text, least), nil
	case err == nil:
		err = errors.New("the service has published no manifest yet")
	}
	fmt.Fprintf(s.err, "sallyport: note: no version is pinned (%v): a new node takes an old manifest that has not ended, and over plain HTTP none at all; give --at-least\n", err)
	return []byte(text), nil
}

func (opt *nodeFilesOptions) published(ctx context.Context, s streams) (int64, error) {
	f, err := loadConfig(*opt.config, s.getenv)
	if err != nil {
		return 0, err
	}
	status, err := readDistribution(ctx, f)
	return status.Version, err
}

func (opt *nodeFilesOptions) distributionKey(s streams) (ssh.PublicKey, error) {
	path := opt.key
	if path == "" {
		f, err := loadConfig(*opt.config, s.getenv)
		if err != nil {
			return nil, err
		}
		path = f.CA.Distribution.PublicKey
	}
	text, err := readBounded(path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("distribution key: %w; the service makes one when it starts", err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("distribution key: %q is no public key file", path)
	}
	return key, nil
}
