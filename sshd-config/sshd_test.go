package sshdconfig_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/internal/loginnode"
	sshdconfig "sallyport/sshd-config"
)

// The appliance connects from the first address, everyone else from the second.
const (
	applianceIP = "127.0.0.1"
	elsewhereIP = "127.0.0.2"
)

func newSigner(t *testing.T) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

// site is a login node whose administrator was careless before the drop-in came.
type site struct {
	*loginnode.Node
	ca         ssh.Signer
	key        ssh.Signer // of whoever logs in, and among the authorized keys of alice
	directory  ssh.Signer // that the site gives as a key of everyone by AuthorizedKeysCommand
	private    ed25519.PrivateKey
	trust, krl string
	dropIn     sshdconfig.DropIn
}

// carelessGlobals would each let somebody in whom the drop-in must keep out. The CA is trusted by the drop-in alone. DIR is the folder of the node.
const carelessGlobals = `
TrustedUserCAKeys none
RevokedKeys none
PermitRootLogin yes
DenyGroups contractors
MaxSessions 3
AuthorizedKeysCommand /usr/bin/cat DIR/site_keys
AuthorizedKeysCommandUser root
`

func newSite(t *testing.T, change func(*sshdconfig.Config), globals ...string) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a node with several accounts takes root; CI is root")
	}
	s := &site{}
	s.ca, _ = newSigner(t)
	s.key, s.private = newSigner(t)
	s.directory, _ = newSigner(t)
	dir := t.TempDir()
	s.trust, s.krl = filepath.Join(dir, "site_trust"), filepath.Join(dir, "site.krl")
	s.write(t, s.trust, ssh.MarshalAuthorizedKey(s.ca.PublicKey()))
	s.revoke(t, 9999)
	s.write(t, filepath.Join(dir, "site_keys"), ssh.MarshalAuthorizedKey(s.directory.PublicKey()))
	cfg := sshdconfig.Config{
		Addresses:         []netip.Prefix{netip.MustParsePrefix(applianceIP + "/32")},
		TrustedUserCAKeys: s.trust, RevokedKeys: s.krl, MaxSessions: 5, Version: installedVersion(t),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if s.dropIn, err = sshdconfig.Render(cfg); err != nil {
		t.Fatal(err)
	}
	s.Node, err = loginnode.Start(t.Context(), loginnode.Config{
		Dir: dir,
		Users: []loginnode.User{
			{Name: "alice", AuthorizedKeys: ssh.MarshalAuthorizedKey(s.key.PublicKey())},
			{Name: "carol", Groups: []string{"users", "wheel"}},
			{Name: "dave", Groups: []string{"contractors"}},
		},
		Extra: s.dropIn.Global + strings.ReplaceAll(carelessGlobals+strings.Join(globals, "\n")+"\n", "DIR", dir) + s.dropIn.Match,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func installedVersion(t *testing.T) sshdconfig.Version {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ssh", "-V").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	v, err := sshdconfig.ParseVersion(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// write replaces by rename, as the drop-in asks for.
func (s *site) write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// revoke has ssh-keygen write a revocation list with one serial of the CA.
func (s *site) revoke(t *testing.T, serial uint64) {
	t.Helper()
	spec := filepath.Join(t.TempDir(), "spec")
	s.write(t, spec, fmt.Appendf(nil, "serial: %d\n", serial))
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-k", "-f", s.krl+".new", "-s", s.trust, spec).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	if err := os.Rename(s.krl+".new", s.krl); err != nil {
		t.Fatal(err)
	}
}

// certificate is for the key of the site, with serial 7 and no extensions unless change says otherwise.
func (s *site) certificate(t *testing.T, principal string, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: s.key.PublicKey(), Serial: 7, CertType: ssh.UserCert, KeyId: "v1:test:" + principal, ValidPrincipals: []string{principal},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(rand.Reader, s.ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func (s *site) certSigner(t *testing.T, principal string, change func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewCertSigner(s.certificate(t, principal, change), s.key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// login connects from an address of this host.
func (s *site) login(t *testing.T, from, user string, signers ...ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	hostKey, err := knownhosts.New(s.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	conn, err := d.DialContext(t.Context(), "tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, s.Addr(), &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)}, HostKeyCallback: hostKey,
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	t.Cleanup(func() { _ = client.Close() })
	return client, nil
}

func (s *site) mustLogin(t *testing.T, from, user string, signers ...ssh.Signer) *ssh.Client {
	t.Helper()
	client, err := s.login(t, from, user, signers...)
	if err != nil {
		t.Fatalf("login of %s from %s: %v\n%s", user, from, err, s.Log())
	}
	return client
}

// mustRefuse wants a refused login for a reason that sshd logs.
func (s *site) mustRefuse(t *testing.T, reason, from, user string, signers ...ssh.Signer) {
	t.Helper()
	before := len(s.Log())
	if _, err := s.login(t, from, user, signers...); err == nil {
		t.Fatalf("%s logs in from %s", user, from)
	}
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(s.Log()[before:], reason); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("refused, but the log does not say %q:\n%s", reason, s.Log()[before:])
		}
	}
}

func output(t *testing.T, client *ssh.Client, command string) string {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.Output(command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestSshdTakesTheDropInAndAppliesEachKeywordInsideTheMatchOnly(t *testing.T) {
	t.Parallel()
	for name, targets := range map[string][]string{"no forwarding": nil, "jump host": {"node1:22", "192.0.2.7:2222", "[2001:db8::7]:22"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(c *sshdconfig.Config) { c.JumpTargets = targets })
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			inside, outside := s.effective(t, applianceIP), s.effective(t, elsewhereIP)
			count := 0
			for line := range strings.Lines(s.dropIn.Match) {
				keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				if keyword == "" || strings.HasPrefix(keyword, "#") || keyword == "Match" {
					continue
				}
				count++
				keyword, value = strings.ToLower(keyword), strings.ToLower(value)
				if got := inside[keyword]; got != value {
					t.Errorf("inside the Match: %s %q, want %q", keyword, got, value)
				}
			}
			if count < 20 {
				t.Errorf("only %d keywords compared", count)
			}
			for keyword, want := range map[string]string{
				"permitrootlogin": "yes", "maxauthtries": "6", "maxsessions": "3", "denygroups": "contractors", "trustedusercakeys": "none",
				"revokedkeys": "none", "permittty": "yes", "disableforwarding": "no", "allowtcpforwarding": "yes",
			} {
				if got := outside[keyword]; got != want {
					t.Errorf("outside the Match: %s %q, want %q", keyword, got, want)
				}
			}
			if got := outside["maxstartups"]; got != "200:30:1000" {
				t.Errorf("global part: maxstartups %q, want 200:30:1000", got)
			}
		})
	}
}

// effective is what holds for alice from an address. sshd prints the entries of some lists a line each.
func (s *site) effective(t *testing.T, from string) map[string]string {
	t.Helper()
	text, err := s.Effective(t.Context(), "user=alice,host=client,addr="+from)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(text) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[keyword] = strings.TrimSpace(values[keyword] + " " + value)
	}
	return values
}

func TestCertificateOfTheUserLogsInWithOneTry(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	client := s.mustLogin(t, applianceIP, "alice", s.certSigner(t, "alice", nil))
	if got := output(t, client, "id -un"); got != "alice" {
		t.Errorf("id: got %q, want alice", got)
	}
	want := "ID v1:test:alice (serial 7) CA ED25519 " + ssh.FingerprintSHA256(s.ca.PublicKey())
	if !strings.Contains(s.Log(), want) {
		t.Errorf("log lacks %q:\n%s", want, s.Log())
	}
	wrong := s.certSigner(t, "bob", nil)
	s.mustRefuse(t, "maximum authentication attempts exceeded for alice", applianceIP, "alice", wrong, s.certSigner(t, "alice", nil))
}

func TestCertificateLogsInByTheRealClientWithOneTry(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	block, err := ssh.MarshalPrivateKey(s.private, "")
	if err != nil {
		t.Fatal(err)
	}
	id := filepath.Join(t.TempDir(), "id")
	for path, content := range map[string][]byte{
		id: pem.EncodeToMemory(block), id + "-cert.pub": ssh.MarshalAuthorizedKey(s.certificate(t, "alice", nil)),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, port, _ := strings.Cut(s.Addr(), ":")
	out, err := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", id, "-o", "CertificateFile="+id+"-cert.pub", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile="+s.KnownHosts(), "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		"-b", applianceIP, "-p", port, "alice@127.0.0.1", "id -un").Output()
	if err != nil || strings.TrimSpace(string(out)) != "alice" {
		t.Errorf("ssh: %q, %v\n%s", out, err, s.Log())
	}
}

func TestLoginsBeyondTheDropInAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	other, _ := newSigner(t)
	hour := func(n int) uint64 { return uint64(time.Now().Add(time.Duration(n) * time.Hour).Unix()) }
	cases := []struct {
		name, reason, user, principal string
		change                        func(*ssh.Certificate)
	}{
		{name: "root, by its group", reason: "User root from 127.0.0.1 not allowed because a group is listed in DenyGroups", user: "root"},
		{name: "member of a denied group", reason: "User carol from 127.0.0.1 not allowed because a group is listed in DenyGroups", user: "carol"},
		{name: "principal of someone else", reason: "Certificate invalid: name is not a listed principal", user: "alice", principal: "bob"},
		{
			name: "no principals", reason: "Certificate lacks principal list", user: "alice",
			change: func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		},
		{name: "expired", reason: "Certificate invalid: expired", user: "alice", change: func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = hour(-2), hour(-1) }},
		{name: "not yet valid", reason: "Certificate invalid: not yet valid", user: "alice", change: func(c *ssh.Certificate) { c.ValidAfter = hour(1); c.ValidBefore = hour(2) }},
		{name: "for another address", reason: "not from a permitted source address", user: "alice", change: func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": elsewhereIP + "/32"}
		}},
		{name: "host certificate", reason: "Certificate invalid: not a user certificate", user: "alice", change: func(c *ssh.Certificate) { c.CertType = ssh.HostCert }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			principal := c.principal
			if principal == "" {
				principal = c.user
			}
			s.mustRefuse(t, c.reason, applianceIP, c.user, s.certSigner(t, principal, c.change))
		})
	}
	t.Run("unknown CA", func(t *testing.T) {
		cert := s.certificate(t, "alice", nil)
		if err := cert.SignCert(rand.Reader, other); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewCertSigner(cert, s.key)
		if err != nil {
			t.Fatal(err)
		}
		s.mustRefuse(t, "Failed publickey for alice from 127.0.0.1", applianceIP, "alice", signer)
	})
}

func TestRootIsRefusedAlsoWhereItsGroupIsNotDenied(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *sshdconfig.Config) { c.DenyGroups = []string{"wheel"} })
	s.mustRefuse(t, "ROOT LOGIN REFUSED FROM 127.0.0.1", applianceIP, "root", s.certSigner(t, "root", nil))
}

func TestTheCAIsTrustedFromTheApplianceOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	cert := s.certSigner(t, "alice", nil)
	s.mustLogin(t, applianceIP, "alice", cert)
	s.mustRefuse(t, "Failed publickey for alice from 127.0.0.2", elsewhereIP, "alice", cert)
}

func TestPlainKeysWorkFromElsewhereOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, key := range []ssh.Signer{s.key, s.directory} {
		s.mustLogin(t, elsewhereIP, "alice", key)
		s.mustRefuse(t, "Failed publickey for alice from 127.0.0.1", applianceIP, "alice", key)
	}
}

func TestTheDropInsDenyGroupsReplaceTheGlobalOnes(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	// As the comment in the drop-in warns: dave's group is denied elsewhere, not here.
	s.mustLogin(t, applianceIP, "dave", s.certSigner(t, "dave", nil))
	s.mustRefuse(t, "User dave from 127.0.0.2 not allowed because a group is listed in DenyGroups", elsewhereIP, "dave", s.key)
}

func TestAGlobalPrincipalsListAlsoGovernsTheAppliance(t *testing.T) {
	t.Parallel()
	// What the fourth instruction warns of, and shows how to see.
	s := newSite(t, nil, "AuthorizedPrincipalsFile DIR/principals")
	list := filepath.Join(s.Dir(), "principals")
	s.write(t, list, []byte("project1\n"))
	s.mustRefuse(t, "Certificate does not contain an authorized principal", applianceIP, "alice", s.certSigner(t, "alice", nil))
	s.mustLogin(t, applianceIP, "alice", s.certSigner(t, "project1", nil))
	if got := s.effective(t, applianceIP)["authorizedprincipalsfile"]; got != strings.ToLower(list) {
		t.Errorf("sshd -T: authorizedprincipalsfile %q, want %q", got, list)
	}
}

