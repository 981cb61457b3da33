package sshtest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"sallyport/executor/sshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func certify(t testing.TB, ca, key ssh.Signer, change func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: "id", Serial: 7, ValidPrincipals: []string{"alice"},
		ValidAfter: uint64(time.Now().Unix()), ValidBefore: uint64(time.Now().Add(time.Minute).Unix()),
	}
	change(cert)
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func login(server *sshtest.Server, raw net.Conn, user string, key ssh.Signer) (*ssh.Client, error) {
	conn, channels, requests, err := ssh.NewClientConn(raw, "node.test:22", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(server.HostKey()),
	})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// connect logs in over a connection in memory.
func connect(t testing.TB, server *sshtest.Server, user string, key ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	raw, err := server.Dial()
	if err != nil {
		t.Fatal(err)
	}
	return login(server, raw, user, key)
}

// start makes a server that trusts key for everybody.
func start(t testing.TB, cfg sshtest.Config) (*sshtest.Server, *ssh.Client) {
	t.Helper()
	key := newSigner(t)
	cfg.AuthorizedKey = func(_ string, k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.PublicKey().Marshal()) }
	server := sshtest.New(cfg)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := connect(t, server, "alice", key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return server, client
}

func TestLoginIsDecidedAsInSSHD(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		user   string
		change func(*ssh.Certificate)
		want   bool
	}{
		"good":                   {"alice", func(*ssh.Certificate) {}, true},
		"source address matches": {"alice", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "127.0.0.0/8"} }, true},
		"forced command":         {"alice", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "true"} }, true},
		"no principals":          {"alice", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, false},
		"wildcard principal":     {"alice", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*"} }, false},
		"another principal":      {"bob", func(*ssh.Certificate) {}, false},
		"expired":                {"alice", func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Unix()) }, false},
		"not yet valid":          {"alice", func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Unix()) + 60 }, false},
		"host certificate":       {"alice", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, false},
		"other source address":   {"alice", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8"} }, false},
		"unknown option":         {"alice", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"verify-required": ""} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca, key := newSigner(t), newSigner(t)
				server := sshtest.New(sshtest.Config{TrustedCAs: func() []ssh.PublicKey { return []ssh.PublicKey{ca.PublicKey()} }})
				defer closeServer(t, server)
				client, err := connect(t, server, test.user, certify(t, ca, key, test.change))
				if (err == nil) != test.want {
					t.Fatalf("login: %v", err)
				}
				if err != nil {
					if len(server.Logins()) != 0 {
						t.Error("a refused login is noted")
					}
					return
				}
				defer func() { _ = client.Close() }()
				synctest.Wait() // until the server has noted it
				want := sshtest.Login{User: "alice", KeyID: "id", Serial: 7, Fingerprint: ssh.FingerprintSHA256(key.PublicKey())}
				if got := server.Logins(); len(got) != 1 || got[0] != want {
					t.Errorf("logins %+v, want %+v", got, want)
				}
			})
		})
	}
}

func closeServer(t testing.TB, s *sshtest.Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestNobodyIsTrustedUnlessConfigured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := sshtest.New(sshtest.Config{})
		defer closeServer(t, server)
		ca, key := newSigner(t), newSigner(t)
		for name, signer := range map[string]ssh.Signer{"key": key, "certificate": certify(t, ca, key, func(*ssh.Certificate) {})} {
			if _, err := connect(t, server, "alice", signer); err == nil {
				t.Errorf("a %s was accepted", name)
			}
		}
	})
}

func TestSessionGetsItsStreamsSignalsAndEnding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, client := start(t, sshtest.Config{Exec: func(_ context.Context, s *sshtest.Session) sshtest.Exit {
			input, _ := io.ReadAll(s.Stdin)
			_, _ = io.WriteString(s.Stdout, s.Command+":"+string(input))
			_, _ = io.WriteString(s.Stderr, s.Login.User)
			switch s.Command {
			case "signal":
				return sshtest.Exit{Signal: <-s.Signals}
			case "missing":
				return sshtest.Exit{Missing: true}
			}
			return sshtest.Exit{Code: 300}
		}})
		for command, check := range map[string]func(error) bool{
			"code": func(err error) bool {
				e, ok := errors.AsType[*ssh.ExitError](err)
				return ok && e.ExitStatus() == 300
			},
			"signal": func(err error) bool {
				e, ok := errors.AsType[*ssh.ExitError](err)
				return ok && e.Signal() == "USR1"
			},
			"missing": func(err error) bool {
				_, ok := errors.AsType[*ssh.ExitMissingError](err)
				return ok
			},
		} {
			session, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			session.Stdin, session.Stdout, session.Stderr = strings.NewReader("in"), &stdout, &stderr
			if err := session.Start(command); err != nil {
				t.Fatal(err)
			}
			if err := session.Signal("USR1"); err != nil {
				t.Error(err)
			}
			if err := session.Wait(); !check(err) {
				t.Errorf("%s: %v", command, err)
			}
			if stdout.String() != command+":in" || stderr.String() != "alice" {
				t.Errorf("%s: %q, %q", command, &stdout, &stderr)
			}
		}
	})
}

