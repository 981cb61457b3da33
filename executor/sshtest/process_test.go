package sshtest_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/sshtest"
)

// overTCP serves real processes on a loopback port and logs in.
func overTCP(t *testing.T) *ssh.Client {
	t.Helper()
	key := newSigner(t)
	server := sshtest.New(sshtest.Config{
		Exec:          sshtest.RunProcess,
		AuthorizedKey: func(_ string, k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.PublicKey().Marshal()) },
	})
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		closeServer(t, server)
		if err := <-served; !errors.Is(err, sshtest.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	var dialer net.Dialer
	raw, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, err := login(server, raw, "alice", key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestRealProcessOverTCP(t *testing.T) {
	t.Parallel()
	client := overTCP(t)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader("in\n"), &stdout, &stderr
	err = session.Run("cat; echo err >&2; exit 7")
	if e, ok := errors.AsType[*ssh.ExitError](err); !ok || e.ExitStatus() != 7 || stdout.String() != "in\n" || stderr.String() != "err\n" {
		t.Errorf("%q, %q, %v", &stdout, &stderr, err)
	}
}

func TestSignalReachesTheWholeProcessGroup(t *testing.T) {
	t.Parallel()
	client := overTCP(t)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("echo ready; sleep 600 | cat; true"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := session.Signal(ssh.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Ends only if sleep and cat, which hold the streams, are gone too.
	err = session.Wait()
	if e, ok := errors.AsType[*ssh.ExitError](err); !ok || e.Signal() != "KILL" {
		t.Errorf("got %v", err)
	}
}

func TestProcessEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	client := overTCP(t)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	_ = session.Wait() // the connection is gone
	t.Cleanup(func() { // after the server's Close, which waits for the process
		if time.Since(began) > time.Minute {
			t.Error("the process outlived its connection")
		}
	})
}
