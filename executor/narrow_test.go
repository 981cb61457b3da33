package executor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport/executor"
	"sallyport/identity"
	"sallyport/internal/loginnode"
)

// A trap is an account in which whatever a login could run leaves a mark: the login shell
// itself is a script, and the files that shells and sshd read are all there.
type trap struct {
	*cluster
	home, sprung string
	narrow       identity.Identity
}

const trapConfig = "PermitUserRC yes\nPermitUserEnvironment yes\nAllowTcpForwarding yes\n"

func setTrap(t *testing.T, node loginnode.Config) *trap {
	t.Helper()
	sprung := filepath.Join(t.TempDir(), "sprung")
	shell := filepath.Join(filepath.Dir(sprung), "shell")
	spring := "id >>" + sprung + "\n"
	writeFile(t, shell, "#!/bin/sh\n"+spring+`exec /bin/bash "$@"`+"\n")
	for dir := filepath.Dir(shell); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(shell, 0o755); err != nil {
		t.Fatal(err)
	}
	node.Users = []loginnode.User{{Name: "alice", Shell: shell}}
	node.Extra += trapConfig
	c := newCluster(t, node, nil)
	home := c.Home(c.user)
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".bashrc", ".bash_profile", ".profile", ".bash_login", ".bash_logout", ".zshenv", ".kshrc", ".cshrc", ".tcshrc", "env.sh", ".ssh/rc"} {
		writeFile(t, filepath.Join(home, name), spring)
	}
	writeFile(t, filepath.Join(home, ".ssh/environment"), "BASH_ENV="+home+"/env.sh\nENV="+home+"/env.sh\nLD_PRELOAD="+home+"/none.so\n")
	return &trap{cluster: c, home: home, sprung: sprung, narrow: c.caller.Narrowed()}
}

func (c *trap) isSprung() bool {
	info, err := os.Stat(c.sprung)
	return err == nil && info.Size() > 0
}

// Whoever may run no commands reaches files, and nothing of the account runs: not its
// shell, and none of the files that a shell or sshd would run. The same person with the
// right to commands springs the trap at once, and shares no connection with themselves.
func TestANarrowLoginRunsNothing(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give an account a shell")
	}
	for name, sftp := range map[string]string{"internal-sftp": "internal-sftp", "sftp-server": "/usr/lib/openssh/sftp-server", "a script": "/bin/false"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := setTrap(t, loginnode.Config{SFTP: sftp})
			files, err := c.executor.Files(t.Context(), c.narrow, "hpc")
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			if files.Node() == "" {
				t.Fatal("the files are reached by commands")
			}
			narrow := &filesCluster{cluster: c.cluster, Files: files, dir: c.home}
			narrow.write(t, c.home+"/new", "content")
			if got := narrow.content(t, c.home+"/new", 0, 100); got != "content" {
				t.Errorf("read %q", got)
			}
			if got := narrow.names(t, c.home, executor.ListOptions{}); len(got) != 2 {
				t.Errorf("listed %q", got)
			}
			if users, _, err := files.Names(t.Context(), []uint32{0}, nil); err != nil || users[0] != "root" && users[0] != "0" {
				t.Errorf("names %v, %v", users, err)
			}
			if _, err := c.executor.Run(t.Context(), c.narrow, "hpc", executor.Command{Line: "true"}); !errors.Is(err, executor.ErrCommandsDenied) {
				t.Errorf("a command: %v", err)
			}
			if _, err := files.StatFull(t.Context(), c.home, false); !errors.Is(err, executor.ErrCommandsDenied) {
				t.Errorf("stat by a command: %v", err)
			}
			if err := files.RemoveAll(t.Context(), c.home+"/.ssh"); !errors.Is(err, executor.ErrCommandsDenied) {
				t.Errorf("the removal of a tree: %v", err)
			}
			if _, _, err := files.IDs(t.Context(), "root", ""); !errors.Is(err, executor.ErrCommandsDenied) {
				t.Errorf("a number by name: %v", err)
			}
			if c.isSprung() {
				t.Error("something of the account ran")
			}
			if r := c.run(t, executor.Command{Line: "echo wide"}); string(r.Stdout) != "wide\n" || !c.isSprung() {
				t.Errorf("with the right to commands: %q, sprung %v", r.Stdout, c.isSprung())
			}
			if n := c.executor.Stats().Pools["hpc"].Open; n != 2 {
				t.Errorf("%d connections, and the two kinds must share none", n)
			}
		})
	}
}

// A wide connection, an SFTP channel and a warm session that stand are not used for the
// same person's request that may run nothing, and the other way round.
func TestANarrowRequestUsesNoWideConnectionThatStands(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, func(cfg *executor.Config) { cfg.Systems[0].Sessions = executor.SessionsWarm })
	for range 2 { // a warm session stands then
		c.run(t, executor.Command{Line: "true"})
	}
	wide, err := c.executor.Files(t.Context(), c.caller, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	for _, caller := range []identity.Identity{c.caller.Narrowed(), c.caller, c.caller.Narrowed().Narrowed()} {
		files, err := c.executor.Files(t.Context(), caller, "hpc")
		if err != nil {
			t.Fatal(err)
		}
		_, err = files.StatFull(t.Context(), ".", false)
		if denied := errors.Is(err, executor.ErrCommandsDenied); denied != caller.Narrow() {
			t.Errorf("narrow %v: %v", caller.Narrow(), err)
		}
		files.Close()
	}
	if n := c.executor.Stats().Pools["hpc"].Open; n != 2 {
		t.Errorf("%d connections, want one of each kind", n)
	}
}

