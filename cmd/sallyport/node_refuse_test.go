package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/internal/loginnode"
	"sallyport/sshd-config/nodesync"
)

// An attack is something wrong between a CA that publishes version 8 and a node that has version 7.
type attack struct {
	name string
	do   func(t *testing.T, n *loginNode)
	says string
}

// signed publishes version 8 with something wrong in it.
func signed(change func(*state)) func(t *testing.T, n *loginNode) {
	return func(t *testing.T, n *loginNode) {
		t.Helper()
		s := n.state(t, 8, []uint64{1})
		change(&s)
		n.publish(t, s)
	}
}

func attacks() []attack {
	replaced := func(path string, f func([]byte) []byte) func(*testing.T, *loginNode) {
		return func(_ *testing.T, n *loginNode) { n.mirror.change(path, f) }
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	none := func([]byte) []byte { return nil }
	sub := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	otherLine := func(b []byte) []byte { return append(b, "ssh-ed25519 AAAA x\n"...) }
	const sig, sum = "the signature does not count", "trusted_user_ca_keys"
	return []attack{
		{"one byte of the manifest", replaced(nodesync.ManifestPath, sub(`"version": 8`, `"version": 9`)), sig},
		{"half a manifest", replaced(nodesync.ManifestPath, half), sig},
		{"half a signature", replaced(nodesync.SignaturePath, half), sig},
		{"an empty signature", replaced(nodesync.SignaturePath, func([]byte) []byte { return []byte{} }), sig},
		{"no signature", replaced(nodesync.SignaturePath, none), "cannot fetch"},
		{"no manifest", replaced(nodesync.ManifestPath, none), "cannot fetch"},
		{"a manifest without end", replaced(nodesync.ManifestPath, func([]byte) []byte { return bytes.Repeat([]byte("a"), nodesync.MaxManifest+1) }), "anifest"},
		{"a redirect", replaced(nodesync.ManifestPath, func([]byte) []byte { return []byte("redirect") }), ""},
		{"half a trust file", replaced(nodesync.TrustPath, half), sum},
		{"an empty trust file", replaced(nodesync.TrustPath, func([]byte) []byte { return []byte{} }), sum},
		{"a line more in the trust file", replaced(nodesync.TrustPath, otherLine), sum},
		{"half a revocation list", replaced(nodesync.RevocationPath, half), "revoked.krl"},
		{"an empty revocation list", replaced(nodesync.RevocationPath, func([]byte) []byte { return []byte{} }), "revoked.krl"},
		{"another distribution key", func(t *testing.T, n *loginNode) {
			forged := *n
			forged.signer = newKey(t)
			forged.publish(t, n.state(t, 8, nil, newKey(t)))
		}, sig},
		{"a signature for another purpose", func(t *testing.T, n *loginNode) {
			s := n.state(t, 8, nil).manifest(t)
			n.mirror.change(nodesync.ManifestPath, func([]byte) []byte { return s })
			n.mirror.change(nodesync.SignaturePath, func([]byte) []byte { return signature(t, n.signer, "file", s) })
		}, sig},
		{"replay of the version before", func(t *testing.T, n *loginNode) { n.publish(t, n.state(t, 6, nil)) }, "older than the one of this node"},
		{"the same version with other content", func(t *testing.T, n *loginNode) { n.publish(t, n.state(t, 7, []uint64{99})) }, "is offered with other content"},
		{"a key with options, signed", signed(func(s *state) { s.trust = append([]byte("cert-authority "), s.trust...) }), "is not of the form"},
		{"a key of an algorithm that this node does not know, signed", signed(func(s *state) {
			s.trust = append(s.trust, "ssh-mldsa44-ed25519@openssh.com AAAAH3NzaC1tbGRzYTQ0LWVkMjU1MTlAb3BlbnNzaC5jb20AAAAA\n"...)
			s.keys = append(s.keys, nodesync.Key{Fingerprint: "SHA256:" + strings.Repeat("a", 43), State: "pending"})
		}), "this node's ssh-keygen reads"},
		{"other keys than the manifest names, signed", signed(func(s *state) { s.keys[0].Fingerprint = "SHA256:" + strings.Repeat("a", 43) }), "trusted_user_ca_keys"},
		{"fewer keys than the manifest names, signed", signed(func(s *state) {
			s.keys = append(s.keys, nodesync.Key{Fingerprint: "SHA256:" + strings.Repeat("a", 43), State: "pending"})
		}), "it has 1 keys, the manifest says 2"},
		{"a list that is none, signed", signed(func(s *state) { s.list = []byte("no list") }), "revoked.krl is not valid"},
		{"a list cut short, signed", signed(func(s *state) { s.list = s.list[:len(s.list)-1] }), "revoked.krl is not valid"},
		{"a list that revokes the active key, signed", func(t *testing.T, n *loginNode) {
			s := n.state(t, 8, nil)
			s.list = listOfKey(t, n.ca.PublicKey())
			n.publish(t, s)
		}, "revokes the active key"},
		{"a list that does not revoke the canary, signed", func(t *testing.T, n *loginNode) {
			s := n.state(t, 8, []uint64{1})
			s.canary = certificateLine(t, n.ca, 2)
			n.publish(t, s)
		}, "does not revoke the canary"},
		{"no signers on the node", func(_ *testing.T, n *loginNode) { _ = os.Remove(filepath.Join(n.dir, nodesync.SignersFile)) }, nodesync.SignersFile},
		{"signers that others may write", func(_ *testing.T, n *loginNode) { _ = os.Chmod(filepath.Join(n.dir, nodesync.SignersFile), 0o646) }, "go-w"},
		{"a folder that others may write", func(_ *testing.T, n *loginNode) { _ = os.Chmod(n.dir, 0o775) }, "go-w"},
		{"the manifest of the node is damaged", func(_ *testing.T, n *loginNode) {
			_ = os.WriteFile(filepath.Join(n.dir, nodesync.ManifestFile), []byte("{}"), 0o644)
		}, "is damaged"},
		{"the service is away", func(_ *testing.T, n *loginNode) { n.env = append(n.env, "SALLYPORT_URL=http://127.0.0.1:1") }, "cannot fetch"},
	}
}

func TestNoAttackChangesAFile(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		if n.argv[0] == "bash" {
			return // the same script as sh
		}
		for _, a := range attacks() {
			t.Run(a.name, func(t *testing.T) {
				n := newLoginNode(t, syncer{command: func(*testing.T, *loginNode) []string { return n.argv }})
				n.publish(t, n.state(t, 7, nil))
				n.mustSync(t)
				n.publish(t, n.state(t, 8, []uint64{1}))
				a.do(t, n)
				before := n.content(t)
				code, out := n.sync(t)
				if code != 1 || !strings.Contains(out, a.says) {
					t.Errorf("exit code %d, said %q, want 1 and %q", code, out, a.says)
				}
				if diff := cmp.Diff(before, n.content(t)); diff != "" {
					t.Errorf("files changed:\n%s", diff)
				}
			})
		}
	})
}

