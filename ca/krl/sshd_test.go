package krl

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/internal/loginnode"
)

// TestSSHDRefusesWhatIsRevoked: the real sshd, at each new list without a reload.
func TestSSHDRefusesWhatIsRevoked(t *testing.T) {
	t.Parallel()
	var users []loginnode.User
	if os.Geteuid() == 0 {
		users = []loginnode.User{{Name: "alice"}}
	}
	node, err := loginnode.Start(t.Context(), loginnode.Config{
		Dir: t.TempDir(), Users: users, TrustedUserCAKeys: ssh.MarshalAuthorizedKey(keyOf(t, 1)),
		RevokedKeys: mustMarshal(t, &List{}), MaxAuthTries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	accepted := func() bool {
		return login(t, node, signedBy(t, certificateFor(t, node.Users()[0], 2, 1, 3007, "v1:bad"), 2))
	}
	if !accepted() {
		t.Fatal("the empty list refuses a login")
	}
	serials := func(s Serials) []Certificates { return []Certificates{{Serials: s}} }
	for _, c := range []struct {
		name    string
		list    List
		refused bool
	}{
		{"serial in a list", List{Certificates: serials(Serials{{3007, 3007}})}, true},
		{"serial in a range", List{Certificates: serials(Serials{{3000, 30000}})}, true},
		{"serial in a bitmap", List{Certificates: serials(Serials{{3000, 3000}, {3004, 3004}, {3007, 3007}, {3011, 3012}})}, true},
		{"serials around it", List{Certificates: serials(Serials{{3006, 3006}, {3008, 3008}, {4000, 1 << 60}})}, false},
		{"serial of this CA", List{Certificates: []Certificates{{CA: keyOf(t, 1), Serials: Serials{{3007, 3007}}}}}, true},
		{"serial of another CA", List{Certificates: []Certificates{{CA: keyOf(t, 3), Serials: Serials{{3007, 3007}}}}}, false},
		{"key ID", List{Certificates: []Certificates{{KeyIDs: []string{"v1:bad"}}}}, true},
		{"another key ID", List{Certificates: []Certificates{{KeyIDs: []string{"v1:bad2", "v1"}}}}, false},
		{"key", List{Keys: []ssh.PublicKey{keyOf(t, 2)}}, true},
		{"hash of the key", List{SHA256: [][32]byte{hashOf(keyOf(t, 2))}}, true},
		{"key of the CA, which is still trusted", List{Keys: []ssh.PublicKey{keyOf(t, 1)}}, true},
		{"hash of the CA's key", List{SHA256: [][32]byte{hashOf(keyOf(t, 1))}}, true},
		{"other keys", List{Keys: []ssh.PublicKey{keyOf(t, 3)}, SHA256: [][32]byte{hashOf(keyOf(t, 4))}}, false},
	} {
		if err := node.SetRevokedKeys(mustMarshal(t, &c.list)); err != nil {
			t.Fatal(err)
		}
		if got := !accepted(); got != c.refused {
			t.Errorf("%s: refused %t, want %t", c.name, got, c.refused)
		}
	}
}

func certificateFor(t *testing.T, user string, key, ca byte, serial uint64, id string) *ssh.Certificate {
	t.Helper()
	cert := certificate(t, key, ca, serial, id)
	cert.ValidPrincipals = []string{user}
	if err := cert.SignCert(rand.Reader, signerOf(t, ca)); err != nil {
		t.Fatal(err)
	}
	return cert
}

func signedBy(t *testing.T, cert *ssh.Certificate, key byte) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewCertSigner(cert, signerOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// login says whether the node lets signer in. Any other failure is fatal.
func login(t *testing.T, node *loginnode.Node, signer ssh.Signer) bool {
	t.Helper()
	known, err := knownhosts.New(node.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", node.Addr(), &ssh.ClientConfig{
		User: node.Users()[0], Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, Timeout: 10 * time.Second, HostKeyCallback: known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err == nil {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		return true
	}
	if !strings.Contains(err.Error(), "unable to authenticate") && !strings.Contains(err.Error(), "Too many authentication failures") {
		t.Fatal(err)
	}
	return false
}
