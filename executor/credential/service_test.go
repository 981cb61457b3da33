package credential_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/identity"
	"sallyport/identity/identitytest"
)

// A fakeService signs what a test tells it to sign, in both formats.
type fakeService struct {
	t testing.TB

	// mu guards what follows once the server runs, which config starts.
	mu     sync.Mutex
	signer ssh.Signer
	// change spoils the draft; wrap replaces the signed line.
	change func(*ssh.Certificate)
	wrap   func(line string) string
	// answer replaces the whole handler.
	answer http.HandlerFunc

	server   *httptest.Server
	requests []request
}

// A request is what arrived at the service.
type request struct {
	path   string
	header http.Header
	fields map[string]string
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newService(t testing.TB) *fakeService {
	return &fakeService{t: t, signer: newSigner(t)}
}

// seen returns the requests that arrived.
func (s *fakeService) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *fakeService) serve(w http.ResponseWriter, r *http.Request) {
	req := request{path: r.URL.Path, header: r.Header}
	if err := json.NewDecoder(r.Body).Decode(&req.fields); err != nil {
		s.t.Errorf("body: %v", err)
	}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	if r.URL.Path == "/demoCA/sign" {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(req.fields["PublicKey"]))
		if err != nil {
			s.t.Errorf("public key: %v", err)
			return
		}
		_, _ = io.WriteString(w, s.line(key)+"\n")
		return
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Error(err)
		return
	}
	key, _ := ssh.NewPublicKey(public)
	block, _ := ssh.MarshalPrivateKey(private, "")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"sshKey": map[string]string{
		"privateKey": string(pem.EncodeToMemory(block)), "publicKey": s.line(key),
	}})
}

func (s *fakeService) line(key ssh.PublicKey) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := uint64(time.Now().Unix())
	cert := &ssh.Certificate{
		Key: key, Serial: 7, CertType: ssh.UserCert, KeyId: "k", ValidPrincipals: []string{"alice"},
		ValidAfter: now - 60, ValidBefore: now + 300,
	}
	if s.change != nil {
		s.change(cert)
	}
	if err := cert.SignCert(rand.Reader, s.signer); err != nil {
		s.t.Error(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))
	if s.wrap != nil {
		line = s.wrap(line)
	}
	return line
}

func (s *fakeService) config() credential.ServiceConfig {
	if s.server == nil {
		s.server = httptest.NewServer(http.HandlerFunc(s.serve))
		s.t.Cleanup(s.server.Close)
	}
	return credential.ServiceConfig{
		URL: s.server.URL, Timeout: 5 * time.Second,
		Expect: credential.Expectation{
			CAFingerprints: []string{ssh.FingerprintSHA256(s.signer.PublicKey())},
			Extensions:     []string{"permit-pty"},
		},
	}
}

type closer interface {
	executor.CredentialProvider
	Close() error
}

// providers are both clients of the service.
func (s *fakeService) providers(cfg credential.ServiceConfig) map[string]closer {
	s.t.Helper()
	remote, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: cfg})
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.URL += "/demoCA"
	deic, err := credential.NewDeiC(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _, _ = remote.Close(), deic.Close() })
	return map[string]closer{"remote": remote, "deic": deic}
}

func alice(t testing.TB) identity.Identity { return identitytest.Identity(t, "alice", time.Hour) }

func TestACertificateOfAServiceElsewhereLogsIn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.change = func(c *ssh.Certificate) {
		c.Extensions = map[string]string{"permit-pty": ""}
		c.CriticalOptions = map[string]string{"source-address": "192.0.2.1/32"}
	}
	caller := alice(t)
	for name, p := range s.providers(s.config()) {
		got, err := p.Credential(t.Context(), caller, node)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cert, ok := got.Signer.PublicKey().(*ssh.Certificate)
		if got.User != "alice" || !ok || cert != got.Certificate || got.NotAfter.Unix() != int64(cert.ValidBefore) {
			t.Errorf("%s: got %+v", name, got)
		}
		message := []byte("to sign")
		signature, err := got.Signer.Sign(rand.Reader, message)
		if err != nil || cert.Key.Verify(message, signature) != nil {
			t.Errorf("%s: the key does not sign for the certificate: %v", name, err)
		}
	}
}

