package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

const nodeLong = `What a login node needs: the CA's trust file and revocation list, kept up to date
by a signed manifest, and a doctor that says what is wrong with a node.

"node files" and "node check SYSTEM" are for where the service runs; "node sync"
and "node check --local" run on the login node.`

func newNode(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Keep login nodes up to date, and check them", GroupID: "admin", Long: nodeLong, Args: refuseUnknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeFiles(s), newNodeSync(s), newNodeCheck(s))
	return cmd
}

const nodeSyncLong = `Fetch the manifest of the service, and bring this node's files to the state that
it describes. The files are changed only if a key in distribution_signers signed
the manifest, if it is no older than the one that is here and has not ended by this
node's clock, and if this node's own ssh-keygen reads each key of the trust file and
does not find the active one revoked. Each file is replaced by rename; the one before
is kept as NAME.prev. What is in place past its end stays, with a complaint.

A node that has no manifest yet, because it is new or loses its disk at a boot, cannot
tell an old copy from a new one: give it the version to expect with --at-least. "sallyport
ca status" prints it on the serving machine, and "sallyport node files" writes it to
sync.env. Over plain HTTP to another machine such a node installs nothing without it.

Nothing in sshd needs a reload. Exit code 0 means up to date; 1 means that it is
not, or that the manifest has expired because something on the way is frozen.`

// nodeOptions is where a node's files are and what reads them.
type nodeOptions struct {
	dir, signers     string
	sshd, sshdConfig string
	connection       clientOptions
}

func nodeFlags(cmd *cobra.Command, s streams) *nodeOptions {
	opt := &nodeOptions{}
	f := cmd.Flags()
	f.StringVar(&opt.connection.url, "url", s.getenv("SALLYPORT_URL"), "the service, or a mirror of it (environment: SALLYPORT_URL)")
	f.StringVar(&opt.connection.caFile, "tls-ca", s.getenv("SALLYPORT_TLS_CA"), "PEM file of the CA that signed the service's TLS certificate")
	f.StringVar(&opt.dir, "dir", cmp.Or(s.getenv("SALLYPORT_NODE_DIR"), filepath.Dir(sshdconfig.DefaultTrustedUserCAKeys)), "folder that sshd reads from (environment: SALLYPORT_NODE_DIR)")
	f.StringVar(&opt.signers, "signers", s.getenv("SALLYPORT_NODE_SIGNERS"), "file of the distribution keys (default: distribution_signers in the folder; environment: SALLYPORT_NODE_SIGNERS)")
	f.StringVar(&opt.sshd, "sshd", s.getenv("SALLYPORT_NODE_SSHD"), `sshd of this node, or "none" (default: found; environment: SALLYPORT_NODE_SSHD)`)
	f.StringVar(&opt.sshdConfig, "sshd-config", s.getenv("SALLYPORT_NODE_SSHD_CONFIG"), "its configuration file (default: sshd's own; environment: SALLYPORT_NODE_SSHD_CONFIG)")
	return opt
}

// A versionFlag is the version of a manifest, from 1 to nodesync.MaxVersion; empty means none.
type versionFlag string

func (v *versionFlag) Type() string   { return "VERSION" }
func (v *versionFlag) String() string { return string(*v) }

func (v *versionFlag) Set(text string) error {
	*v = versionFlag(text)
	_, err := v.version()
	return err
}

func (v *versionFlag) version() (int64, error) {
	if *v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(*v), 10, 64)
	if err != nil || n < 0 || n > nodesync.MaxVersion || strconv.FormatInt(n, 10) != string(*v) {
		return 0, usageError{fmt.Errorf("%q is no version of a manifest: a number up to %d, as \"sallyport ca status\" prints it", string(*v), nodesync.MaxVersion)}
	}
	return n, nil
}

func newNodeSync(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sync", Short: "Fetch this node's trust file and revocation list", Long: nodeSyncLong, Args: exactArgs(),
		Example: "  sallyport node sync --url https://sallyport.example.org",
	}
	opt := nodeFlags(cmd, s)
	least := versionFlag(s.getenv("SALLYPORT_NODE_AT_LEAST"))
	cmd.Flags().Var(&least, "at-least", "`VERSION` of the manifest below which nothing is installed (environment: SALLYPORT_NODE_AT_LEAST)")
	verbose := cmd.Flags().BoolP("verbose", "v", false, "say each step before it is taken")
	form := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := opt.config()
		if err != nil {
			return err
		}
		if cfg.AtLeast, err = least.version(); err != nil {
			return err
		}
		if *verbose {
			cfg.Step = func(what string) { fmt.Fprintf(s.err, "step: %s\n", what) }
		}
		report, err := nodesync.Sync(cmd.Context(), cfg)
		if *form == "json" {
			return errors.Join(err, printJSON(s.out, report))
		}
		if len(report.Changed) > 0 {
			fmt.Fprintf(s.out, "version %d: replaced %s\n", report.Version, strings.Join(report.Changed, " "))
		}
		return err
	}
	return cmd
}

// config finds OpenSSH and the service.
func (opt *nodeOptions) config() (nodesync.Config, error) {
	cfg := nodesync.Config{Dir: opt.dir, Signers: opt.signers, SSHDConfig: opt.sshdConfig}
	source, err := newNodeSource(opt.connection)
	if err != nil {
		return cfg, err
	}
	cfg.Fetch, cfg.Exposed = source.fetch, source.exposed
	if cfg.SSHKeygen, err = exec.LookPath("ssh-keygen"); err != nil {
		return cfg, fmt.Errorf("ssh-keygen checks what is fetched, and is not here: %w", err)
	}
	cfg.SSHD = opt.findSSHD()
	return cfg, nil
}

// findSSHD returns an absolute path, without which sshd does not start; empty if there is no sshd.
func (opt *nodeOptions) findSSHD() string {
	if opt.sshd != "" {
		return strings.TrimPrefix(opt.sshd, "none")
	}
	for _, name := range []string{"sshd", "/usr/sbin/sshd", "/sbin/sshd"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	return ""
}

// A nodeSource fetches from a service or from a mirror of it. What it brings is believed for its signature only.
type nodeSource struct {
	base    string
	exposed bool // whoever is on the way can answer in the service's place
	http    *http.Client
}

func newNodeSource(opt clientOptions) (*nodeSource, error) {
	u, err := url.Parse(opt.url)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usageError{fmt.Errorf("--url: %q is not a URL such as https://sallyport.example.org", opt.url)}
	}
	transport, err := opt.transport()
	if err != nil {
		return nil, err
	}
	exposed := u.Scheme == "http" && !isLoopback(net.JoinHostPort(u.Hostname(), "80"))
	return &nodeSource{base: strings.TrimSuffix(opt.url, "/"), exposed: exposed, http: &http.Client{
		Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (n *nodeSource) fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %w", err)
	}
	defer closeBody(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("cannot fetch %s: %s", n.base+path, resp.Status)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", n.base+path, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", n.base+path, limit)
	}
	return content, nil
}
