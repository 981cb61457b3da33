package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A service is a running `sallyport serve` with a data folder of its own.
type service struct {
	dir     string
	binary  string
	cmd     *exec.Cmd
	log     *os.File
	address string
	warm    bool // it knows warm sessions
	files   bool // it serves FirecREST's calls about files
}

// build makes the binary as `make build` does.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "sallyport")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "sallyport/cmd/sallyport")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sallyport: %w\n%s", err, out)
	}
	return binary, nil
}

// configuration is that of a small site. Everything that costs time is as it is by
// default: log lines at level info, durable audit log and ledger.
const configuration = `
[server]
listen = "127.0.0.1:0"

[[issuers]]
alias = "bench"
url = %q
audiences = ["sallyport"]
allow_http = true

[executor]
idle_timeout = "1h"
keepalive_timeout = "1m"
max_connections = 4000

[[systems]]
name = "node"
nodes = [%[2]q]
known_hosts = [%[3]q]
connect_timeout = "2m"
`

// loadConfiguration lifts the bounds of one caller: load comes from few.
const loadConfiguration = `
[audit]
caller_bytes_per_minute = 0

[[rates]]
`

// warmConfiguration is a second system, on the same node, with warm sessions.
const warmConfiguration = `
[[systems]]
name = "warm"
nodes = [%q]
known_hosts = [%q]
connect_timeout = "2m"
sessions = "warm"
`

// filesConfiguration is a third system, of whose files FirecREST's calls show the folder
// of the bench.
const filesConfiguration = `
[firecrest]
enabled = true
max_ops_file_size = 200000000

[[systems]]
name = "files"
nodes = [%q]
known_hosts = [%q]
connect_timeout = "2m"

[[systems.firecrest.file_systems]]
path = %q
`

// startService makes a data folder, has the node trust its CA, and serves.
func (s *site) startService(ctx context.Context, binary, name string) (*service, error) {
	v := &service{dir: filepath.Join(s.dir, name), binary: binary}
	if out, err := exec.CommandContext(ctx, v.binary, "init", v.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sallyport init: %w\n%s", err, out)
	}
	if err := s.trust(filepath.Join(v.dir, "ca_key.pub")); err != nil {
		return nil, err
	}
	if err := v.configure(ctx, s); err != nil {
		return nil, err
	}
	var err error
	if v.log, err = os.Create(filepath.Join(s.dir, name+".log")); err != nil {
		return nil, err
	}
	addressFile := filepath.Join(s.dir, name+".address")
	// It ends with stop, in order, and not with a context.
	v.cmd = exec.CommandContext(context.WithoutCancel(ctx), v.binary, "serve", "--config", v.config(), "--address-file", addressFile)
	v.cmd.Stderr = v.log
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := v.cmd.Start(); err != nil {
		return nil, errors.Join(err, v.log.Close())
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(addressFile); err == nil {
			v.address = strings.TrimSpace(string(text))
			return v, v.ready(ctx, deadline)
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), fmt.Errorf("sallyport does not serve:\n%s", v.tail()), v.stop())
		}
	}
}

func (v *service) config() string { return filepath.Join(v.dir, "sallyport.toml") }

// configure leaves out what the binary, an older one perhaps, does not know.
func (v *service) configure(ctx context.Context, s *site) error {
	plain := fmt.Sprintf(configuration, s.issuer.URL(), s.node.Addr(), s.node.KnownHosts())
	warm := fmt.Sprintf(warmConfiguration, s.node.Addr(), s.node.KnownHosts())
	files := fmt.Sprintf(filesConfiguration, s.node.Addr(), s.node.KnownHosts(), s.files)
	var out []byte
	var err error
	for _, text := range []string{loadConfiguration + plain + warm + files, plain + warm + files, plain + warm, plain} {
		v.warm, v.files = text != plain, strings.HasSuffix(text, files)
		if err := os.WriteFile(v.config(), []byte(text), 0o600); err != nil {
			return err
		}
		out, err = exec.CommandContext(ctx, v.binary, "check-config", "--config", v.config()).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("unknown key")) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("sallyport check-config: %w\n%s", err, out)
	}
	return nil
}

// ready waits for the issuer's keys.
func (v *service) ready(ctx context.Context, deadline time.Time) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.address+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close() // only the status counts
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(err, fmt.Errorf("sallyport does not become ready:\n%s", v.tail()), v.stop())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop ends the service in order, or at once if that takes too long.
func (v *service) stop() error {
	if v.cmd == nil || v.cmd.Process == nil {
		return nil
	}
	_ = v.cmd.Process.Signal(syscall.SIGTERM) // if it is gone, Wait says how
	kill := time.AfterFunc(20*time.Second, func() { _ = v.cmd.Process.Kill() })
	defer kill.Stop()
	err := v.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("sallyport serve: %w\n%s", err, v.tail())
	}
	v.cmd = nil
	return errors.Join(err, v.log.Close())
}

// tail is the end of what the service logged.
func (v *service) tail() string {
	text, err := os.ReadFile(v.log.Name())
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	return string(text[max(0, len(text)-most):])
}

// admin is a client of the admin socket.
func (v *service) admin() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(v.dir, "admin.sock"))
		},
		DisableKeepAlives: true,
	}}
}
