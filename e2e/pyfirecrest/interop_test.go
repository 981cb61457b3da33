//go:build interop

// Package pyfirecrest drives FirecREST's own client, from PyPI, against the real
// binary with a real sshd and a real Slurm behind it. See "make interop".
package pyfirecrest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/identity/identitytest"
	"sallyport/internal/loginnode"
	"sallyport/internal/s3server"
	"sallyport/internal/slurmnode"
)

// python returns a Python that has the packages of a list; it is kept in .cache under
// their digest.
func python(t *testing.T, requirements string) string {
	t.Helper()
	list, err := os.ReadFile(requirements)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(list)
	dir, err := filepath.Abs(filepath.Join("..", "..", ".cache", "pyfirecrest-"+hex.EncodeToString(digest[:6])))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "bin", "python")
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return program
	}
	run(t, "python3", "-m", "venv", "--clear", dir)
	run(t, program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements)
	if err := os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return program
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// A service is the real binary with a node behind it.
type service struct {
	url    string
	issuer *identitytest.Issuer
	node   *slurmnode.Node
}

func start(t *testing.T) *service {
	t.Helper()
	s, dir := &service{}, t.TempDir()
	binary, data := filepath.Join(dir, "sallyport"), filepath.Join(dir, "data")
	run(t, "go", "build", "-o", binary, "sallyport/cmd/sallyport")
	run(t, binary, "init", data)
	trusted, err := os.ReadFile(filepath.Join(data, "ca_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if s.node, err = slurmnode.Start(t.Context(), loginnode.Config{Users: []loginnode.User{{Name: "alice", Groups: []string{"physics"}}}, TrustedUserCAKeys: trusted}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.node.Close(); err != nil {
			t.Error(err)
		}
	})
	if s.issuer, err = identitytest.Start(identitytest.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.issuer.Close() })
	storage, err := s3server.Start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = storage.Close() })
	if err := os.WriteFile(filepath.Join(data, "s3.secret"), []byte(s3server.SecretAccessKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rule := s.issuer.IssuerConfig("test")
	config := fmt.Sprintf(`[server]
listen = "127.0.0.1:0"
[[issuers]]
alias = "test"
url = %q
audiences = [%q]
allow_http = true
[firecrest]
enabled = true
[firecrest.s3]
public_url = %q
region = %q
bucket = %q
access_key_id = %q
secret_key_file = "s3.secret"
max_part_size = 5242880
[[systems]]
name = "cluster"
nodes = [%q]
known_hosts = [%q]
[systems.firecrest]
scheduler = "slurm"
scheduler_version = %q
[[systems.firecrest.file_systems]]
path = %q
default_work_dir = true
`, s.issuer.URL(), rule.Audiences[0], storage.URL, s3server.Region, s3server.Bucket, s3server.AccessKeyID, s.node.Addr(), s.node.KnownHosts(), s.node.Version, s.node.Dir()+"/home")
	if err := os.WriteFile(filepath.Join(data, "sallyport.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + serve(t, binary, data, filepath.Join(dir, "address"))
	return s
}

// serve runs the binary until the test ends, and returns its address.
func serve(t *testing.T, binary, data, addressFile string) string {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(binary, "serve", "--config", filepath.Join(data, "sallyport.toml"), "--address-file", addressFile)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("sallyport: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the service:\n%s", log.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) { // a real process
		if text, err := os.ReadFile(addressFile); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatal("the service does not start")
	return ""
}

// token is one of alice's, for an hour.
func (s *service) token(t *testing.T) string {
	t.Helper()
	token, err := s.issuer.Mint(map[string]any{
		"sub": "sub-alice", "preferred_username": "alice", "exp": time.Now().Add(time.Hour).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestPyfirecrestWorksUnchanged(t *testing.T) {
	program, s := python(t, "requirements.txt"), start(t)
	for _, script := range []string{"compute.py", "filesystem.py", "transfer.py", "spawner.py"} {
		t.Run(script, func(t *testing.T) { s.drive(t, program, script, s.token(t)) })
	}
}

// AiiDA's plugins get their token as clients do, by client credentials.
func TestAiiDAsPluginsWorkUnchanged(t *testing.T) {
	program, s := python(t, "requirements-aiida.txt"), start(t)
	token := s.token(t)
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3000, "token_type": "Bearer"}`, token)
	}))
	t.Cleanup(tokens.Close)
	t.Setenv("TOKEN_URI", tokens.URL)
	t.Setenv("AIIDA_PATH", t.TempDir())
	s.drive(t, program, "plugins.py", token)
}

// drive runs a script of this folder against the service.
func (s *service) drive(t *testing.T, program, script, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, script)
	cmd.Env = append(os.Environ(), "FIRECREST_URL="+s.url, "TOKEN="+token, "SYSTEM=cluster", "WORK_DIR="+s.node.Home("alice"), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, os.Stdout), &out
	if err := cmd.Run(); err != nil {
		t.Fatal(errors.Join(err, errors.New(out.String())))
	}
}
