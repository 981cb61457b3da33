package main

import (
	"bytes"
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
replaces it decides whom the nodes trust.`

type nodeFilesOptions struct {
	url, key, program string
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
	f.StringVar(&opt.program, "program", "", `path of sallyport on the nodes, such as /usr/local/bin/sallyport (default: a POSIX shell script that is written too)`)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		files, err := opt.files(s)
		if err != nil {
			return err
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

func (opt *nodeFilesOptions) files(s streams) ([]nodeFile, error) {
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
	folder := filepath.Dir(sshdconfig.DefaultTrustedUserCAKeys)
	service := sshdconfig.NodeSyncService
	files := []nodeFile{
		{filepath.Join(folder, nodesync.SignersFile), []byte(nodesync.SignersLine(key)), 0o644},
		{filepath.Join(folder, "sync.env"), fmt.Appendf(nil, "SALLYPORT_URL=%s\n", opt.url), 0o644},
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

func (opt *nodeFilesOptions) distributionKey(s streams) (ssh.PublicKey, error) {
	path := opt.key
	if path == "" {
		f, err := loadConfig(*opt.config, s.getenv)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(f.DataDir, distributionKey+".pub")
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
