package krl

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// golden is the vector of the format's description that OpenSSH 9.2 and 10.5 took:
// any CA; serials 1001, 2000 to 2010, 3000, 3007; key ID v1:bad.
const golden = `5353484b524c0a00 00000001 0000000000000007 000000006553f100 0000000000000000 00000000 00000000
01 0000004c  00000000 00000000
  20 00000008 00000000000003e9
  21 00000010 00000000000007d0 00000000000007da
  22 0000000e 0000000000000bb8 00000002 0081
  23 0000000a 00000006 76313a626164`

const emptyList = `5353484b524c0a00 00000001 0000000000000000 0000000000000000 0000000000000000 00000000 00000000`

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// signerOf makes the same key for the same number.
func signerOf(t testing.TB, n byte) ssh.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte{n})
	signer, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func keyOf(t testing.TB, n byte) ssh.PublicKey { return signerOf(t, n).PublicKey() }

// certificate is one over key, signed by ca.
func certificate(t testing.TB, key, ca byte, serial uint64, id string) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: keyOf(t, key), Serial: serial, CertType: ssh.UserCert, KeyId: id, ValidPrincipals: []string{"alice"},
		ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, signerOf(t, ca)); err != nil {
		t.Fatal(err)
	}
	return cert
}

func hashOf(key ssh.PublicKey) [32]byte { return sha256.Sum256(key.Marshal()) }

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keygen runs ssh-keygen and returns its exit code; 255 is an error of its own.
func keygen(t testing.TB, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "ssh-keygen", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	failed, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && !ok {
		t.Fatal(err)
	}
	if ok {
		return out.String(), failed.ExitCode()
	}
	return out.String(), 0
}

// judge asks ssh-keygen -Q which of keys the list revokes.
func judge(t testing.TB, dir string, list []byte, keys []ssh.PublicKey) []bool {
	t.Helper()
	args := []string{"-Q", "-f", write(t, dir, "revoked.krl", list)}
	for i, k := range keys {
		args = append(args, write(t, dir, fmt.Sprintf("key-%d.pub", i), ssh.MarshalAuthorizedKey(k)))
	}
	out, code := keygen(t, args...)
	if code == 255 {
		t.Fatalf("ssh-keygen -Q: %s\n%s", out, hex.Dump(list))
	}
	var revoked []bool
	for line := range strings.Lines(out) {
		switch line = strings.TrimSpace(line); {
		case strings.HasSuffix(line, ": REVOKED"):
			revoked = append(revoked, true)
		case strings.HasSuffix(line, ": ok"):
			revoked = append(revoked, false)
		}
	}
	if len(revoked) != len(keys) {
		t.Fatalf("ssh-keygen -Q answered for %d of %d keys:\n%s", len(revoked), len(keys), out)
	}
	return revoked
}

// valid says whether ssh-keygen takes the list for one, and what it says of it.
func valid(t testing.TB, list []byte) (bool, string) {
	t.Helper()
	out, code := keygen(t, "-Q", "-l", "-f", write(t, t.TempDir(), "revoked.krl", list))
	return code == 0, out
}

func mustParse(t testing.TB, data []byte) *List {
	t.Helper()
	l, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustMarshal(t testing.TB, l *List) []byte {
	t.Helper()
	data, err := l.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustSerials(t testing.TB, ranges ...Range) Serials {
	t.Helper()
	s, err := NewSerials(ranges...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