func TestRevokedCertificateIsRefusedAndOthersLogIn(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	revoked := s.certSigner(t, "alice", nil)
	s.mustLogin(t, applianceIP, "alice", revoked)
	s.revoke(t, 7)
	s.mustRefuse(t, "revoked by file "+s.krl, applianceIP, "alice", revoked)
	s.mustLogin(t, applianceIP, "alice", s.certSigner(t, "alice", func(c *ssh.Certificate) { c.Serial = 8 }))
}

func TestBrokenFilesActAsDocumentedAndNeverShutOutAdministrators(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	cert, caLine := s.certSigner(t, "alice", nil), ssh.MarshalAuthorizedKey(s.ca.PublicKey())
	s.revoke(t, 7)
	krl, err := os.ReadFile(s.krl)
	if err != nil {
		t.Fatal(err)
	}
	junk := []byte("ssh-ed25519 AAAAnotbase64\n")
	cases := []struct {
		name       string
		trust, krl []byte // nil: the file is missing
		reason     string // empty: logs in
	}{
		{"revoked", caLine, krl, "revoked by file"},
		{"zero-length revocation list revokes nothing", caLine, []byte{}, ""},
		{"missing revocation list", caLine, nil, "Error checking authentication key"},
		{"truncated revocation list", caLine, krl[:len(krl)-3], "Error checking authentication key"},
		{"zero-length trust file", []byte{}, []byte{}, "Failed publickey"},
		{"missing trust file", nil, []byte{}, "Failed publickey"},
		{"junk after the key", slices.Concat(caLine, junk), []byte{}, ""},
		{"junk before the key", slices.Concat(junk, caLine), []byte{}, "Failed publickey"},
		{"comment and blank line before the key, CRLF after it", slices.Concat([]byte("# ours\n\n"), bytes.TrimSpace(caLine), []byte("\r\n")), []byte{}, ""},
		{"blank line with CRLF before the key", slices.Concat([]byte("\r\n"), caLine), []byte{}, "Failed publickey"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s.replaceOrRemove(t, s.trust, c.trust)
			s.replaceOrRemove(t, s.krl, c.krl)
			if c.reason == "" {
				s.mustLogin(t, applianceIP, "alice", cert)
			} else {
				s.mustRefuse(t, c.reason, applianceIP, "alice", cert)
			}
			s.mustLogin(t, elsewhereIP, "alice", s.key)
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("sshd -t notices, contrary to what we document: %v", err)
			}
		})
	}
}

