package loginnode

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// testCA signs user certificates.
type testCA struct{ ssh.Signer }

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

func newCA(t *testing.T) testCA {
	t.Helper()
	signer, _ := newSigner(t)
	return testCA{signer}
}

func (ca testCA) trust() []byte { return ssh.MarshalAuthorizedKey(ca.PublicKey()) }

func (ca testCA) sign(t *testing.T, key ssh.PublicKey, principal string) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, Serial: 7, CertType: ssh.UserCert, KeyId: "test:" + principal,
		ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

// login is a certificate login as x/crypto makes it.
func (ca testCA) login(t *testing.T, n *Node, user string) (*ssh.Client, error) {
	t.Helper()
	key, _ := newSigner(t)
	signer, err := ssh.NewCertSigner(ca.sign(t, key.PublicKey(), user), key)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, n, user, signer)
}

func (ca testCA) mustLogin(t *testing.T, n *Node, user string) *ssh.Client {
	t.Helper()
	client, err := ca.login(t, n, user)
	if err != nil {
		t.Fatalf("login as %s: %v\n%s", user, err, n.Log())
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func dial(t *testing.T, n *Node, user string, signer ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	hostKey, err := knownhosts.New(n.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Dial("tcp", n.Addr(), &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: hostKey, Timeout: 10 * time.Second,
	})
}

func run(t *testing.T, client *ssh.Client, command string) string {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.CombinedOutput(command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// twoUsers are alice and bob as root, else who runs the test.
func twoUsers() []User {
	if os.Geteuid() != 0 {
		return nil
	}
	return []User{{Name: "alice", Shell: "/bin/bash", Groups: []string{"wheel"}}, {Name: "bob"}}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestCertificateLogsInAsEachUserByCryptoSSH(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	for name, cfg := range map[string]Config{
		"host key":       {},
		"host CA":        {HostCA: true},
		"second RSA key": {SecondHostKey: "rsa", HostCA: true},
		"ECDSA key":      {SecondHostKey: "ecdsa"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Users, cfg.TrustedUserCAKeys = twoUsers(), ca.trust()
			n := start(t, cfg)
			for _, user := range n.Users() {
				client := ca.mustLogin(t, n, user)
				got := strings.Fields(run(t, client, `id -un; pwd`))
				if want := []string{user, n.Home(user)}; !slices.Equal(got, want) {
					t.Errorf("id and home: got %q, want %q", got, want)
				}
			}
			if want := "CA ED25519 " + ssh.FingerprintSHA256(ca.PublicKey()); !strings.Contains(n.Log(), want) {
				t.Errorf("log lacks %q:\n%s", want, n.Log())
			}
		})
	}
}

func TestCertificateLogsInByTheRealClient(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust(), HostCA: true})
	_, port, _ := strings.Cut(n.Addr(), ":")
	for _, user := range n.Users() {
		signer, key := newSigner(t)
		dir := t.TempDir()
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		identity := filepath.Join(dir, "id")
		for path, content := range map[string][]byte{
			identity:               pem.EncodeToMemory(block),
			identity + "-cert.pub": ssh.MarshalAuthorizedKey(ca.sign(t, signer.PublicKey(), user)),
		} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", identity, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+n.KnownHosts(), "-o", "GlobalKnownHostsFile=none", "-o", "LogLevel=ERROR",
			"-p", port, user+"@127.0.0.1", "id -un").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != user {
			t.Errorf("ssh as %s: %q, %v\n%s", user, out, err, n.Log())
		}
	}
}

func TestUntrustedAndWithdrawnCAsAreRefused(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t), newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	user := n.Users()[0]
	if _, err := other.login(t, n, user); err == nil {
		t.Fatal("a certificate of an unknown CA logs in")
	}
	if err := n.SetTrustedUserCAKeys(other.trust()); err != nil {
		t.Fatal(err)
	}
	other.mustLogin(t, n, user)
	if _, err := ca.login(t, n, user); err == nil {
		t.Fatal("a certificate of the withdrawn CA logs in")
	}
	if err := n.SetRevokedKeys([]byte("no revocation list")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.login(t, n, user); err == nil {
		t.Fatal("logins go on with a broken revocation list")
	}
}

func TestAuthorizedKeyLogsInWithoutCertificate(t *testing.T) {
	t.Parallel()
	signer, _ := newSigner(t)
	users := twoUsers()
	if users == nil {
		users = []User{{Name: currentName(t)}}
	}
	users[0].AuthorizedKeys = ssh.MarshalAuthorizedKey(signer.PublicKey())
	n := start(t, Config{Users: users})
	client, err := dial(t, n, users[0].Name, signer)
	if err != nil {
		t.Fatalf("%v\n%s", err, n.Log())
	}
	defer client.Close()
	if got := run(t, client, "id -un"); got != users[0].Name {
		t.Errorf("id: got %q, want %q", got, users[0].Name)
	}
}

func currentName(t *testing.T) string {
	t.Helper()
	accounts, err := Config{}.currentUser()
	if err != nil {
		t.Fatal(err)
	}
	for name := range accounts {
		return name
	}
	return ""
}

func TestNodesWithTheSameUsersDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	one := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	two := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	user := one.Users()[0]
	session, err := ca.mustLogin(t, one, user).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("exec sleep 300.25"); err != nil {
		t.Fatal(err)
	}
	has := func(n *Node) bool {
		list, err := n.Processes(user)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(p Process) bool { return p.Command == "sleep 300.25" })
	}
	eventually(t, "the command is in the first node's process table", func() bool { return has(one) })
	if has(two) {
		t.Error("the command is in the second node's process table")
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	user := n.Users()[0]
	client := ca.mustLogin(t, n, user)
	// One in a session of its own that ignores polite signals, one in the foreground.
	run(t, client, `setsid sh -c 'trap "" TERM HUP; sleep 301; :' >/dev/null 2>&1 </dev/null & exit 0`)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("sleep 302"); err != nil {
		t.Fatal(err)
	}
	var before []Process
	eventually(t, "both commands run", func() bool {
		before, err = n.Processes(user)
		var found [2]bool
		for _, p := range before {
			found[0] = found[0] || p.Command == "sleep 301"
			found[1] = found[1] || p.Command == "sleep 302"
		}
		return found[0] && found[1]
	})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range before {
		if now, err := readProcess(p.PID); err == nil && now.Command == p.Command {
			t.Errorf("process %d %q survives", p.PID, p.Command)
		}
	}
	if _, err := n.Processes(user); !errors.Is(err, ErrClosed) {
		t.Errorf("Processes after Close: %v, want ErrClosed", err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestFrozenConnectionAnswersOnlyAfterThaw(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	user := n.Users()[0]
	client := ca.mustLogin(t, n, user)
	if err := n.Freeze(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
		answer <- err
	}()
	ca.mustLogin(t, n, user) // takes its time, and shows that new connections are served
	select {
	case err := <-answer:
		t.Fatalf("a frozen connection answers: %v", err)
	default:
	}
	if err := n.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("after Thaw: %v", err)
	}
}

func TestRestartEndsSessionsAndKeepsAddressKeysAndHomes(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	user, addr := n.Users()[0], n.Addr()
	client := ca.mustLogin(t, n, user)
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Wait(); err == nil {
		t.Error("the connection of before the restart ended without an error")
	}
	if n.Addr() != addr {
		t.Errorf("address: got %s, want %s", n.Addr(), addr)
	}
	if got := run(t, ca.mustLogin(t, n, user), "pwd"); got != n.Home(user) {
		t.Errorf("home: got %s, want %s", got, n.Home(user))
	}
}

func TestLimitsReachSshd(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust(), MaxSessions: 2, MaxStartups: "17:30:90", MaxAuthTries: 3})
	client := ca.mustLogin(t, n, n.Users()[0])
	for range 2 {
		if _, err := client.NewSession(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.NewSession(); err == nil {
		t.Error("a third session opens")
	}
	if err := n.Check(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := n.Effective(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"maxstartups 17:30:90", "maxauthtries 3", "maxsessions 2"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("effective configuration lacks %q", want)
		}
	}
}

func TestExtraConfigurationWins(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust(), Extra: "Banner none\nMatch all\n\tForceCommand echo forced\n"})
	if got := run(t, ca.mustLogin(t, n, n.Users()[0]), "id"); got != "forced" {
		t.Errorf("got %q, want the forced command", got)
	}
}

func TestFailedStartShowsTheLogAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Start(t.Context(), Config{Dir: dir, Users: twoUsers(), Extra: "NoSuchKeyword yes\n"})
	if err == nil || !strings.Contains(err.Error(), "Bad configuration option: NoSuchKeyword") {
		t.Fatalf("got %v, want sshd's complaint", err)
	}
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if strings.Contains(p.Command, dir) {
			t.Errorf("left behind: %d %q", p.PID, p.Command)
		}
	}
}

func TestTemporaryFolderGoesWithClose(t *testing.T) {
	t.Parallel()
	n, err := Start(t.Context(), Config{Users: twoUsers()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.KnownHosts()); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder after Close: %v, want it gone", err)
	}
}

func TestAvailableTellsWhatIsMissing(t *testing.T) {
	if err := Available(); err != nil {
		t.Errorf("here, where all of these tests start nodes: %v", err)
	}
	if os.Geteuid() == 0 {
		t.Setenv("PATH", t.TempDir()) // sshd is found in its usual folder all the same
		if err := Available(); err == nil || !strings.Contains(err.Error(), "Debian package mount") {
			t.Errorf("without mount: %v", err)
		}
	}
}

func TestConfigurationMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{
		Users:       []User{{Name: "Bad Name"}, {Name: "root"}, {Name: "eve", Shell: "sh", Groups: []string{"a:b"}}, {Name: "eve"}},
		MaxSessions: -1, MaxAuthTries: -2, MaxStartups: "many", SecondHostKey: "dsa", Dir: "/tmp/a b",
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"Bad Name"`, `"root"`, `shell "sh"`, `"a:b"`, "twice", "-1", "-2", `"many"`, `"dsa"`, `"/tmp/a b"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s: %v", want, err)
		}
	}
}

