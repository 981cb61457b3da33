package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestGeneratedKeysLoadAndSignWithTheAlgorithmOfTheirType(t *testing.T) {
	t.Parallel()
	for algorithm, format := range map[string]string{
		"": ssh.KeyAlgoED25519, "ed25519": ssh.KeyAlgoED25519,
		"ecdsa-p256": ssh.KeyAlgoECDSA256, "ecdsa-p384": ssh.KeyAlgoECDSA384,
	} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			text, pub, err := GenerateKey(algorithm, nil)
			if err != nil {
				t.Fatal(err)
			}
			key, err := LoadKey(writeKey(t, text), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(key.PublicKey().Marshal(), pub.Marshal()) {
				t.Error("the loaded key is another one")
			}
			sig, err := key.Signer().Sign(rand.Reader, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			if sig.Format != format {
				t.Errorf("signature format is %q, want %q", sig.Format, format)
			}
			if err := pub.Verify([]byte("data"), sig); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRSAKeySignsWithNothingButSHA512(t *testing.T) {
	t.Parallel()
	key, err := LoadKey(writeKey(t, rsaKeyText(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := key.Signer().(ssh.MultiAlgorithmSigner)
	if !ok {
		t.Fatal("signer cannot say its algorithms")
	}
	sig, err := signer.Sign(rand.Reader, []byte("data"))
	if err != nil || sig.Format != ssh.KeyAlgoRSASHA512 {
		t.Fatalf("signature is %v, %v", sig, err)
	}
	if err := key.PublicKey().Verify([]byte("data"), sig); err != nil {
		t.Error(err)
	}
	for _, algorithm := range []string{ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256} {
		if _, err := signer.SignWithAlgorithm(rand.Reader, []byte("data"), algorithm); err == nil {
			t.Errorf("signed with %q", algorithm)
		}
	}
	if got := signer.Algorithms(); len(got) != 1 || got[0] != ssh.KeyAlgoRSASHA512 {
		t.Errorf("algorithms are %q", got)
	}
}

func TestGenerateKeyRefusesOtherAlgorithms(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"dsa", "rsa", "rsa-2048", "rsa-1024", "ED25519", "ml-dsa-44"} {
		if _, _, err := GenerateKey(algorithm, nil); err == nil {
			t.Errorf("made a key of algorithm %q", algorithm)
		}
	}
}

// One test for all that needs an encrypted key: bcrypt takes seconds under the race
// detector.
func TestEncryptedKeyOpensWithItsPassphraseOnly(t *testing.T) {
	t.Parallel()
	passphrase := []byte("correct horse")
	text, pub, err := GenerateKey("", passphrase)
	if err != nil {
		t.Fatal(err)
	}
	path := writeKey(t, text)

	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-y", "-P", string(passphrase), "-f", path).Output()
	if want := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("ssh-keygen reads %q, %v; want %q", out, err, want)
	}
	if key, err := LoadKey(path, passphrase); err != nil || !bytes.Equal(key.PublicKey().Marshal(), pub.Marshal()) {
		t.Errorf("right passphrase: %v, %v", key, err)
	}
	if _, err := LoadKey(path, nil); !errors.Is(err, ErrPassphraseNeeded) {
		t.Errorf("no passphrase: %v", err)
	}
	// Few rounds: the right passphrase above has shown what bcrypt costs.
	quick := filepath.Join(t.TempDir(), "quick")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "x y", "-f", quick).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	if _, err := LoadKey(quick, []byte("x y")); err != nil {
		t.Errorf("key of ssh-keygen: %v", err)
	}
	_, err = LoadKey(quick, []byte("battery staple"))
	if !errors.Is(err, ErrWrongPassphrase) || strings.Contains(err.Error(), "battery") {
		t.Errorf("wrong passphrase: %v; want ErrWrongPassphrase, which does not show it", err)
	}
}

func TestPassphraseForAPlainKeyIsAMistake(t *testing.T) {
	t.Parallel()
	text, _, err := GenerateKey("", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LoadKey(writeKey(t, text), []byte("x"))
	if err == nil || !strings.Contains(err.Error(), "not encrypted") {
		t.Errorf("error is %v", err)
	}
}

func TestKeyFileMustBePrivate(t *testing.T) {
	t.Parallel()
	text, _, err := GenerateKey("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o604, 0o640, 0o660, 0o644, 0o620, 0o602, 0o601, 0o700} {
		path := writeKey(t, text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(path, nil)
		if !errors.Is(err, ErrKeyMode) || !strings.Contains(err.Error(), "chmod 0600") {
			t.Errorf("mode %04o: %v, want ErrKeyMode with the remedy", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		path := writeKey(t, text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path, nil); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestKeyFileMustBeAnOwnRegularFile(t *testing.T) {
	t.Parallel()
	text, _, err := GenerateKey("", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := os.Symlink(writeKey(t, text), link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"symbolic link": link, "named pipe": pipe, "folder": dir} {
		if _, err := LoadKey(path, nil); !errors.Is(err, ErrKeyMode) {
			t.Errorf("%s: %v, want ErrKeyMode", name, err)
		}
	}
	if _, err := LoadKey(filepath.Join(dir, "absent"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if os.Geteuid() == 0 { // only root can give files away
		foreign := writeKey(t, text)
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(foreign, nil); !errors.Is(err, ErrKeyMode) {
			t.Errorf("file of another user: %v, want ErrKeyMode", err)
		}
	}
}

func TestKeyFileContentThatIsRefused(t *testing.T) {
	t.Parallel()
	good, pub, err := GenerateKey("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty":      nil,
		"garbage":    []byte("-----BEGIN NOTHING"),
		"public key": ssh.MarshalAuthorizedKey(pub),
		"two keys":   append(append([]byte{}, good...), good...),
		"too large":  append(append([]byte{}, good...), bytes.Repeat([]byte("\n"), maxKeyFileBytes)...),
		"truncated":  good[:len(good)/2],
		"rsa 1024":   weakRSAKeyText(t),
		"pkcs1":      pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("x")}),
	} {
		if _, err := LoadKey(writeKey(t, text), nil); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func TestPassphraseFileRules(t *testing.T) {
	t.Parallel()
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "passphrase")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, want := range map[string]string{"secret": "secret", "secret\n": "secret", "se cret \r\n": "se cret ", "a\n\n": "a\n"} {
		got, err := ReadPassphrase(write(text, 0o400))
		if err != nil || string(got) != want {
			t.Errorf("%q is read as %q, %v; want %q", text, got, err, want)
		}
	}
	for _, mode := range []os.FileMode{0o644, 0o604, 0o660, 0o606} {
		if _, err := ReadPassphrase(write("secret", mode)); !errors.Is(err, ErrKeyMode) {
			t.Errorf("mode %04o: %v, want ErrKeyMode", mode, err)
		}
	}
	for _, text := range []string{"", "\n", strings.Repeat("x", maxPassphraseBytes+1)} {
		if _, err := ReadPassphrase(write(text, 0o600)); err == nil {
			t.Errorf("a passphrase of %d bytes was taken", len(text))
		}
	}
}

func TestDerivedSecretsDependOnKeyAndPurpose(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"ed25519", "ecdsa-p256", "rsa-3072"} {
		text := rsaKeyText(t)
		if algorithm != "rsa-3072" {
			var err error
			if text, _, err = GenerateKey(algorithm, nil); err != nil {
				t.Fatal(err)
			}
		}
		derive := func(purpose string) string {
			key, err := LoadKey(writeKey(t, text), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := key.Derive(purpose)
			if err != nil || len(b) != 32 {
				t.Fatalf("%s: derived %d bytes, %v", algorithm, len(b), err)
			}
			return string(b)
		}
		if first, second := derive("a"), derive("a"); first != second {
			t.Errorf("%s: the secret changes from load to load", algorithm)
		}
		if derive("a") == derive("b") {
			t.Errorf("%s: two purposes have one secret", algorithm)
		}
	}
	one, err := newTestKey(t, "").Derive("a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := newTestKey(t, "").Derive("a")
	if err != nil || bytes.Equal(one, other) {
		t.Errorf("two keys derive one secret (%v)", err)
	}
	if _, err := newTestKey(t, "").Derive(""); err == nil {
		t.Error("an empty purpose was taken")
	}
}

// TestDeriveIsStable pins the derivation: a change would make every sealed record
// in the field unreadable.
func TestDeriveIsStable(t *testing.T) {
	t.Parallel()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	key, err := newKey(&private)
	if err != nil {
		t.Fatal(err)
	}
	got, err := key.Derive("test")
	if err != nil {
		t.Fatal(err)
	}
	const want = "640a06832d77a754856bd68548a3ae89b4ac12852aa60205ae23bf2404fac3bf" // Python's hmac agrees
	if hex.EncodeToString(got) != want {
		t.Errorf("derived %x, want %s", got, want)
	}
}

func TestKeyNeverShowsItsSecret(t *testing.T) {
	t.Parallel()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte("s3cr"), 8))
	key, err := newKey(&private)
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	cfg := Config{Key: key}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		fmt.Fprintf(&shown, verb+" "+verb+" "+verb+" "+verb+"\n", key, *key, cfg, &cfg)
	}
	slog.New(slog.NewTextHandler(&shown, nil)).Info("test", slog.Any("key", key), slog.Any("value", *key), slog.Any("config", cfg))
	slog.New(slog.NewJSONHandler(&shown, nil)).Info("test", slog.Any("key", key), slog.Any("value", *key))
	if err := json.NewEncoder(&shown).Encode(map[string]any{"key": key, "config": cfg.Key}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(shown.String(), ssh.FingerprintSHA256(key.PublicKey())) {
		t.Error("the fingerprint is not shown")
	}
	for _, secret := range [][]byte{private.Seed(), key.root} {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
			base64.StdEncoding.EncodeToString(secret), strings.Trim(fmt.Sprintf("%v", secret), "[]"),
			strings.Trim(fmt.Sprintf("%#v", secret), "[]byte{}"),
		} {
			if strings.Contains(shown.String(), form) {
				t.Errorf("the secret is shown as %q", form)
			}
		}
	}
}

func TestNewKeyRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []any{nil, "text", p224} {
		if _, err := newKey(private); err == nil {
			t.Errorf("%T was taken", private)
		}
	}
}

func writeKey(t testing.TB, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rsaKey is an RSA-3072 key, made once: under the race detector that takes
// seconds.
var rsaKey = sync.OnceValues(func() ([]byte, error) {
	text, _, err := GenerateKey("rsa-3072", nil)
	return text, err
})

func rsaKeyText(t testing.TB) []byte {
	t.Helper()
	text, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func weakRSAKeyText(t testing.TB) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}