func TestRequestsAreThoseOfFirecREST(t *testing.T) {
	t.Parallel()
	s := newService(t)
	cfg := s.config()
	cfg.RequestID = func(context.Context) string { return "req-1" }
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	cfg.Traceparent = func(context.Context) string { return trace }
	cfg.Version = "1.2"
	caller := alice(t)
	providers := s.providers(cfg)
	for _, name := range []string{"remote", "deic"} {
		if _, err := providers[name].Credential(t.Context(), caller, node); err != nil {
			t.Fatal(err)
		}
	}
	requests := s.seen()
	remote, deic := requests[0], requests[1]
	if remote.path != "/api/v1/ssh-keys" || remote.header.Get("Authorization") != "Bearer "+caller.Bearer() ||
		len(remote.fields) != 2 || remote.fields["duration"] != "1min" || remote.fields["username"] != "alice" {
		t.Errorf("remote sends %+v", remote)
	}
	if deic.path != "/demoCA/sign" || deic.header.Get("Authorization") != "" || len(deic.fields) != 2 ||
		deic.fields["OTT"] != caller.Bearer() || !strings.HasPrefix(deic.fields["PublicKey"], "ssh-ed25519 ") || strings.HasSuffix(deic.fields["PublicKey"], "\n") {
		t.Errorf("deic sends %+v", deic)
	}
	for _, r := range requests {
		for name, want := range map[string]string{
			"X-Request-ID": "req-1", "Traceparent": trace, "X-Client-Type": "api", "X-Client-Name": "sallyport", "X-Client-Version": "1.2",
			"Content-Type": "application/json", "User-Agent": "sallyport/1.2",
		} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", r.path, name, got)
			}
		}
	}
}

func TestEachCertificateIsOverAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for name, p := range s.providers(s.config()) {
		seen := map[string]bool{}
		for range 3 {
			got, err := p.Credential(t.Context(), alice(t), node)
			if err != nil {
				t.Fatal(err)
			}
			seen[string(got.Certificate.Key.Marshal())] = true
		}
		if len(seen) != 3 {
			t.Errorf("%s: 3 credentials have %d keys", name, len(seen))
		}
	}
}

func TestAHostileCertificateIsNotUsed(t *testing.T) {
	t.Parallel()
	now := func() uint64 { return uint64(time.Now().Unix()) }
	for name, c := range map[string]struct {
		change func(*ssh.Certificate)
		want   string
	}{
		"other user":        {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }, `it names "root" instead of "alice" alone`},
		"one more user":     {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", "bob"} }, `and 1 more instead of "alice" alone`},
		"twice the user":    {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", "alice"} }, "alone"},
		"no user":           {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "it names nobody"},
		"a list as a user":  {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice,root"} }, "alone"},
		"host certificate":  {func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "type 2"},
		"no type":           {func(c *ssh.Certificate) { c.CertType = 0 }, "type 0"},
		"forced command":    {func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "rm -rf /"} }, `critical option "force-command"`},
		"unknown option":    {func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x@y": ""} }, `critical option "x@y"`},
		"agent forwarding":  {func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-agent-forwarding": ""} }, `extension "permit-agent-forwarding"`},
		"unknown extension": {func(c *ssh.Certificate) { c.Extensions = map[string]string{"z@y": "1"} }, `extension "z@y"`},
		"expired":           {func(c *ssh.Certificate) { c.ValidBefore = now() - 1 }, "it ended at"},
		"never valid":       {func(c *ssh.Certificate) { c.ValidBefore = 0 }, "it ended at"},
		"not yet":           {func(c *ssh.Certificate) { c.ValidAfter = now() + 100 }, "it begins only at"},
		"for a day":         {func(c *ssh.Certificate) { c.ValidBefore = now() + 86400 }, "longer than 15m"},
		"for ever":          {func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, "longer than 15m"},
		"nearly for ever":   {func(c *ssh.Certificate) { c.ValidBefore = 1<<63 + 5 }, "longer than 15m"},
		"weak key":          {func(c *ssh.Certificate) { c.Key = dsaKey(t) }, "key that is not acceptable"},
		"foreign key":       {func(c *ssh.Certificate) { c.Key = newSigner(t).PublicKey() }, "not over the key that it came for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			s.change = c.change
			for name, p := range s.providers(s.config()) {
				got, err := p.Credential(t.Context(), alice(t), node)
				if !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), c.want) || got.Signer != nil {
					t.Errorf("%s: got %+v, %v; want %q", name, got, err, c.want)
				}
			}
		})
	}
}