const helperDir = "LOGINNODE_TEST_HELPER_DIR"

// TestMain is also the program that TestNodeEndsWithItsParent kills.
func TestMain(m *testing.M) {
	dir := os.Getenv(helperDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := holdNode(dir); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func holdNode(dir string) error {
	trust, err := os.ReadFile(filepath.Join(dir, "trust"))
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	n, err := Start(ctx, Config{Dir: filepath.Join(dir, "node"), Users: twoUsers(), TrustedUserCAKeys: trust})
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, "addr"), []byte(n.Addr())); err != nil {
		return err
	}
	<-ctx.Done()
	return n.Close()
}

func TestNodeEndsWithItsParent(t *testing.T) {
	t.Parallel()
	ca, dir := newCA(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "trust"), ca.trust(), 0o600); err != nil {
		t.Fatal(err)
	}
	helper := exec.CommandContext(t.Context(), os.Args[0])
	helper.Env = append(os.Environ(), helperDir+"="+dir)
	helper.Stderr = os.Stderr
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the helper's node answers", func() bool {
		_, err := os.Stat(filepath.Join(dir, "addr"))
		return err == nil
	})
	of := func() []string {
		all, err := processes()
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, p := range all {
			if strings.Contains(p.Command, filepath.Join(dir, "node")) {
				found = append(found, p.Command)
			}
		}
		return found
	}
	if len(of()) == 0 {
		t.Fatal("the helper's sshd is not in the process table")
	}
	if err := helper.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait()
	eventually(t, "sshd ends after its parent", func() bool { return len(of()) == 0 })
}

// TestWithoutRoot runs the tests of this package as a user of a node, so that both ways are tried wherever root runs them.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this whole run is without root")
	}
	t.Parallel()
	ca := newCA(t)
	n := start(t, Config{Users: twoUsers(), TrustedUserCAKeys: ca.trust()})
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.Home("alice"), "loginnode.test")
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	out := run(t, ca.mustLogin(t, n, "alice"), "cd && ./loginnode.test -test.v -test.timeout 60s")
	for _, want := range []string{"PASS: TestCertificateLogsInByTheRealClient", "PASS: TestCloseLeavesNoProcess", "PASS: TestNodeEndsWithItsParent"} {
		if !strings.Contains(out, want) {
			t.Errorf("the run as alice lacks %q:\n%s", want, out)
		}
	}
}

func TestSetupRunsAsRootInTheNodeBeforeSshd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a setup")
	}
	t.Parallel()
	n := start(t, Config{Users: twoUsers(), Setup: `id -u alice >"$1/seen"; sleep 1000 & echo $! >"$1/background"`})
	uid, err := n.Root(t.Context(), `kill -0 "$(cat `+n.Dir()+`/background)"; cat `+n.Dir()+`/seen; id -u alice`)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Fields(uid); len(lines) != 2 || lines[0] != lines[1] {
		t.Errorf("the node's alice is %q", uid)
	}
	if _, err := n.Root(t.Context(), "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("got %v", err)
	}
	if _, err := Start(t.Context(), Config{Users: twoUsers(), Setup: "echo no such luck; exit 1"}); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("a setup that fails: %v", err)
	}
}
