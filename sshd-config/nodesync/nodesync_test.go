package nodesync_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/sshd-config/nodesync"
)

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keygen(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func newSigner(t *testing.T) (ssh.Signer, any) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, key), key
}

func signerOf(t *testing.T, key any) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestSSHKeygenVerifiesWhatSignMakes(t *testing.T) {
	t.Parallel()
	signer, _ := newSigner(t)
	signers := write(t, "signers", []byte(nodesync.SignersLine(signer.PublicKey())))
	for _, message := range [][]byte{{}, []byte("hello\n"), bytes.Repeat([]byte{0, 255}, 1<<16)} {
		sig, err := nodesync.Sign(signer, nodesync.Namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"-Y", "verify", "-f", signers, "-I", nodesync.Principal, "-n", nodesync.Namespace, "-s", write(t, "sig", sig)}
		if out, err := keygen(t, message, args...); err != nil {
			t.Errorf("%d bytes: %v, %s", len(message), err, out)
		}
		if out, err := keygen(t, append(message, 'x'), args...); err == nil {
			t.Errorf("%d bytes and one more were verified: %s", len(message), out)
		}
		other, err := nodesync.Sign(signer, "file", message)
		if err != nil {
			t.Fatal(err)
		}
		args[len(args)-1] = write(t, "sig", other)
		if out, err := keygen(t, message, args...); err == nil {
			t.Errorf("a signature for namespace file was taken for a manifest: %s", out)
		}
	}
}

