package credential

import (
	"bytes"
	"crypto/ed25519"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

var update = flag.Bool("update", false, "write the seeds of fuzz targets anew")

// fuzzSigner makes the same key in every run, so that seeds with good signatures
// can be checked in.
func fuzzSigner(t testing.TB, name byte) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{name}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

var fuzzNow = time.Unix(1_800_000_000, 0)

// zeros stands for the nonce's randomness.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// fuzzSeeds are lines that a service could answer with; the first is acceptable.
func fuzzSeeds(t testing.TB) map[string][]byte {
	t.Helper()
	now := uint64(fuzzNow.Unix())
	line := func(by byte, change func(*ssh.Certificate)) []byte {
		cert := &ssh.Certificate{
			Key: fuzzSigner(t, 'u').PublicKey(), Serial: 1, CertType: ssh.UserCert, KeyId: "seed",
			ValidPrincipals: []string{"alice"}, ValidAfter: now - 60, ValidBefore: now + 300,
			Permissions: ssh.Permissions{
				CriticalOptions: map[string]string{"source-address": "192.0.2.0/24"}, Extensions: map[string]string{"permit-pty": ""},
			},
		}
		change(cert)
		if err := cert.SignCert(zeros{}, fuzzSigner(t, by)); err != nil {
			t.Fatal(err)
		}
		return ssh.MarshalAuthorizedKey(cert)
	}
	none := func(*ssh.Certificate) {}
	good := line('c', none)
	return map[string][]byte{
		"good":       good,
		"foreign":    line('x', none),
		"root":       line('c', func(c *ssh.Certificate) { c.ValidPrincipals = []string{"alice", "root"} }),
		"nobody":     line('c', func(c *ssh.Certificate) { c.ValidPrincipals = nil }),
		"for_ever":   line('c', func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }),
		"host":       line('c', func(c *ssh.Certificate) { c.CertType = ssh.HostCert }),
		"forced":     line('c', func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "id"} }),
		"two":        append(bytes.Clone(good), good...),
		"in_a_page":  append([]byte("<html>\n"), good...),
		"with_words": append([]byte(`command="id" `), good...),
	}
}

// FuzzCertificateOfAService holds for any answer: it is refused without a panic,
// or it is one that a second, simpler look finds nothing wrong with.
func FuzzCertificateOfAService(f *testing.F) {
	dir := filepath.Join("testdata", "service")
	if *update {
		for name, text := range fuzzSeeds(f) {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				f.Fatal(err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds in %s: %v", dir, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	authority := fuzzSigner(f, 'c').PublicKey()
	expect := Expectation{CAFingerprints: []string{ssh.FingerprintSHA256(authority)}, Extensions: []string{"permit-pty"}}
	if err := expect.check(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		cert, err := parseCertificate(string(answer))
		if err != nil {
			return
		}
		if err := expect.verify(cert, "alice", fuzzNow); err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("a complaint of %d bytes", len(err.Error()))
			}
			return
		}
		// The signature binds all fields, so only what the CA has signed can get here.
		signed := cert.Marshal()
		signed = signed[:len(signed)-4-len(ssh.Marshal(cert.Signature))]
		if !bytes.Equal(cert.SignatureKey.Marshal(), authority.Marshal()) || authority.Verify(signed, cert.Signature) != nil {
			t.Errorf("it is not signed by the CA: %q", answer)
		}
		now := uint64(fuzzNow.Unix())
		if cert.CertType != 1 || !slices.Equal(cert.ValidPrincipals, []string{"alice"}) || cert.ValidAfter > now || cert.ValidBefore <= now || cert.ValidBefore > now+16*60 {
			t.Errorf("it should not be used: %+v", cert)
		}
	})
}

func TestTheSeedsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	expect := Expectation{CAFingerprints: []string{ssh.FingerprintSHA256(fuzzSigner(t, 'c').PublicKey())}, Extensions: []string{"permit-pty"}}
	if err := expect.check(); err != nil {
		t.Fatal(err)
	}
	for name, want := range fuzzSeeds(t) {
		text, err := os.ReadFile(filepath.Join("testdata", "service", name))
		if err != nil || !bytes.Equal(text, want) {
			t.Errorf("seed %s is stale, run 'go test -run Fuzz -update': %v", name, err)
		}
		cert, err := parseCertificate(string(text))
		if err == nil {
			err = expect.verify(cert, "alice", fuzzNow)
		}
		if (err == nil) != (name == "good") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
