package credential_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/executor"
	"sallyport/executor/credential"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
	"sallyport/store/bolt"
)

var node = executor.Node{System: "daint", Address: "192.0.2.1:22"}

// files makes key files for static credentials.
type files struct {
	t   testing.TB
	dir string
}

func newFiles(t testing.TB) files { return files{t, t.TempDir()} }

func (f files) write(name string, text []byte, mode os.FileMode) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f files) key(name string) (string, ssh.PublicKey) {
	f.t.Helper()
	text, pub, err := ca.GenerateKey("ed25519", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.write(name, text, 0o600), pub
}

// lockedKey is one of few bcrypt rounds: with the usual 16, opening it takes
// seconds under the race detector.
func (f files) lockedKey(name, passphrase string) (string, ssh.PublicKey) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	out, err := exec.CommandContext(f.t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", passphrase, "-f", path).CombinedOutput()
	if err != nil {
		f.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		f.t.Fatal(err)
	}
	pub, err := ca.ParsePublicKey(string(text))
	if err != nil {
		f.t.Fatal(err)
	}
	return path, pub
}

func (f files) certificate(name string, key ssh.PublicKey, change func(*ssh.Certificate)) string {
	f.t.Helper()
	now := uint64(time.Now().Unix())
	cert := &ssh.Certificate{
		Key: key, Serial: 1, CertType: ssh.UserCert, KeyId: "static", ValidPrincipals: []string{"alice"},
		ValidAfter: now - 60, ValidBefore: now + 3600,
	}
	if change != nil {
		change(cert)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		f.t.Fatal(err)
	}
	return f.write(name, ssh.MarshalAuthorizedKey(cert), 0o644)
}

func newStatic(t testing.TB, keys ...credential.StaticKey) *credential.Static {
	t.Helper()
	s, err := credential.NewStatic(credential.StaticConfig{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStaticKeyIsFoundByIdentityBeforeLogin(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	byIdentity, identityKey := f.key("identity")
	byLogin, loginKey := f.key("login")
	s := newStatic(t,
		credential.StaticKey{Issuer: "kc", Subject: "s1", User: "svc", KeyFile: byIdentity},
		credential.StaticKey{Login: "alice", KeyFile: byLogin})
	for _, c := range []struct {
		alias, subject, login, user string
		key                         ssh.PublicKey
	}{
		{"kc", "s1", "alice", "svc", identityKey},
		{"kc", "s1", "bob", "svc", identityKey},
		{"kc", "s2", "alice", "alice", loginKey},
		{"other", "s1", "alice", "alice", loginKey},
	} {
		got, err := s.Credential(t.Context(), identitytest.IdentityFrom(t, c.alias, c.subject, c.login, time.Minute), node)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		if got.User != c.user || string(got.Signer.PublicKey().Marshal()) != string(c.key.Marshal()) || got.Certificate != nil || !got.NotAfter.IsZero() {
			t.Errorf("%v: got %+v", c, got)
		}
	}
	for _, caller := range []identity.Identity{
		{}, identitytest.IdentityFrom(t, "kc", "s2", "bob", time.Minute), identitytest.IdentityFrom(t, "other", "s1", "bob", time.Minute),
	} {
		if got, err := s.Credential(t.Context(), caller, node); !errors.Is(err, executor.ErrNoCredential) {
			t.Errorf("%s: got %+v, %v", caller, got, err)
		} else if caller.Valid() && strings.Contains(err.Error(), caller.Bearer()) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestStaticKeyWithPassphraseAndCertificate(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	key, pub := f.lockedKey("key", "correct horse")
	cert := f.certificate("key-cert.pub", pub, nil)
	s := newStatic(t, credential.StaticKey{
		Login: "alice", KeyFile: key, PassphraseFile: f.write("passphrase", []byte("correct horse\n"), 0o400), CertificateFile: cert,
	})
	got, err := s.Credential(t.Context(), identitytest.Identity(t, "alice", time.Minute), node)
	if err != nil {
		t.Fatal(err)
	}
	if got.User != "alice" || got.Certificate == nil || time.Until(got.NotAfter) > time.Hour || time.Until(got.NotAfter) < 59*time.Minute {
		t.Errorf("got %+v", got)
	}
	sig, err := got.Signer.Sign(rand.Reader, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Verify([]byte("data"), sig); err != nil {
		t.Error(err)
	}
	if string(got.Signer.PublicKey().Marshal()) != string(got.Certificate.Marshal()) {
		t.Error("the signer does not show the certificate")
	}
}

func TestStaticCertificateIsCheckedAtEachUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFiles(t)
		key, pub := f.key("key")
		ends := f.certificate("ends-cert.pub", pub, nil)
		endless := f.certificate("endless-cert.pub", pub, func(c *ssh.Certificate) {
			c.ValidBefore, c.ValidPrincipals = ssh.CertTimeInfinity, []string{"bob"}
		})
		s := newStatic(t,
			credential.StaticKey{Login: "alice", KeyFile: key, CertificateFile: ends},
			credential.StaticKey{Issuer: "test", Subject: "sub-bob", KeyFile: key, CertificateFile: endless})
		alice, bob := identitytest.Identity(t, "alice", 2*time.Hour), identitytest.Identity(t, "bob", 2*time.Hour)
		if _, err := s.Credential(t.Context(), alice, node); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if _, err := s.Credential(t.Context(), alice, node); !errors.Is(err, executor.ErrNoCredential) {
			t.Errorf("expired certificate: %v", err)
		}
		if got, err := s.Credential(t.Context(), bob, node); err != nil || !got.NotAfter.IsZero() {
			t.Errorf("endless certificate: %+v, %v", got, err)
		}
		carol := identitytest.IdentityFrom(t, "test", "sub-bob", "carol", time.Minute)
		if _, err := s.Credential(t.Context(), carol, node); !errors.Is(err, executor.ErrNoCredential) {
			t.Errorf("certificate for another user: %v", err)
		}
	})
}

func TestStaticConfigurationReportsAllMistakes(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	good, pub := f.key("good")
	locked, _ := f.lockedKey("locked", "correct horse")
	open, _ := f.key("open")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	_, other := f.key("other")
	with := func(name string, change func(*ssh.Certificate)) string { return f.certificate(name, pub, change) }
	cases := []struct {
		key  credential.StaticKey
		want string
	}{
		{credential.StaticKey{KeyFile: good}, "give either issuer and subject, or login"},
		{credential.StaticKey{Issuer: "kc", KeyFile: good}, "give either issuer and subject, or login"},
		{credential.StaticKey{Issuer: "kc", Subject: "s", Login: "l", KeyFile: good}, "give either issuer and subject, or login"},
		{credential.StaticKey{Login: "a1", User: "root", KeyFile: good}, `user "root"`},
		{credential.StaticKey{Login: "a2", User: "-oX", KeyFile: good}, `user "-oX"`},
		{credential.StaticKey{Login: "a3", User: "a b", KeyFile: good}, `user "a b"`},
		{credential.StaticKey{Login: "a4", KeyFile: filepath.Join(f.dir, "absent")}, "no such file"},
		{credential.StaticKey{Login: "a5", KeyFile: open}, "not private"},
		{credential.StaticKey{Login: "a6", KeyFile: locked}, "no passphrase was given"},
		{credential.StaticKey{Login: "a7", KeyFile: locked, PassphraseFile: f.write("wrong", []byte("battery staple"), 0o600)}, "passphrase does not open"},
		{credential.StaticKey{Login: "a8", KeyFile: locked, PassphraseFile: f.write("public", []byte("correct horse"), 0o644)}, "not private"},
		{credential.StaticKey{Login: "a9", KeyFile: good, CertificateFile: f.certificate("other-cert.pub", other, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"a9"} })}, "is not over the key"},
		{credential.StaticKey{Login: "alice", KeyFile: good, CertificateFile: with("expired", func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 1 })}, "expired at"},
		{credential.StaticKey{Issuer: "i", Subject: "1", KeyFile: good, CertificateFile: with("future", func(c *ssh.Certificate) { c.ValidAfter += 600 })}, "not valid yet"},
		{credential.StaticKey{Issuer: "i", Subject: "2", KeyFile: good, CertificateFile: with("host", func(c *ssh.Certificate) { c.CertType = ssh.HostCert })}, "not a user certificate"},
		{credential.StaticKey{Issuer: "i", Subject: "3", User: "bob", KeyFile: good, CertificateFile: with("alice", nil)}, `is not for user "bob" but for ["alice"]`},
		{credential.StaticKey{Issuer: "i", Subject: "4", KeyFile: good, CertificateFile: with("empty", func(c *ssh.Certificate) { c.ValidPrincipals = nil })}, "names no user"},
		{credential.StaticKey{Issuer: "i", Subject: "5", KeyFile: good, CertificateFile: f.write("plain.pub", ssh.MarshalAuthorizedKey(pub), 0o644)}, "not a file with one certificate"},
		{credential.StaticKey{Issuer: "i", Subject: "6", KeyFile: good, CertificateFile: f.write("huge.pub", make([]byte, 1<<20), 0o644)}, "is larger than"},
		{credential.StaticKey{Login: "twice", KeyFile: good}, ""},
		{credential.StaticKey{Login: "twice", KeyFile: good}, "identity stands twice"},
	}
	var cfg credential.StaticConfig
	for _, c := range cases {
		cfg.Keys = append(cfg.Keys, c.key)
	}
	_, err := credential.NewStatic(cfg)
	if err == nil {
		t.Fatal("was taken")
	}
	for i, c := range cases {
		found := false
		for line := range strings.Lines(err.Error()) {
			found = found || strings.HasPrefix(strings.TrimPrefix(line, "static credentials: "), fmt.Sprintf("key %d (", i+1)) && strings.Contains(line, c.want)
		}
		if found != (c.want != "") {
			t.Errorf("key %d: want %q in\n%v", i+1, c.want, err)
		}
	}
	if strings.Contains(err.Error(), "battery") || strings.Contains(err.Error(), "horse") {
		t.Errorf("the error shows a passphrase: %v", err)
	}
	if _, err := credential.NewStatic(credential.StaticConfig{}); err == nil {
		t.Error("an empty list was taken")
	}
}

// cacheFunc is a certificate cache that answers as it is told.
type cacheFunc func() (ssh.Signer, *ssh.Certificate, error)

func (f cacheFunc) Credential(context.Context, identity.Identity, string) (ssh.Signer, *ssh.Certificate, error) {
	return f()
}

func TestBuiltinTellsRefusalFromFailure(t *testing.T) {
	t.Parallel()
	caller := identitytest.Identity(t, "alice", time.Minute)
	for _, c := range []struct {
		err   error
		final bool
	}{
		{&ca.RequestError{Code: ca.CodeIdentity, Field: "token", Detail: "has expired"}, true},
		{ca.ErrUnavailable, false},
		{context.Canceled, false},
	} {
		b := credential.NewBuiltin(cacheFunc(func() (ssh.Signer, *ssh.Certificate, error) { return nil, nil, c.err }), nil)
		_, err := b.Credential(t.Context(), caller, node)
		if !errors.Is(err, c.err) || errors.Is(err, executor.ErrNoCredential) != c.final {
			t.Errorf("%v: error is %v", c.err, err)
		}
	}
	foreign := cacheFunc(func() (ssh.Signer, *ssh.Certificate, error) {
		return nil, &ssh.Certificate{ValidPrincipals: []string{"bob"}, ValidBefore: 1}, nil
	})
	if got, err := credential.NewBuiltin(foreign, nil).Credential(t.Context(), caller, node); !errors.Is(err, executor.ErrNoCredential) {
		t.Errorf("certificate of bob: %+v, %v", got, err)
	}
}

func TestBuiltinGivesTheCachedCertificateOfTheCaller(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	if err := os.Chmod(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, _ := f.key("ca")
	key, err := ca.LoadKey(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(f.dir, "sallyport.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	log, err := audit.Open(audit.Config{Dir: filepath.Join(f.dir, "audit")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	authority, err := ca.New(ca.Config{Key: key, Store: db, Audit: log})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := ca.NewCache(ca.CacheConfig{Authority: authority, Store: db})
	if err != nil {
		t.Fatal(err)
	}
	jumps, err := ca.NewCache(ca.CacheConfig{Authority: authority, Store: db, Profile: ca.ProfileJump})
	if err != nil {
		t.Fatal(err)
	}
	b := credential.NewBuiltin(cache, jumps)
	first, err := b.Credential(t.Context(), identitytest.Identity(t, "alice", time.Hour), node)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Credential(t.Context(), identitytest.Identity(t, "alice", time.Hour), node)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case first.User != "alice", first.Certificate.Serial != second.Certificate.Serial,
		!first.NotAfter.Equal(time.Unix(int64(first.Certificate.ValidBefore), 0)), time.Until(first.NotAfter) > 5*time.Minute,
		string(first.Signer.PublicKey().Marshal()) != string(first.Certificate.Marshal()):
		t.Errorf("got %+v, then %+v", first, second)
	}
	jump, err := b.Credential(t.Context(), identitytest.Identity(t, "alice", time.Hour),
		executor.Node{System: node.System, Address: "jump:22", Jump: true})
	if err != nil {
		t.Fatal(err)
	}
	_, forwards := jump.Certificate.Extensions["permit-port-forwarding"]
	if !forwards || len(jump.Certificate.Extensions) != 1 || len(first.Certificate.Extensions) != 0 {
		t.Errorf("extensions of the jump host's certificate %v, of the node's %v", jump.Certificate.Extensions, first.Certificate.Extensions)
	}
}