// dsaKey is a key that no node should take, in wire form: x/crypto reads it.
func dsaKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	const line = "ssh-dss AAAAB3NzaC1kc3MAAACBANGFW2P9xlGU3zWrymJgI/lKo//ZW2WfVtmbsUZJ5uyKArtlQOT2+WRhcg4979aFxgKdcsqAYW3/LS1T2km3jYW/vr4Uzn+dXWODVk5VlUiZ1HFOHf6s6ITcZvjvdbp6ZbpM+DuJT7Bw+h5Fx8Qt8I16oCZYmAPJRtu46o9C2zk1AAAAFQC4gdFGcSbp5Gr0Wd5Ay/jtcldMewAAAIATTgn4sY4Nem/FQE+XJlyUQptPWMem5fwOcWtSXiTKaaN0lkk2p2snz+EJvAGXGq9dTSWHyLJSM2W6ZdQDqWJ1k+cL8CARAqL+UMwF84CR0m3hj+wtVGD/J4G5kW2DBAf4/bqzP4469lT+dF2FRQ2L9JKXrCWcnhMtJUvua8dvnwAAAIB6C4nQfAA7x8oLta6tT+oCk2WQcydNsyugE8vLrHlogoWEicla6cWPk7oXSspbzUcfkjN3Qa6e74PhRkc7JdSdAlFzU3m7LMkXo1MHgkqNX8glxWNVqBSc0YRdbFdTkL0C6gtpklilhvuHQCdbgB3LBAikcRkDp+FCVkUgPC/7Rw=="
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAForeignCAIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := newService(t)
	providers := s.providers(s.config())
	s.mu.Lock()
	s.signer = newSigner(t)
	s.mu.Unlock()
	for name, p := range providers {
		if _, err := p.Credential(t.Context(), alice(t), node); !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "no CA that is expected") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASignatureThatDoesNotFitIsFound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.wrap = func(line string) string { // another serial, the same length
		key, _, _, _, _ := ssh.ParseAuthorizedKey([]byte(line))
		cert := key.(*ssh.Certificate)
		cert.Serial++
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))
	}
	for name, p := range s.providers(s.config()) {
		if _, err := p.Credential(t.Context(), alice(t), node); !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "does not verify") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheFileOfCAKeysIsFollowed(t *testing.T) {
	t.Parallel()
	s, f := newService(t), newFiles(t)
	other := newSigner(t)
	bundle := func(signers ...ssh.Signer) []byte {
		text := "# trusted\n\n"
		for _, k := range signers {
			text += string(ssh.MarshalAuthorizedKey(k.PublicKey()))
		}
		return []byte(text)
	}
	cfg := s.config()
	cfg.Expect.CAFingerprints = nil
	cfg.Expect.CAKeysFile = f.write("ca.pub", bundle(other), 0o644)
	providers := s.providers(cfg)
	ask := func(want bool, why string) {
		t.Helper()
		for name, p := range providers {
			if _, err := p.Credential(t.Context(), alice(t), node); (err == nil) != want || err != nil && !errors.Is(err, executor.ErrNoCredential) {
				t.Errorf("%s, %s: %v", name, why, err)
			}
		}
	}
	ask(false, "the key is not in it")
	f.write("ca.pub", bundle(other, s.signer), 0o644)
	ask(true, "the key was added")
	f.write("ca.pub", append(bundle(s.signer), "ssh-ed25519 AAAAbroken\n"...), 0o644)
	ask(false, "a line cannot be read")
	f.write("ca.pub", nil, 0o644)
	ask(false, "it is empty")
	if err := os.Remove(cfg.Expect.CAKeysFile); err != nil {
		t.Fatal(err)
	}
	ask(false, "it is gone")
}

func TestNothingIsSentForNobodyNorForATokenThatIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in which nothing can be sent
		caller := alice(t)
		time.Sleep(2 * time.Hour)
		cfg := credential.ServiceConfig{URL: "https://192.0.2.1", Expect: credential.Expectation{CAFingerprints: []string{"SHA256:" + strings.Repeat("A", 43)}}}
		remote, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: cfg})
		if err != nil {
			t.Fatal(err)
		}
		deic, err := credential.NewDeiC(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []executor.CredentialProvider{remote, deic} {
			for want, caller := range map[string]identity.Identity{"nobody": {}, "token has expired": caller} {
				if _, err := p.Credential(t.Context(), caller, node); !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), want) {
					t.Errorf("%T: got %v, want %q", p, err, want)
				}
			}
		}
	})
}

