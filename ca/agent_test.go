package ca

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/store/audit"
)

// An sshAgent is a real ssh-agent.
type sshAgent struct {
	socket  string
	process *exec.Cmd
}

func startAgent(t *testing.T) *sshAgent {
	t.Helper()
	a := &sshAgent{socket: socketPath(t)}
	a.start(t)
	t.Cleanup(a.stop)
	return a
}

// socketPath is in a folder whose name is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // the name of the test may be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "sock")
}

func (a *sshAgent) start(t *testing.T) {
	t.Helper()
	a.process = exec.CommandContext(context.WithoutCancel(t.Context()), "ssh-agent", "-D", "-a", a.socket)
	if err := a.process.Start(); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if conn, err := net.Dial("unix", a.socket); err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("ssh-agent did not answer in 5 s")
}

func (a *sshAgent) stop() {
	a.process.Process.Kill()
	a.process.Wait()
	os.Remove(a.socket)
}

// run runs a program that speaks to the agent.
func (a *sshAgent) run(t *testing.T, input, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+a.socket)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// add makes a key and gives it to the agent; it returns how OpenKey finds it.
func (a *sshAgent) add(t *testing.T, algorithm string) string {
	t.Helper()
	text, pub, err := GenerateKey(algorithm, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.run(t, string(text), "ssh-add", "-q", "-")
	return agentPrefix + a.socket + "#" + ssh.FingerprintSHA256(pub)
}

func issueWith(t *testing.T, key *Key) (*world, *ssh.Certificate, error) {
	t.Helper()
	w := openWorld(t, privateDir(t), key)
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: ProfileUser, PublicKey: newPublicKey(t)})
	return w, cert, err
}

func TestAKeyInAnAgentSignsLikeOneInAFile(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	a.add(t, "ed25519") // another one, which must not be taken
	for algorithm, format := range map[string]string{
		"ed25519": ssh.KeyAlgoED25519, "ecdsa-p256": ssh.KeyAlgoECDSA256, "ecdsa-p384": ssh.KeyAlgoECDSA384, "rsa-3072": ssh.KeyAlgoRSASHA512,
	} {
		source := a.add(t, algorithm)
		key, err := OpenKey(source, nil)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		_, cert, err := issueWith(t, key)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if cert.Signature.Format != format || !strings.HasSuffix(source, ssh.FingerprintSHA256(cert.SignatureKey)) {
			t.Errorf("%s: signed with %s by %s", algorithm, cert.Signature.Format, ssh.FingerprintSHA256(cert.SignatureKey))
		}
		if _, err := key.Signer().(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte("x"), ssh.KeyAlgoRSASHA256); err == nil && algorithm == "rsa-3072" {
			t.Error("an RSA key signed with another algorithm than rsa-sha2-512")
		}
		if err := key.Ready(t.Context()); err != nil {
			t.Errorf("%s: not ready: %v", algorithm, err)
		}
	}
}

func TestManySignaturesAtOnceGoThroughOneAgent(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	key, err := OpenKey(a.add(t, "ed25519"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, privateDir(t), key)
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			if _, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: ProfileUser, PublicKey: newPublicKey(t)}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := len(w.rows(t)); n != 100 {
		t.Errorf("%d rows in the ledger, want 100", n)
	}
}

func TestAnAgentThatIsGoneLockedOrEmptyIsUnavailableAndMayComeBack(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	text, pub, err := GenerateKey("ed25519", nil)
	if err != nil {
		t.Fatal(err)
	}
	a.run(t, string(text), "ssh-add", "-q", "-")
	key, err := OpenKey(agentPrefix+a.socket+"#"+ssh.FingerprintSHA256(pub), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, privateDir(t), key)
	issue := func() error {
		_, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: ProfileUser, PublicKey: newPublicKey(t)})
		return err
	}
	for _, c := range []struct {
		name        string
		break_, fix func()
	}{
		{"emptied", func() { a.run(t, "", "ssh-add", "-q", "-D") }, func() { a.run(t, string(text), "ssh-add", "-q", "-") }},
		{"gone", a.stop, func() { a.start(t); a.run(t, string(text), "ssh-add", "-q", "-") }},
		{"locked", func() { askpass(t, a, "ssh-add", "-x") }, func() { askpass(t, a, "ssh-add", "-X") }},
	} {
		c.break_()
		if err := key.Ready(t.Context()); !errors.Is(err, ErrSigner) {
			t.Errorf("%s: Ready: %v", c.name, err)
		}
		if err := issue(); !errors.Is(err, ErrSigner) {
			t.Errorf("%s: Issue: %v", c.name, err)
		}
		c.fix()
		if err := errors.Join(key.Ready(t.Context()), issue()); err != nil {
			t.Errorf("%s, then back: %v", c.name, err)
		}
	}
	if failed := w.events(t, audit.CertificateIssued); len(failed) != 6 {
		t.Errorf("%d outcomes in the audit log, want 6", len(failed))
	}
}