func TestVerifyTakesWhatSSHKeygenSigns(t *testing.T) {
	t.Parallel()
	_, ed := newSigner(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("what is signed")
	for name, key := range map[string]any{"ed25519": ed, "ecdsa": ec, "rsa": rs} {
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		path := write(t, "key", pem.EncodeToMemory(block))
		for _, hash := range []string{"sha256", "sha512"} {
			file := write(t, "message", message)
			if out, err := keygen(t, nil, "-Y", "sign", "-f", path, "-n", nodesync.Namespace, "-O", "hashalg="+hash, file); err != nil {
				t.Fatalf("%v, %s", err, out)
			}
			sig, err := os.ReadFile(file + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			public := signerOf(t, key).PublicKey()
			if got, err := nodesync.Verify([]ssh.PublicKey{public}, nodesync.Namespace, message, sig); err != nil || !bytes.Equal(got.Marshal(), public.Marshal()) {
				t.Errorf("%s, %s: %v, %v", name, hash, got, err)
			}
			refused(t, name, public, "x"+string(message), sig)
			for i := range sig { // whatever byte is changed, at most the armour says the same
				broken := bytes.Clone(sig)
				broken[i] ^= 1
				if key, err := nodesync.Verify([]ssh.PublicKey{public}, nodesync.Namespace, append(message, 'x'), broken); err == nil {
					t.Fatalf("byte %d: a broken signature verifies another message: %v", i, key)
				}
			}
		}
	}
}

func refused(t *testing.T, name string, key ssh.PublicKey, message string, sig []byte) {
	t.Helper()
	if _, err := nodesync.Verify([]ssh.PublicKey{key}, nodesync.Namespace, []byte(message), sig); !errors.Is(err, nodesync.ErrSignature) {
		t.Errorf("%s: got %v, want ErrSignature", name, err)
	}
}

func TestASignatureCountsOnlyForItsKeyMessageAndNamespace(t *testing.T) {
	t.Parallel()
	signer, _ := newSigner(t)
	other, _ := newSigner(t)
	sig, err := nodesync.Sign(signer, nodesync.Namespace, []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := nodesync.Sign(signer, "file", []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "other key", other.PublicKey(), "m", sig)
	refused(t, "other message", signer.PublicKey(), "n", sig)
	refused(t, "other namespace", signer.PublicKey(), "m", foreign)
	refused(t, "cut", signer.PublicKey(), "m", sig[:len(sig)-10])
	refused(t, "text after it", signer.PublicKey(), "m", append(bytes.Clone(sig), "more"...))
	refused(t, "text before it", signer.PublicKey(), "m", append([]byte("more\n"), sig...))
	refused(t, "too long", signer.PublicKey(), "m", bytes.Repeat([]byte("a"), nodesync.MaxSignature+1))
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sha1, err := ssh.NewSignerWithAlgorithms(signerOf(t, weak).(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	if sig, err = nodesync.Sign(sha1, nodesync.Namespace, []byte("m")); err != nil {
		t.Fatal(err)
	}
	refused(t, "SHA-1", sha1.PublicKey(), "m", sig)
}

func TestSignersAreReadStrictly(t *testing.T) {
	t.Parallel()
	a, _ := newSigner(t)
	b, _ := newSigner(t)
	line := nodesync.SignersLine(a.PublicKey())
	keys, err := nodesync.ParseSigners([]byte("# comment\n\n" + line + nodesync.SignersLine(b.PublicKey())))
	if err != nil || len(keys) != 2 || !bytes.Equal(keys[1].Marshal(), b.PublicKey().Marshal()) {
		t.Errorf("got %v, %v", keys, err)
	}
	plain := string(ssh.MarshalAuthorizedKey(a.PublicKey()))
	for _, text := range []string{
		"", "# nothing\n", plain, "* " + plain, "sallyport-distribution " + plain,
		strings.Replace(line, "namespaces=", "cert-authority,namespaces=", 1),
		strings.Replace(line, `"sallyport-manifest"`, `"*"`, 1),
		strings.Replace(line, "sallyport-distribution", "!sallyport-distribution", 1),
		line + "garbage\n", strings.Replace(line, "AAAA", "AAAB", 1),
	} {
		if keys, err := nodesync.ParseSigners([]byte(text)); err == nil {
			t.Errorf("%q: got %d keys, want an error", text, len(keys))
		}
	}
}

func manifest() nodesync.Manifest {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return nodesync.Manifest{
		CA: "centre", Version: 7, IssuedAt: at, ExpiresAt: at.Add(time.Hour),
		Trust: nodesync.Sum([]byte("trust")), Revocation: nodesync.Sum([]byte("list")),
		Keys: []nodesync.Key{
			{Fingerprint: "SHA256:" + strings.Repeat("a", 43), State: "active"},
			{Fingerprint: "SHA256:" + strings.Repeat("b", 43), State: "pending"},
		},
		Canary: "ssh-ed25519-cert-v01@openssh.com AAAA==",
	}
}

func TestAManifestSurvivesItsText(t *testing.T) {
	t.Parallel()
	text, err := manifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Errorf("it is no JSON:\n%s", text)
	}
	got, err := nodesync.ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := got.Marshal(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("%v\n%s\n%s", err, text, again)
	}
	for i := range text { // only the bytes of values may change, and then it is a manifest that says so
		changed := bytes.Clone(text)
		changed[i] = ' '
		if m, err := nodesync.ParseManifest(changed); err == nil {
			if again, _ := m.Marshal(); !bytes.Equal(again, changed) {
				t.Errorf("byte %d: the text of %+v is not its own", i, m)
			}
		} else if !errors.Is(err, nodesync.ErrManifest) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func TestMistakesInAManifestAreRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*nodesync.Manifest){
		"ca":                    func(m *nodesync.Manifest) { m.CA = `a", "version": 9` },
		"version 0":             func(m *nodesync.Manifest) { m.Version = 0 },
		"version too great":     func(m *nodesync.Manifest) { m.Version = nodesync.MaxVersion + 1 },
		"ends before it begins": func(m *nodesync.Manifest) { m.ExpiresAt = m.IssuedAt },
		"half a second":         func(m *nodesync.Manifest) { m.IssuedAt = m.IssuedAt.Add(time.Millisecond) },
		"no sum":                func(m *nodesync.Manifest) { m.Trust.SHA256 = "" },
		"an empty list":         func(m *nodesync.Manifest) { m.Revocation = nodesync.Sum(nil) },
		"a file too large":      func(m *nodesync.Manifest) { m.Trust.Size = nodesync.MaxFile + 1 },
		"keys without a file":   func(m *nodesync.Manifest) { m.Trust = nodesync.Sum(nil) },
		"a file without keys":   func(m *nodesync.Manifest) { m.Keys = nil },
		"two active keys":       func(m *nodesync.Manifest) { m.Keys[1].State = "active" },
		"active not first":      func(m *nodesync.Manifest) { m.Keys[0].State, m.Keys[1].State = "pending", "active" },
		"a fingerprint":         func(m *nodesync.Manifest) { m.Keys[0].Fingerprint = "MD5:aa" },
		"a canary":              func(m *nodesync.Manifest) { m.Canary = "ssh-ed25519 AAAA" },
	} {
		m := manifest()
		change(&m)
		if text, err := m.Marshal(); !errors.Is(err, nodesync.ErrManifest) {
			t.Errorf("%s: got %v and\n%s", name, err, text)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	text, err := manifest().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format": 1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := nodesync.ParseManifest(text)
		if err != nil {
			return
		}
		if again, err := m.Marshal(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%v: parsed from\n%q\nwritten\n%q", err, text, again)
		}
	})
}

func FuzzVerify(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		f.Fatal(err)
	}
	sig, err := nodesync.Sign(signer, nodesync.Namespace, []byte("m"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Fuzz(func(t *testing.T, sig []byte) {
		if _, err := nodesync.Verify([]ssh.PublicKey{signer.PublicKey()}, nodesync.Namespace, []byte("another"), sig); err == nil {
			t.Errorf("%q verifies a message that was never signed", sig)
		}
	})
}