func TestForcedCommandReplacesAndGetsNoSignals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, key := newSigner(t), newSigner(t)
		server := sshtest.New(sshtest.Config{
			TrustedCAs: func() []ssh.PublicKey { return []ssh.PublicKey{ca.PublicKey()} },
			Exec: func(_ context.Context, s *sshtest.Session) sshtest.Exit {
				_, _ = io.WriteString(s.Stdout, s.Command+" for "+s.Original)
				select {
				case <-s.Signals:
					return sshtest.Exit{Code: 1}
				case <-time.After(time.Minute):
					return sshtest.Exit{}
				}
			},
		})
		defer closeServer(t, server)
		client, err := connect(t, server, "alice", certify(t, ca, key, func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"force-command": "forced"}
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		var stdout bytes.Buffer
		session.Stdout = &stdout
		if err := session.Start("asked"); err != nil {
			t.Fatal(err)
		}
		if err := session.Signal(ssh.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := session.Wait(); err != nil || stdout.String() != "forced for asked" {
			t.Errorf("%q, %v", &stdout, err)
		}
	})
}

func TestSessionsBeyondTheLimitAreRefusedAsInSSHD(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, client := start(t, sshtest.Config{MaxSessions: 2, Exec: func(_ context.Context, s *sshtest.Session) sshtest.Exit {
			_, _ = io.Copy(io.Discard, s.Stdin)
			return sshtest.Exit{}
		}})
		var sessions []*ssh.Session
		for range 2 {
			session, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			sessions = append(sessions, session)
		}
		_, err := client.NewSession()
		refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || refusal.Reason != ssh.ConnectionFailed || refusal.Message != "open failed" {
			t.Errorf("got %v", err)
		}
		if err := sessions[0].Run("x"); err != nil {
			t.Error(err)
		}
		for range 20 {
			session, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := session.Run("x"); err != nil {
				t.Error(err)
			}
		}
		if now, most := server.Execs(); now != 0 || most != 1 {
			t.Errorf("%d commands run, %d did", now, most)
		}
		if _, _, err := client.OpenChannel("x11", nil); err == nil {
			t.Error("an unknown channel type was accepted")
		}
	})
}

func TestWhatIsNotACommandIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, client := start(t, sshtest.Config{})
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Setenv("A", "b"); err == nil {
			t.Error("env was accepted")
		}
		if err := session.RequestPty("xterm", 24, 80, nil); err == nil {
			t.Error("a PTY was given")
		}
		if err := session.RequestSubsystem("sftp"); err == nil {
			t.Error("a subsystem was started")
		}
		if err := session.Start("x"); err == nil {
			t.Error("a command was accepted without Exec")
		}
	})
}

func TestFrozenServerHangsAndGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, client := start(t, sshtest.Config{})
		if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Errorf("keepalive: %v", err)
		}
		server.Freeze()
		answered := make(chan error, 1)
		go func() {
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		time.Sleep(time.Hour)
		select {
		case err := <-answered:
			t.Fatalf("a frozen server answered: %v", err)
		default:
		}
		server.Thaw()
		if err := <-answered; err != nil {
			t.Errorf("after Thaw: %v", err)
		}
	})
}

func TestCutEndsConnectionsAndTheirCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		server, client := start(t, sshtest.Config{Exec: func(ctx context.Context, _ *sshtest.Session) sshtest.Exit {
			<-ctx.Done()
			ended <- ctx.Err()
			return sshtest.Exit{}
		}})
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Start("x"); err != nil {
			t.Fatal(err)
		}
		if n := server.Cut(); n != 1 {
			t.Errorf("%d connections were cut", n)
		}
		<-ended
		if err := session.Wait(); err == nil {
			t.Error("the command seems to have succeeded")
		}
		synctest.Wait()
		if n := server.Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestForwardingReachesTheTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, client := start(t, sshtest.Config{Forward: func(_ context.Context, address string) (net.Conn, error) {
			if address != "target.test:22" {
				return nil, errors.New("unknown")
			}
			near, far := sshtest.Pipe(&net.TCPAddr{}, &net.TCPAddr{})
			go func() {
				_, _ = io.Copy(far, far)
				_ = far.Close()
			}()
			return near, nil
		}})
		conn, err := client.Dial("tcp", "target.test:22")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 5)
		if _, err := io.ReadFull(conn, echo); err != nil || string(echo) != "hello" {
			t.Errorf("%q, %v", echo, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if _, err := client.Dial("tcp", "other.test:22"); err == nil {
			t.Error("an unknown target was reached")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, client := start(t, sshtest.Config{})
		_, err := client.Dial("tcp", "target.test:22")
		if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refusal.Reason != ssh.Prohibited {
			t.Errorf("without Forward: %v", err)
		}
	})
}

func TestPipeBuffersAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := sshtest.Pipe(&net.TCPAddr{Port: 1}, &net.TCPAddr{Port: 2})
		if a.LocalAddr().String() != b.RemoteAddr().String() || a.RemoteAddr().String() != b.LocalAddr().String() {
			t.Error("addresses do not fit")
		}
		payload := bytes.Repeat([]byte("x"), 1<<20)
		go func() {
			if n, err := a.Write(payload); n != len(payload) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			_ = a.Close()
		}()
		synctest.Wait() // the writer waits for room
		if got, err := io.ReadAll(b); len(got) != len(payload) || err != nil {
			t.Errorf("read %d, %v", len(got), err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed pipe")
		}
		if _, err := a.Read(payload); err == nil {
			t.Error("read from a closed pipe")
		}
		if err := errors.Join(a.SetDeadline(time.Now()), a.SetReadDeadline(time.Now()), a.SetWriteDeadline(time.Now())); err == nil {
			t.Error("deadlines are silently ignored")
		}
	})
}

func TestClosedServerTakesNobody(t *testing.T) {
	t.Parallel()
	server := sshtest.New(sshtest.Config{})
	closeServer(t, server)
	if _, err := server.Dial(); !errors.Is(err, sshtest.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if err := server.Serve(listen(t)); !errors.Is(err, sshtest.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