func (s *site) replaceOrRemove(t *testing.T, path string, content []byte) {
	t.Helper()
	if content != nil {
		s.write(t, path, content)
		return
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestSessionsAreBoundedAndWithoutTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	all := func(c *ssh.Certificate) {
		c.Extensions = map[string]string{"permit-pty": "", "permit-port-forwarding": "", "permit-user-rc": ""}
	}
	client := s.mustLogin(t, applianceIP, "alice", s.certSigner(t, "alice", all))
	for i := range 5 {
		session, err := client.NewSession()
		if err != nil {
			t.Fatalf("session %d: %v", i+1, err)
		}
		if err := session.RequestPty("xterm", 24, 80, nil); err == nil {
			t.Error("a terminal is granted")
		}
	}
	if _, err := client.NewSession(); err == nil {
		t.Error("a session beyond MaxSessions opens")
	}
	if _, err := client.Dial("tcp", s.Addr()); err == nil {
		t.Error("forwarding is granted")
	}
	if _, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a listener is granted")
	}
}

func TestJumpHostLeadsToItsTargetsOnly(t *testing.T) {
	t.Parallel()
	targets := []string{greeter(t), greeter(t)}
	s := newSite(t, func(c *sshdconfig.Config) { c.JumpTargets = targets[:1] })
	forward := func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-port-forwarding": ""} }
	client := s.mustLogin(t, applianceIP, "alice", s.certSigner(t, "alice", forward))
	conn, err := client.Dial("tcp", targets[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, []byte("hello")) {
		t.Errorf("through the jump host: %q, %v", got, err)
	}
	if _, err := client.Dial("tcp", targets[1]); err == nil {
		t.Error("it leads to another port")
	}
	if _, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a listener is granted")
	}
	bare := s.mustLogin(t, applianceIP, "alice", s.certSigner(t, "alice", nil))
	if _, err := bare.Dial("tcp", targets[0]); err == nil {
		t.Error("a certificate without permit-port-forwarding goes through")
	}
}

// greeter says hello to each connection and closes it.
func greeter(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = io.WriteString(conn, "hello")
				_ = conn.Close()
			}
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}
