package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A service is a running `sallyport serve` with a data folder of its own.
type service struct {
	site    *site
	dir     string
	cmd     *exec.Cmd
	log     *os.File
	address string
	scheme  string
	client  *http.Client
}

// settings are lines of the configuration that differ from those of a plain site.
type settings struct {
	server, audit, issuer, executor, system string // keys in those tables
	more                                    string // further tables
}

const configuration = `
[server]
listen = "127.0.0.1:0"
drain_timeout = "2s"
%[1]s
[audit]
%[2]s
[[issuers]]
alias = "test"
url = %[6]q
audiences = ["sallyport"]
allow_http = true
%[3]s
[executor]
%[4]s
%[9]s
[[systems]]
name = "node"
nodes = [%[7]q]
known_hosts = [%[8]q]
%[5]s
`

// serve makes a data folder, has the node trust its CA, and starts the service. It ends
// with the attack.
func (s *site) serve(ctx context.Context, set settings) (*service, error) {
	s.started++
	v := &service{site: s, dir: filepath.Join(s.dir, fmt.Sprintf("service%d", s.started)), scheme: "http", client: http.DefaultClient}
	if strings.Contains(set.server, "tls_certificate") {
		v.scheme = "https"
		v.client = &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec // of loopback, made for this
		}}
	}
	if out, err := exec.CommandContext(ctx, s.binary, "init", v.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sallyport init: %w\n%s", err, out)
	}
	if err := s.trust(filepath.Join(v.dir, "ca_key.pub")); err != nil {
		return nil, err
	}
	if err := os.WriteFile(v.config(), s.configuration(set), 0o600); err != nil {
		return nil, err
	}
	return v, v.start(ctx)
}

// configuration is the text of the file.
func (s *site) configuration(set settings) []byte {
	return fmt.Appendf(nil, configuration, set.server, set.audit, set.issuer, set.executor, set.system,
		s.issuer.URL(), s.node.Addr(), s.node.KnownHosts(), set.more)
}

func (v *service) config() string { return filepath.Join(v.dir, "sallyport.toml") }

// start starts the service, again after stop, and waits until it is ready.
func (v *service) start(ctx context.Context) error {
	addressFile := v.dir + ".address"
	_ = os.Remove(addressFile) // of the last run
	var err error
	if v.log, err = os.OpenFile(v.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	// It ends with stop, in order, and not with a context.
	v.cmd = exec.CommandContext(context.WithoutCancel(ctx), v.site.binary, "serve", "--config", v.config(), "--address-file", addressFile)
	v.cmd.Stderr = v.log
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := v.cmd.Start(); err != nil {
		return errors.Join(err, v.log.Close())
	}
	v.site.services = append(v.site.services, v)
	for ctx.Err() == nil {
		if text, err := os.ReadFile(addressFile); err == nil {
			v.address = strings.TrimSpace(string(text))
			if a, err := v.call(ctx, call{path: "/readyz"}); err == nil && a.status == http.StatusOK {
				return nil
			}
		}
		if v.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
		time.Sleep(20 * time.Millisecond) // a real process
	}
	return fmt.Errorf("sallyport does not serve: %w\n%s", ctx.Err(), v.tail())
}

// stop ends the service in order, or at once if that takes too long.
func (v *service) stop() error {
	if v.cmd == nil {
		return nil
	}
	_ = v.cmd.Process.Signal(syscall.SIGTERM) // if it is gone, Wait says how
	kill := time.AfterFunc(40*time.Second, func() { _ = v.cmd.Process.Kill() })
	defer kill.Stop()
	err := v.cmd.Wait()
	v.cmd = nil
	if err != nil {
		err = fmt.Errorf("%w: %s", err, v.tail())
	}
	return errors.Join(err, v.log.Close())
}

// tail is the end of what the service logged.
func (v *service) tail() string {
	text, err := os.ReadFile(v.dir + ".log")
	if err != nil {
		return err.Error()
	}
	const most = 2 << 10
	return string(text[max(0, len(text)-most):])
}

// memory is the most that the service has had resident, in bytes (VmHWM of proc(5)).
func (v *service) memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmHWM in /proc")
}

// command runs the binary with the service's configuration, and returns what it printed
// and its exit code.
func (v *service) command(ctx context.Context, args ...string) (out string, code int, err error) {
	cmd := exec.CommandContext(ctx, v.site.binary, args...)
	cmd.Env = append(os.Environ(), "SALLYPORT_CONFIG="+v.config(), "SALLYPORT_URL="+v.scheme+"://"+v.address)
	text, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(text), exit.ExitCode(), nil
	}
	return string(text), 0, err
}

// A call is a request of an attacker. Without a method it is a GET, or a POST if there
// is a body.
type call struct {
	method, path, token string
	header              http.Header
	body                any // encoded as JSON, or bytes as they are
}

// An answer is what came back.
type answer struct {
	status int
	code   string // of the problem document or FirecREST's error, if it is one
	header http.Header
	body   []byte
}

// String is the form in which an attack returns an answer: "200", "401 token_invalid".
func (a answer) String() string { return strings.TrimSpace(strconv.Itoa(a.status) + " " + a.code) }

func (v *service) call(ctx context.Context, c call) (answer, error) {
	var body io.Reader
	if raw, ok := c.body.([]byte); ok {
		body = bytes.NewReader(raw)
	} else if c.body != nil {
		text, err := json.Marshal(c.body)
		if err != nil {
			return answer{}, err
		}
		body = bytes.NewReader(text)
	}
	if c.method == "" {
		c.method = http.MethodGet
		if body != nil {
			c.method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, c.method, v.scheme+"://"+v.address+c.path, body)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	maps.Copy(req.Header, c.header)
	res, err := v.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	_ = res.Body.Close() // it was read
	if err != nil {
		return answer{}, err
	}
	var problem struct{ Code string }
	_ = json.Unmarshal(text, &problem) // an answer that is none has no code
	problem.Code = cmp.Or(problem.Code, res.Header.Get("F7T-ErrorCode"))
	return answer{res.StatusCode, problem.Code, res.Header, text}, nil
}

// exec has a person run a command line on the node.
func (v *service) exec(ctx context.Context, person int, line string) (answer, error) {
	token, err := v.site.token(person, nil)
	if err != nil {
		return answer{}, err
	}
	return v.call(ctx, call{path: "/v1/systems/node/exec", token: token, body: map[string]any{"command": line}})
}
