//go:build interop

// Package pyfirecrest drives FirecREST's own client, from PyPI, against the real
// binary with a real sshd and a real Slurm behind it. See "make interop".
package pyfirecrest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
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
	ca     string // file of the CA of its TLS certificate
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
	api, door := freePort(t), freePort(t)
	certify(t, data)
	s.ca = filepath.Join(data, "tls.crt")
	config := fmt.Sprintf(`[server]
listen = "127.0.0.1:%d"
tls_certificate = "tls.crt"
tls_key = "tls.key"
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
[firecrest.streamer]
listen = "127.0.0.1:%d"
public_hosts = ["127.0.0.1"]
url = "https://127.0.0.1:%d"
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
`, api, s.issuer.URL(), rule.Audiences[0], storage.URL, s3server.Region, s3server.Bucket, s3server.AccessKeyID, door, api, s.node.Addr(), s.node.KnownHosts(), s.node.Version, s.node.Dir()+"/home")
	if err := os.WriteFile(filepath.Join(data, "sallyport.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.url = "https://" + serve(t, binary, data, filepath.Join(dir, "address"))
	return s
}

// certify makes a TLS certificate for this machine, which is its own CA.
func certify(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: certificate}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// freePort is one that nobody had a moment ago: the configuration names it twice.
func freePort(t *testing.T) int {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
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
	cmd.Env = append(os.Environ(), "FIRECREST_URL="+s.url, "SSL_CERT_FILE="+s.ca, "REQUESTS_CA_BUNDLE="+s.ca, "TOKEN="+token, "SYSTEM=cluster", "WORK_DIR="+s.node.Home("alice"), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, os.Stdout), &out
	if err := cmd.Run(); err != nil {
		t.Fatal(errors.Join(err, errors.New(out.String())))
	}
}