func TestAPrivateKeyThatCannotBeUsedIsRefusedWithoutItsText(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	for name, text := range map[string]string{
		"none": "", "no PEM": "SECRET", "damaged": "-----BEGIN OPENSSH PRIVATE KEY-----\nU0VDUkVU\n-----END OPENSSH PRIVATE KEY-----\n",
		"long": "-----BEGIN OPENSSH PRIVATE KEY-----\n" + strings.Repeat("SECRET12", 2000) + "\n-----END OPENSSH PRIVATE KEY-----\n",
	} {
		s := newService(t)
		s.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(map[string]any{"sshKey": map[string]string{"privateKey": text, "publicKey": s.line(key.PublicKey())}})
		}
		_, err := s.providers(s.config())["remote"].Credential(t.Context(), alice(t), node)
		if !errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "private key") || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLSIsVerified(t *testing.T) {
	t.Parallel()
	s := newService(t)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	secure.Config.ErrorLog = nil
	secure.StartTLS()
	t.Cleanup(secure.Close)
	cfg := s.config()
	cfg.URL = secure.URL
	for name, p := range s.providers(cfg) {
		_, err := p.Credential(t.Context(), alice(t), node)
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || errors.Is(err, executor.ErrNoCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.seen()) != 0 {
		t.Error("a token was sent to a server that is not the one expected")
	}
	cfg.TLSRoots = x509.NewCertPool()
	cfg.TLSRoots.AddCert(secure.Certificate())
	for name, p := range s.providers(cfg) {
		if _, err := p.Credential(t.Context(), alice(t), node); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAServiceThatIsAwayIsNoRefusal(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := newService(t)
	cfg := s.config()
	cfg.URL = "http://" + l.Addr().String()
	for name, p := range s.providers(cfg) {
		if _, err := p.Credential(t.Context(), alice(t), node); err == nil || errors.Is(err, executor.ErrNoCredential) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAConfigurationThatTrustsTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	good := "SHA256:" + strings.Repeat("A", 43)
	for name, c := range map[string]struct {
		change func(*credential.RemoteConfig)
		want   string
	}{
		"no URL":          {func(c *credential.RemoteConfig) { c.URL = "" }, "URL"},
		"no host":         {func(c *credential.RemoteConfig) { c.URL = "https:///x" }, "URL"},
		"plain HTTP":      {func(c *credential.RemoteConfig) { c.URL = "http://ca.example.org" }, "in the clear"},
		"password":        {func(c *credential.RemoteConfig) { c.URL = "https://u:secret@ca.example.org" }, "has a user"},
		"query":           {func(c *credential.RemoteConfig) { c.URL = "https://ca.example.org/?token=secret" }, "has a user, a query"},
		"any CA":          {func(c *credential.RemoteConfig) { c.Expect.CAFingerprints = nil }, "any CA would be believed"},
		"MD5 fingerprint": {func(c *credential.RemoteConfig) { c.Expect.CAFingerprints = []string{"MD5:aa:bb"} }, "no fingerprint"},
		"no file":         {func(c *credential.RemoteConfig) { c.Expect.CAKeysFile = "/nowhere/ca.pub" }, "no such file"},
		"no key in file":  {func(c *credential.RemoteConfig) { c.Expect.CAKeysFile = f.write("empty", []byte("# none\n"), 0o644) }, "no key in it"},
		"two days":        {func(c *credential.RemoteConfig) { c.Expect.MaxLifetime = 48 * time.Hour }, "between 0 and 24h"},
		"seconds":         {func(c *credential.RemoteConfig) { c.Lifetime = 90 * time.Second }, "whole minutes"},
		"negative":        {func(c *credential.RemoteConfig) { c.Timeout = -1 }, "negative"},
	} {
		cfg := credential.RemoteConfig{ServiceConfig: credential.ServiceConfig{
			URL: "https://ca.example.org", Expect: credential.Expectation{CAFingerprints: []string{good}},
		}}
		c.change(&cfg)
		_, err := credential.NewRemote(cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if cfg.Lifetime == 0 {
			if _, err := credential.NewDeiC(cfg.ServiceConfig); err == nil {
				t.Errorf("%s: DeiC takes it", name)
			}
		}
	}
	for _, u := range []string{"http://127.0.0.1:1", "http://[::1]:1/x", "http://localhost", "https://ca.example.org/base/"} {
		if _, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: credential.ServiceConfig{
			URL: u, Expect: credential.Expectation{CAFingerprints: []string{good}},
		}}); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	_, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: credential.ServiceConfig{
		URL: "http://ca.example.org", AllowHTTP: true, Expect: credential.Expectation{CAFingerprints: []string{good}},
	}, Lifetime: 5 * time.Minute})
	if err != nil {
		t.Errorf("allowed HTTP: %v", err)
	}
}

func TestTheLifetimeIsAskedForAsTheServiceKnowsIt(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for lifetime, want := range map[time.Duration]string{0: "1min", time.Minute: "1min", 5 * time.Minute: "5min", time.Hour: "60min", 24 * time.Hour: "1d"} {
		p, err := credential.NewRemote(credential.RemoteConfig{ServiceConfig: s.config(), Lifetime: lifetime})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Credential(t.Context(), alice(t), node); err != nil {
			t.Error(err)
		}
		requests := s.seen()
		if got := requests[len(requests)-1].fields["duration"]; got != want {
			t.Errorf("%s is asked for as %q", lifetime, got)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
