package ca

import (
	"bytes"
	"crypto/ed25519"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/store/audit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// keygenL is what ssh-keygen -L says of the certificate, in UTC.
func keygenL(t testing.TB, cert *ssh.Certificate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id-cert.pub")
	if err := os.WriteFile(path, ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-L", "-f", path)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return string(bytes.ReplaceAll(out, []byte(path), []byte("id-cert.pub")))
}

func privateDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCertificatesAsOpenSSHReadsThem compares certificates of fixed keys, at the
// fixed time of a bubble, with golden text; only the serial is random.
func TestCertificatesAsOpenSSHReadsThem(t *testing.T) {
	t.Parallel()
	seed := func(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }
	for name, change := range map[string]func(*Request){
		"executor": func(r *Request) { r.Profile = "executor" },
		"user":     func(r *Request) { r.Profile = "user" },
		"narrowed": func(r *Request) {
			r.Profile, r.TTL, r.Principals = "site", time.Minute, []string{"alice", "grp-42"}
			r.SourceAddresses, r.ForceCommand = nets("10.1.0.0/16", "2001:db8:1::/48"), "/usr/bin/uptime"
		},
		"site": func(r *Request) { r.Profile = "site" },
	} {
		var cert *ssh.Certificate
		synctest.Test(t, func(t *testing.T) {
			secret := seed(1)
			key, err := newKey(&secret)
			if err != nil {
				t.Fatal(err)
			}
			w := openWorld(t, privateDir(t), key, func(c *Config) {
				c.Profiles = []ProfileConfig{{
					Name: "site", MaxTTL: 8 * time.Hour, DefaultTTL: 8 * time.Hour, ExtraPrincipals: []string{"grp-42"},
					Extensions: []string{"permit-user-rc", "permit-pty", "permit-port-forwarding"}, SourceAddresses: nets("10.0.0.0/8", "2001:db8::/32"),
				}}
			})
			defer w.close(t)
			r := Request{Caller: alice(t), PublicKey: sshKey(t, seed(2).Public())}
			change(&r)
			ctx := audit.WithRequest(t.Context(), audit.Request{ID: "req-1"})
			if cert, err = w.Issue(ctx, r); err != nil {
				t.Fatal(err)
			}
		})
		got := regexp.MustCompile(`Serial: \d+`).ReplaceAllString(keygenL(t, cert), "Serial: N")
		golden := filepath.Join("testdata", "certificates", name+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", name, diff)
		}
	}
}

func TestTrustBundleIsAKeyFileWithTheActiveKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, comment, options, rest, err := ssh.ParseAuthorizedKey(w.TrustBundle())
	if err != nil || comment != "sallyport-user-ca" || len(options) > 0 || len(rest) > 0 {
		t.Fatalf("bundle %q: comment %q, options %q, rest %q, %v", w.TrustBundle(), comment, options, rest, err)
	}
	if !bytes.Equal(key.Marshal(), w.key.PublicKey().Marshal()) || w.Fingerprint() != ssh.FingerprintSHA256(key) {
		t.Errorf("bundle has key %s, fingerprint is %s", ssh.FingerprintSHA256(key), w.Fingerprint())
	}
	if bytes.Count(w.TrustBundle(), []byte("\n")) != 1 || !bytes.HasSuffix(w.TrustBundle(), []byte("\n")) {
		t.Errorf("bundle is not one line: %q", w.TrustBundle())
	}
}

func TestRevocationListOfNothingIsValidAndStable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	list := w.RevocationList()
	if len(list) < 44 || !slices.Equal(list, w.RevocationList()) {
		t.Fatalf("list has %d bytes, or changes", len(list))
	}
	dir := t.TempDir()
	krl, pub := filepath.Join(dir, "revoked.krl"), filepath.Join(dir, "key.pub")
	cert, err := w.Issue(t.Context(), Request{Caller: alice(t), Profile: "user", PublicKey: newPublicKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{krl: list, pub: ssh.MarshalAuthorizedKey(cert)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-Q", "-f", krl, pub).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte(": ok")) {
		t.Errorf("ssh-keygen -Q: %v\n%s", err, out)
	}
}