// The way through a jump host is narrow too, and open.
func TestANarrowRequestGoesThroughAJumpHost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{}, nil)
	gateway := startNode(t, c.from.trusted, loginnode.Config{Extra: "AllowTcpForwarding yes\n"})
	x, err := executor.New(executor.Config{
		Systems: []executor.System{{
			Name: "hpc", Nodes: []string{c.Addr()}, Jump: gateway.Addr(), KnownHosts: []string{c.KnownHosts(), gateway.KnownHosts()},
		}},
		Credentials: c.from, Audit: c.audit,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	files, err := x.Files(t.Context(), c.caller.Narrowed(), "hpc")
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if _, err := files.Stat(t.Context(), ".", true); err != nil {
		t.Error(err)
	}
	if strings.Contains(gateway.Log(), "Starting session") || !strings.Contains(c.Log(), "forced-command (key-option) 'internal-sftp'") {
		t.Errorf("jump host:\n%s\nnode:\n%s", gateway.Log(), c.Log())
	}
}

// What comes from a provider is not trusted to be narrow.
func TestAWideCredentialIsNotUsedForANarrowRequest(t *testing.T) {
	t.Parallel()
	if isElsewhere() {
		t.Skip("it is the test's own authority that gives what was not asked for")
	}
	for name, change := range map[string]func(*ssh.Certificate){
		"no force-command": func(c *ssh.Certificate) { c.CriticalOptions = nil },
		"another command":  func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "internal-sftp -d /" },
		"a shell":          func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "/bin/sh" },
		"an extension alone": func(c *ssh.Certificate) {
			c.CriticalOptions, c.Extensions = nil, map[string]string{"force-command": "internal-sftp"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, loginnode.Config{}, nil)
			c.ca.change = change
			if _, err := c.executor.Files(t.Context(), c.caller.Narrowed(), "hpc"); !errors.Is(err, executor.ErrWideCredential) {
				t.Errorf("files: %v", err)
			}
			if strings.Contains(c.Log(), "Accepted publickey") {
				t.Error("the node was logged in on")
			}
		})
	}
}

// Where a node offers no SFTP there is no way for who may run no commands.
func TestWithoutSFTPANarrowRequestIsDenied(t *testing.T) {
	t.Parallel()
	c := newCluster(t, loginnode.Config{SFTP: "none"}, nil)
	for range 2 { // the second time it is remembered
		if _, err := c.executor.Files(t.Context(), c.caller.Narrowed(), "hpc"); !errors.Is(err, executor.ErrCommandsDenied) {
			t.Errorf("files: %v", err)
		}
	}
	wide, err := c.executor.Files(t.Context(), c.caller, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	if _, err := wide.Stat(t.Context(), ".", false); err != nil {
		t.Error(err)
	}
}

// The node itself holds a narrow login to SFTP: whatever a client asks of it, with the
// certificate in their hands.
func TestTheNodeHoldsANarrowLoginToSFTP(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give an account a shell")
	}
	c := setTrap(t, loginnode.Config{})
	credential, err := c.from.Credential(t.Context(), c.narrow, executor.Node{System: "hpc", Address: c.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", c.Addr(), &ssh.ClientConfig{
		User: c.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(credential.Signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, ask := range map[string]func(*ssh.Session) error{
		"exec":  func(s *ssh.Session) error { return s.Run("id; echo SAID") },
		"sftp":  func(s *ssh.Session) error { return s.Run("internal-sftp; id") },
		"shell": func(s *ssh.Session) error { return errors.Join(s.Shell(), s.Wait()) },
		"pty":   func(s *ssh.Session) error { return s.RequestPty("xterm", 24, 80, nil) },
		"env":   func(s *ssh.Session) error { _ = s.Setenv("BASH_ENV", c.home+"/env.sh"); return s.Run("true") },
	} {
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		session.Stdout = &out
		if err := ask(session); err == nil || strings.Contains(out.String(), "SAID") || strings.Contains(out.String(), "uid=") {
			t.Errorf("%s: %v, %q", name, err, out.String())
		}
		_ = session.Close()
	}
	// The certificates of the CA elsewhere may forward, for jump hosts.
	if conn, err := client.Dial("tcp", "127.0.0.1:"+strconv.Itoa(1)); !isElsewhere() && (err == nil || !strings.Contains(err.Error(), "prohibited")) {
		t.Errorf("forwarding: %v, %v", conn, err)
	}
	if c.isSprung() {
		t.Error("something of the account ran")
	}
}