// askpass runs a program of OpenSSH that asks for a secret.
func askpass(t *testing.T, a *sshAgent, name string, args ...string) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "askpass")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 1234\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.run(t, "", "env", append([]string{"SSH_ASKPASS=" + script, "SSH_ASKPASS_REQUIRE=force", name}, args...)...)
}

// TestAKeyInAPKCS11TokenSigns shows that keys in an HSM work: SoftHSM speaks the
// interface of one.
func TestAKeyInAPKCS11TokenSigns(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte("directories.tokendir = "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "conf")) // of the agent's helper process
	a := startAgent(t)
	a.run(t, "", "softhsm2-util", "--init-token", "--free", "--label", "ca", "--pin", "1234", "--so-pin", "5678")
	for i, kind := range [][]string{{"-t", "ecdsa"}, {"-t", "rsa", "-b", "3072"}} {
		file, id := filepath.Join(dir, kind[1]), string(rune('1'+i))
		a.run(t, "", "ssh-keygen", append([]string{"-q", "-m", "PKCS8", "-N", "", "-f", file}, kind...)...)
		a.run(t, "", "softhsm2-util", "--import", file, "--token", "ca", "--pin", "1234", "--label", "key"+id, "--id", "0"+id)
		if err := os.Remove(file); err != nil { // from now on it is in the token only
			t.Fatal(err)
		}
	}
	askpass(t, a, "ssh-add", "-s", "/usr/lib/softhsm/libsofthsm2.so")
	for _, kind := range []string{"ecdsa", "rsa"} {
		line, err := os.ReadFile(filepath.Join(dir, kind+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		pub, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			t.Fatal(err)
		}
		key, err := OpenKey(agentPrefix+a.socket+"#"+ssh.FingerprintSHA256(pub), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, cert, err := issueWith(t, key)
		if err != nil || !bytes.Equal(cert.SignatureKey.Marshal(), pub.Marshal()) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A fidoKey is what a FIDO authenticator does, in software: OpenSSH ships none for
// machines without the device. Its signatures are those of PROTOCOL.u2f.
type fidoKey struct {
	agent.Agent
	private ed25519.PrivateKey
	pub     ssh.PublicKey
	counter uint32
	format  string // of the answers, if it is to lie
}

func newFIDOKey(t *testing.T) *fidoKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return &fidoKey{Agent: agent.NewKeyring(), private: private, pub: pub, format: ssh.KeyAlgoSKED25519}
}

func (k *fidoKey) List() ([]*agent.Key, error) {
	return []*agent.Key{{Format: k.pub.Type(), Blob: k.pub.Marshal()}}, nil
}

func (k *fidoKey) Sign(_ ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	k.counter++
	const userPresent = 1
	tail := binary.BigEndian.AppendUint32([]byte{userPresent}, k.counter)
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	signed := append(append(application[:], tail...), message[:]...)
	return &ssh.Signature{Format: k.format, Blob: ed25519.Sign(k.private, signed), Rest: tail}, nil
}

// serve answers on a socket as an agent with this key.
func (k *fidoKey) serve(t *testing.T) string {
	t.Helper()
	return listenAs(t, func(conn net.Conn) { _ = agent.ServeAgent(k, conn) })
}

// listenAs serves each connection to a socket, one after the other.
func listenAs(t *testing.T, serve func(net.Conn)) (socket string) {
	t.Helper()
	socket = socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return socket
}

func TestARotationDoesNotMoveTheCAOutOfAnAgentByAccident(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	key, err := OpenKey(a.add(t, "ed25519"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, privateDir(t), key, func(c *Config) { c.Keys = testKeys(t.TempDir()) })
	stage := func(act Act) error {
		act.Step = StepStage
		_, err := w.Act(t.Context(), act)
		return err
	}
	const reason, remedy = "in an ssh-agent", "--key agent:"
	wantRefusal(t, stage(Act{}), reason, remedy)
	wantRefusal(t, stage(Act{DryRun: true}), reason, remedy)
	wantRefusal(t, stage(Act{Standby: true}), reason, remedy)
	wantRefusal(t, Rotate(t.Context(), w, RotateOptions{}, func(Progress) {}), reason, remedy)
	wantRefusal(t, stage(Act{AllowFile: true}), "without a reason", "--reason")
	if keys := w.Keys(); len(keys) != 1 {
		t.Fatalf("refused steps made keys: %+v", keys)
	}
	if err := stage(Act{Name: a.add(t, "ed25519"), Standby: true}); err != nil {
		t.Errorf("another key of the agent: %v", err)
	}
	if err := stage(Act{AllowFile: true, Actor: Actor{Reason: "the HSM goes"}}); err != nil {
		t.Errorf("with consent: %v", err)
	}
	events := w.events(t, audit.AdminAct)
	if last := events[len(events)-1]; last["sallyport.allow_file_key"] != "true" {
		t.Errorf("the consent is not on record: %v", last)
	}
	w.must(t, Act{Step: StepAbandon, Key: w.Keys()[2].Fingerprint})
	w.must(t, Act{Step: StepAbandon, Key: w.Keys()[1].Fingerprint})
	w.must(t, Act{Step: StepCompromise, Key: w.Fingerprint(), Actor: Actor{Reason: "the HSM was stolen"}})
	wantRefusal(t, stage(Act{}), reason, remedy)
}

func TestAFIDOKeySigns(t *testing.T) {
	t.Parallel()
	k := newFIDOKey(t)
	key, err := OpenKey(agentPrefix+k.serve(t)+"#"+ssh.FingerprintSHA256(k.pub), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, cert, err := issueWith(t, key)
	if err != nil || cert.Signature.Format != ssh.KeyAlgoSKED25519 || len(cert.Signature.Rest) != 5 {
		t.Fatalf("%v, %v", cert, err)
	}
	file := filepath.Join(t.TempDir(), "cert.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-L", "-f", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Signing CA: ED25519-SK "+ssh.FingerprintSHA256(k.pub)) {
		t.Errorf("ssh-keygen -L: %v\n%s", err, out)
	}
}

func TestAnAgentThatLiesIsFoundOut(t *testing.T) {
	t.Parallel()
	k := newFIDOKey(t)
	key, err := OpenKey(agentPrefix+k.serve(t)+"#"+ssh.FingerprintSHA256(k.pub), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(){
		"another algorithm": func() { k.format = ssh.KeyAlgoED25519 },
		"another key":       func() { k.format, k.private = ssh.KeyAlgoSKED25519, ed25519.NewKeyFromSeed(make([]byte, 32)) },
	} {
		lie()
		if w, cert, err := issueWith(t, key); err == nil || cert != nil {
			t.Errorf("%s: a certificate was released", name)
		} else if issued := w.events(t, audit.CertificateIssued); len(issued) != 1 || issued[0]["event.outcome"] != "failure" {
			t.Errorf("%s: the audit log says %v", name, issued)
		}
	}
}

func TestAnAgentThatSaysNothingOrTooMuchHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	k := newFIDOKey(t)
	for name, serve := range map[string]func(net.Conn){
		"nothing":  func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"hangs up": func(net.Conn) {},
		"garbage":  func(c net.Conn) { _, _ = c.Write(bytes.Repeat([]byte{0, 0, 0, 9, 12, 255}, 1000)) },
		"no end": func(c net.Conn) {
			_, _ = c.Write([]byte{1, 0, 0, 0, 12})
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
	} {
		s := &agentSigner{socket: listenAs(t, serve), pub: k.pub, slots: make(chan struct{}, 1), timeout: 200 * time.Millisecond}
		begin := time.Now()
		var group sync.WaitGroup
		for range 3 { // two of them wait for the slot
			group.Go(func() {
				if _, err := s.Sign(rand.Reader, []byte("x")); !errors.Is(err, ErrSigner) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		group.Wait()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
}

func TestSourcesOfKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	a.add(t, "ed25519")
	fingerprint := "SHA256:" + strings.Repeat("A", 43)
	for source, want := range map[string]string{
		"agent:":                                             "not of the form",
		"agent:#" + fingerprint:                              "not of the form",
		"agent:" + a.socket:                                  "not of the form",
		"agent:" + a.socket + "#":                            "is no fingerprint",
		"agent:" + a.socket + "#MD5:":                        "is no fingerprint",
		"agent:sock#" + fingerprint:                          "not absolute",
		"agent:" + a.socket + "#" + fingerprint:              "none of its 1 keys",
		"agent:" + a.socket + "-nowhere" + "#" + fingerprint: "no such file",
	} {
		if _, err := OpenKey(source, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", source, err, want)
		}
	}
	if _, err := OpenKey(a.add(t, "ed25519"), []byte("secret")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a passphrase for an agent's key: %v", err)
	}
}

func TestSecretsOfAnAgentsKeyLiveAsLongAsTheProcess(t *testing.T) {
	t.Parallel()
	a := startAgent(t)
	source := a.add(t, "ed25519")
	var secrets [2][]byte
	for i := range secrets {
		key, err := OpenKey(source, nil)
		if err != nil {
			t.Fatal(err)
		}
		first, err := key.Derive("test")
		if err != nil {
			t.Fatal(err)
		}
		if secrets[i], err = key.Derive("test"); err != nil || !bytes.Equal(first, secrets[i]) || len(first) != 32 {
			t.Errorf("one key gave %x and %x, %v", first, secrets[i], err)
		}
	}
	if bytes.Equal(secrets[0], secrets[1]) {
		t.Error("two processes have the same secret, and it is in no file")
	}
}
