package executor_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// Where the certificates of tests with a real sshd come from: the test's own
// authority, or, if this variable is "remote", a CA that is another process, "sallyport
// serve --role ca", asked over HTTP with the callers' tokens. "make test" runs them
// both ways. Tests in bubbles are about time, and a bubble has no network: they have
// the test's authority always.
const credentialsVariable = "SALLYPORT_TEST_CREDENTIALS"

// credentials are a provider with the people that it knows.
type credentials struct {
	executor.CredentialProvider
	// trusted is the text of the nodes' TrustedUserCAKeys file.
	trusted []byte
	person  func(alias, subject, login string) identity.Identity
}

// newCredentials is the one place that decides where certificates come from.
func newCredentials(t testing.TB, own *authority) credentials {
	t.Helper()
	switch from := os.Getenv(credentialsVariable); from {
	case "":
		return credentials{own, own.bundle(), func(alias, subject, login string) identity.Identity {
			return identitytest.IdentityFrom(t, alias, subject, login, time.Hour)
		}}
	case "remote":
		return remoteCredentials(t)
	default:
		t.Fatalf("%s is %q, and not empty or \"remote\"", credentialsVariable, from)
		panic("unreachable")
	}
}

func isElsewhere() bool { return os.Getenv(credentialsVariable) != "" }

// program builds the program once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sallyport-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sallyport")
	if out, err := exec.Command("go", "build", "-o", path, "sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// remoteCredentials starts a CA that believes two issuers, and asks it.
func remoteCredentials(t testing.TB) credentials {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	issuers := make(map[string]*identitytest.Issuer)
	var rules []identity.IssuerConfig
	// Jump hosts need an extension, which the profile "user" may have.
	text := "[server]\nlisten = \"127.0.0.1:0\"\n[executor]\nenabled = false\n" +
		"[ca.compat]\nssh_keys = true\nprofile = \"user\"\n[ca.profiles.user]\nextensions = [\"permit-port-forwarding\"]\n"
	for _, alias := range []string{"test", "other"} {
		issuer, err := identitytest.Start(identitytest.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = issuer.Close() })
		issuers[alias] = issuer
		rule := issuer.IssuerConfig(alias)
		rule.AllowHTTP = true
		rules = append(rules, rule)
		text += fmt.Sprintf("[[issuers]]\nalias = %q\nurl = %q\naudiences = [%q]\nallow_http = true\nlogin_namespace = \"test\"\n", alias, issuer.URL(), rule.Audiences[0])
	}
	verifier, err := identity.New(identity.Config{Issuers: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = verifier.Close() })
	url, trusted := serveCA(t, binary, text)
	keys := filepath.Join(t.TempDir(), "trusted")
	if err := os.WriteFile(keys, trusted, 0o600); err != nil {
		t.Fatal(err)
	}
	provider, err := credential.NewRemote(credential.RemoteConfig{
		ServiceConfig: credential.ServiceConfig{URL: url, Expect: credential.Expectation{
			CAKeysFile: keys, Extensions: []string{"permit-port-forwarding"},
		}},
		Lifetime: 5 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() })
	return credentials{provider, trusted, func(alias, subject, login string) identity.Identity {
		token, err := issuers[alias].Mint(map[string]any{"sub": subject, "preferred_username": login})
		if err != nil {
			t.Fatal(err)
		}
		caller, err := verifier.Verify(context.Background(), token)
		if err != nil {
			t.Fatal(err)
		}
		return caller
	}}
}

// serveCA runs "sallyport serve --role ca" until the test ends.
func serveCA(t testing.TB, binary, config string) (url string, trusted []byte) {
	t.Helper()
	parent, err := os.MkdirTemp("", "ca") //nolint:usetesting // some tests open the folder of t.TempDir to accounts, and no CA serves from such
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	dir := filepath.Join(parent, "ca")
	if out, err := exec.Command(binary, "init", dir).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	path, address := filepath.Join(dir, "sallyport.toml"), filepath.Join(dir, "address")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	service := exec.Command(binary, "serve", "--role", "ca", "--config", path, "--address-file", address)
	service.Stderr = &said
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = service.Process.Signal(syscall.SIGTERM)
		if err := service.Wait(); err != nil || t.Failed() {
			t.Logf("the CA: %v\n%s", err, said.String())
		}
	})
	var where []byte
	for range 600 {
		if where, _ = os.ReadFile(address); len(where) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond) // another process is starting
	}
	trusted, err = os.ReadFile(filepath.Join(dir, "ca_key.pub"))
	if err != nil || len(where) == 0 {
		t.Fatalf("the CA does not serve: %v", err)
	}
	return "http://" + strings.TrimSpace(string(where)), trusted
}