func listOfKey(t *testing.T, key ssh.PublicKey) []byte {
	t.Helper()
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "key.pub"), ssh.MarshalAuthorizedKey(key), 0o600)
	n := &loginNode{env: os.Environ()}
	if code, out := n.run(t, []string{"ssh-keygen", "-q", "-k", "-f", filepath.Join(dir, "list"), filepath.Join(dir, "key.pub")}); code != 0 {
		t.Fatal(out)
	}
	list, err := os.ReadFile(filepath.Join(dir, "list"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// certificate is one for a user, over a key of its own.
func certificate(t *testing.T, authority ssh.Signer, serial uint64, login string) (*ssh.Certificate, ssh.Signer) {
	t.Helper()
	key := newKey(t)
	cert := &ssh.Certificate{
		Key: key.PublicKey(), Serial: serial, CertType: ssh.UserCert, KeyId: fmt.Sprintf("test:%d", serial), ValidPrincipals: []string{login},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if err := cert.SignCert(strings.NewReader(strings.Repeat("x", 64)), authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, signer
}

func certificateLine(t *testing.T, authority ssh.Signer, serial uint64) string {
	t.Helper()
	cert, _ := certificate(t, authority, serial, "nobody")
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(cert)))
}

func TestARealSSHDFollowsWithoutAReload(t *testing.T) {
	t.Parallel()
	forEachSyncer(t, func(t *testing.T, n *loginNode) {
		cfg := loginnode.Config{Extra: fmt.Sprintf("TrustedUserCAKeys %[1]s/%[2]s\nRevokedKeys %[1]s/%[3]s\n", n.dir, nodesync.TrustFile, nodesync.RevocationFile)}
		if os.Geteuid() == 0 {
			cfg.Users = []loginnode.User{{Name: "alice"}}
		}
		node, err := loginnode.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { check(t, node.Close()) })
		user, next := node.Users()[0], newKey(t)
		_, revoked := certificate(t, n.ca, 5, user)
		_, byNext := certificate(t, next, 6, user)
		logins := func() (got [2]bool) {
			for i, signer := range []ssh.Signer{revoked, byNext} {
				conn, err := ssh.Dial("tcp", node.Addr(), &ssh.ClientConfig{
					User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
				})
				if got[i] = err == nil; got[i] {
					check(t, conn.Close())
				}
			}
			return got
		}
		if got := logins(); got != [2]bool{false, false} {
			t.Errorf("before the first run: %v", got)
		}
		first := n.state(t, 7, nil)
		n.publish(t, first)
		n.mustSync(t)
		if got := logins(); got != [2]bool{true, false} {
			t.Errorf("with the first key trusted: %v\n%s", got, node.Log())
		}
		second := n.state(t, 8, []uint64{5}, next)
		second.canary = certificateLine(t, n.ca, 5)
		n.publish(t, second)
		n.mustSync(t)
		if got := logins(); got != [2]bool{false, true} {
			t.Errorf("with serial 5 revoked and the second key trusted: %v", got)
		}
	})
}
