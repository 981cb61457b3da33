package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"sallyport/identity/identitytest"
)

const demoLong = `Show the whole of Sallyport on this machine, in one process: a development
identity provider, a CA, the REST API, and a login node.

The login node is the real sshd if it is installed: as root with two users of
its own, alice and bob, who exist nowhere else; otherwise for you alone. Without
sshd it is an SSH server inside this process, whose commands run as you. All of
it listens on loopback only, and its files go when it ends.`

// demoTokenLife is how long the printed token is good.
const demoTokenLife = 8 * time.Hour

func newDemo(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "See it work on this machine", GroupID: "service", Long: demoLong, Args: exactArgs(),
	}
	once := cmd.Flags().Bool("once", false, "end after one command")
	listen := cmd.Flags().String("listen", "127.0.0.1:0", "address of the API, on loopback")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if wrong := checkText("listen", *listen); wrong != "" || !isLoopback(*listen) {
			return usageError{fmt.Errorf("--listen: %q is not host:port on loopback", *listen)}
		}
		// "sallyport demo | head" must not end it before its files are removed.
		signal.Ignore(syscall.SIGPIPE)
		dir, err := os.MkdirTemp("", "sallyport-demo-")
		if err != nil {
			return err
		}
		d := demo{s: s, dir: dir, listen: *listen, startNode: startDemoNode}
		return errors.Join(d.run(cmd.Context(), *once), os.RemoveAll(dir))
	}
	return cmd
}

// A demo is a service with everything that surrounds one.
type demo struct {
	s         streams
	dir       string
	listen    string
	startNode func(ctx context.Context, dir string) (demoNode, error)

	issuer *identitytest.Issuer
	node   demoNode
	url    string
	token  string
}

func (d *demo) run(ctx context.Context, once bool) (err error) {
	fmt.Fprintln(d.s.out, "Starting an identity provider, a CA, a login node and the API …")
	if err := runInit(streams{in: d.s.in, out: io.Discard, err: io.Discard, getenv: d.s.getenv}, d.dir, initOptions{keyType: "ed25519"}); err != nil {
		return err
	}
	if d.issuer, err = identitytest.Start(identitytest.Config{Audience: "sallyport"}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.issuer.Close()) }()
	if d.node, err = d.startNode(ctx, d.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.node.close()) }()
	return d.serve(ctx, once)
}

// serve runs the service beside the steps that show it.
func (d *demo) serve(ctx context.Context, once bool) (err error) {
	f, err := d.configure()
	if err != nil {
		return err
	}
	f.Log.Level = "warn" // what is refused, and why
	log := newLogger(streams{err: d.s.err}, f.Log)
	key, err := loadCAKey(d.s, f)
	if err != nil {
		return err
	}
	service, err := newDaemon(f, key, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	addressFile := filepath.Join(d.dir, "address")
	group.Go(func() error { return serve(ctx, service, f, log, addressFile, unconfined) })
	group.Go(func() error {
		err := d.show(ctx, addressFile, key.initial.PublicKey())
		if once || err != nil {
			stop()
			return err
		}
		fmt.Fprintln(d.s.out, "\nInterrupt (Ctrl-C) to end.")
		return nil
	})
	return group.Wait()
}

// configure writes and loads the configuration of the demo.
func (d *demo) configure() (File, error) {
	path := filepath.Join(d.dir, "sallyport.toml")
	text := fmt.Sprintf(`[server]
listen = %q
drain_timeout = "2s"

[[issuers]]
alias = "demo"
url = %q
audiences = ["sallyport"]
allow_http = true

[[systems]]
name = "demo"
description = "the login node of the demo"
nodes = [%q]
known_hosts = [%q]
`, d.listen, d.issuer.URL(), d.node.address(), d.node.knownHosts())
	if err := replaceFile(path, []byte(text)); err != nil {
		return File{}, err
	}
	return loadConfig(path, func(string) string { return "" })
}

// show prints what there is and runs one command.
func (d *demo) show(ctx context.Context, addressFile string, caKey ssh.PublicKey) error {
	address, err := awaitFile(ctx, addressFile)
	if err != nil {
		return err
	}
	d.url = "http://" + address
	user := d.node.users()[0]
	claims := map[string]any{"preferred_username": user, "sub": "demo-" + user, "exp": time.Now().Add(demoTokenLife).Unix()}
	if d.token, err = d.issuer.Mint(claims); err != nil {
		return err
	}
	fmt.Fprintf(d.s.out, `
  identity provider      %s (for development; made the token below)
  certificate authority  %s
  login node             %s, %s, users: %s
  API                    %s  (description at %[6]s/docs)

Try it from another terminal, as %s:

  export SALLYPORT_URL=%[6]s
  export SALLYPORT_TOKEN=%[8]s
  curl -s $SALLYPORT_URL/v1/systems/demo/exec -H "Authorization: Bearer $SALLYPORT_TOKEN" -H 'Content-Type: application/json' -d '{"command": "id; uptime"}'
  %[9]s exec demo -- id

`, d.issuer.URL(), ssh.FingerprintSHA256(caKey), d.node.address(), d.node.kind(),
		strings.Join(d.node.users(), ", "), d.url, user, d.token, programName())
	return d.runOne(ctx, user)
}

// runOne runs a command through the API, as any client would.
func (d *demo) runOne(ctx context.Context, user string) error {
	const line = `echo "hello from $(id -un) on $(uname -n), by sshd on port $(echo "$SSH_CONNECTION" | cut -d" " -f4)"`
	c := &client{base: d.url, token: d.token, http: &http.Client{}}
	var answer json.RawMessage
	started := time.Now()
	if err := c.call(ctx, http.MethodPost, "/v1/systems/demo/exec", execBody{Command: line}, &answer); err != nil {
		return err
	}
	var result struct {
		Stdout   string `json:"stdout"`
		ExitCode *int   `json:"exit_code"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return err
	}
	if result.ExitCode == nil || *result.ExitCode != 0 || !strings.HasPrefix(result.Stdout, "hello from ") {
		return fmt.Errorf("the demo's command did not answer as it should: %s", answer)
	}
	fmt.Fprintf(d.s.out, "One command, run through the API as %s in %s:\n\n  $ %s\n  %s\nThe whole answer:\n\n",
		user, time.Since(started).Round(time.Millisecond), line, result.Stdout)
	return printJSON(d.s.out, answer)
}

// awaitFile waits for the address file that serve writes.
func awaitFile(ctx context.Context, path string) (string, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(path)
		if err == nil {
			return strings.TrimSpace(string(text)), nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
	}
}

// programName is how the user called this program.
func programName() string {
	if strings.ContainsRune(os.Args[0], '/') {
		return os.Args[0]
	}
	return "sallyport"
}
