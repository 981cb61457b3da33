package ca

import (
	"bytes"
	"crypto/dsa" //nolint:staticcheck // to show that it is refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// line is a key as a client would write it.
func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// forge encodes what no library would.
func forge(algorithm string, parts any) string {
	blob := append(ssh.Marshal(struct{ Name string }{algorithm}), ssh.Marshal(parts)...)
	return algorithm + " " + base64.StdEncoding.EncodeToString(blob)
}

func forgeRSA(e, n *big.Int) string { return forge(ssh.KeyAlgoRSA, struct{ E, N *big.Int }{e, n}) }

// modulus is a number of so many bits without small factors: enough for every
// check that needs no private key.
func modulus(t testing.TB, bits int) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		t.Fatal(err)
	}
	n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
	for hasSmallFactor(n) || isROCA(n) {
		n.Add(n, big.NewInt(2))
	}
	return n
}

var f4 = big.NewInt(65537)

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func newSKEd25519(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return forge(ssh.KeyAlgoSKED25519, struct {
		Key         []byte
		Application string
	}{pub, "ssh:"})
}

func newSKECDSA(t testing.TB) string {
	t.Helper()
	point, err := newECDSA(t, elliptic.P256()).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return forge(ssh.KeyAlgoSKECDSA256, struct {
		Curve       string
		Point       []byte
		Application string
	}{"nistp256", point, "ssh:"})
}

func TestAcceptedPublicKeys(t *testing.T) {
	t.Parallel()
	ed := line(newPublicKey(t))
	for name, text := range map[string]string{
		"ed25519":               ed,
		"trailing line end":     ed + "\n",
		"trailing CR LF":        ed + "\r\n",
		"comment":               ed + " alice@laptop",
		"comment with words":    ed + "  alice's key, 2026 \t é",
		"tabs between fields":   strings.ReplaceAll(ed, " ", " \t "),
		"spaces around":         "  " + ed + "  ",
		"sk-ed25519":            newSKEd25519(t),
		"sk-ecdsa":              newSKECDSA(t),
		"ecdsa p256":            line(sshKey(t, newECDSA(t, elliptic.P256()))),
		"ecdsa p384":            line(sshKey(t, newECDSA(t, elliptic.P384()))),
		"ecdsa p521":            line(sshKey(t, newECDSA(t, elliptic.P521()))),
		"rsa 3072":              forgeRSA(f4, modulus(t, 3072)),
		"rsa 8192":              forgeRSA(f4, modulus(t, 8192)),
		"rsa exponent 2^24 - 1": forgeRSA(big.NewInt(1<<24-1), modulus(t, 3072)),
	} {
		key, err := ParsePublicKey(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil || !bytes.Equal(key.Marshal(), want.Marshal()) {
			t.Errorf("%s: parsed as %q, x/crypto says %v, %v", name, line(key), want, err)
		}
	}
}

func TestRefusedPublicKeys(t *testing.T) {
	t.Parallel()
	ed := line(newPublicKey(t))
	_, blob, _ := strings.Cut(ed, " ")
	cert := testCertificate(t)
	for name, text := range map[string]string{
		"empty":                   "",
		"only a comment":          "# nothing here",
		"type alone":              "ssh-ed25519",
		"no base64":               "ssh-ed25519 %%%%",
		"base64 with loose bits":  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB==",
		"one megabyte":            "ssh-ed25519 " + strings.Repeat("A", 1<<20),
		"one byte too long":       ed + " " + strings.Repeat("c", maxPublicKeyBytes-len(ed)),
		"second key":              ed + "\n" + line(newPublicKey(t)),
		"comment with line feed":  ed + " a\nssh-rsa AAAA",
		"comment with CR":         ed + " a\rb",
		"comment with NUL":        ed + " a\x00b",
		"comment with escape":     ed + " \x1b[2J",
		"leading junk line":       "junk\n" + ed,
		"option":                  "restrict " + ed,
		"option with value":       `command="id" ` + ed,
		"cert-authority option":   "cert-authority " + ed,
		"type and blob disagree":  "ssh-rsa " + blob,
		"rsa-sha2-512 as type":    "rsa-sha2-512 " + strings.TrimPrefix(forgeRSA(f4, modulus(t, 3072)), "ssh-rsa "),
		"trailing bytes in blob":  forge(ssh.KeyAlgoED25519, struct{ Key, Rest []byte }{make([]byte, 32), []byte("x")}),
		"ed25519 of 31 bytes":     forge(ssh.KeyAlgoED25519, struct{ Key []byte }{make([]byte, 31)}),
		"certificate":             line(cert),
		"certificate named a key": "ssh-ed25519 " + strings.Fields(line(cert))[1],
		"dsa":                     line(sshKey(t, dsaKey())),
		"ml-dsa":                  "ssh-mldsa-44 AAAA",
		"unknown type":            forge("ssh-unknown@example.org", struct{ X []byte }{[]byte("x")}),
		"webauthn":                "webauthn-sk-ecdsa-sha2-nistp256@openssh.com AAAA",
		"point off the curve": forge(ssh.KeyAlgoECDSA256, struct {
			Curve string
			P     []byte
		}{"nistp256", append([]byte{4}, bytes.Repeat([]byte{1}, 64)...)}),
		"point at infinity": forge(ssh.KeyAlgoECDSA256, struct {
			Curve string
			P     []byte
		}{"nistp256", []byte{0}}),
		"curve of another type": forge(ssh.KeyAlgoECDSA256, struct {
			Curve string
			P     []byte
		}{"nistp384", []byte{4}}),
		"rsa 1024":                 forgeRSA(f4, modulus(t, 1024)),
		"rsa 2048":                 forgeRSA(f4, modulus(t, 2048)),
		"rsa 3071":                 forgeRSA(f4, modulus(t, 3071)),
		"rsa 8193":                 forgeRSA(f4, modulus(t, 8193)),
		"rsa 16384":                forgeRSA(f4, modulus(t, 16384)),
		"rsa exponent 3":           forgeRSA(big.NewInt(3), modulus(t, 3072)),
		"rsa exponent 1":           forgeRSA(big.NewInt(1), modulus(t, 3072)),
		"rsa even exponent":        forgeRSA(big.NewInt(65538), modulus(t, 3072)),
		"rsa exponent below 65537": forgeRSA(big.NewInt(65535), modulus(t, 3072)),
		"rsa huge exponent":        forgeRSA(modulus(t, 64), modulus(t, 3072)),
		"rsa negative modulus":     forgeRSA(f4, new(big.Int).Neg(modulus(t, 3072))),
		"rsa even modulus":         forgeRSA(f4, new(big.Int).Lsh(modulus(t, 3072), 1)),
		"rsa factor 997":           forgeRSA(f4, new(big.Int).Mul(modulus(t, 3072), big.NewInt(997))),
		"rsa of ROCA form":         forgeRSA(f4, rocaModulus(t)),
	} {
		key, err := ParsePublicKey(text)
		if key != nil || err == nil {
			t.Errorf("%s: was taken as %v", name, key)
			continue
		}
		wantCode(t, err, CodePublicKey)
	}
}

func dsaKey() *dsa.PublicKey {
	one := big.NewInt(1)
	return &dsa.PublicKey{Parameters: dsa.Parameters{
		P: new(big.Int).SetBit(one, 1023, 1), Q: new(big.Int).SetBit(one, 159, 1), G: big.NewInt(2),
	}, Y: big.NewInt(4)}
}

// rocaModulus has the form by which CVE-2017-15361 is recognised: a power of 65537
// modulo the product of the small primes.
func rocaModulus(t testing.TB) *big.Int {
	t.Helper()
	primorial := big.NewInt(1)
	for p := int64(2); p <= 167; p++ {
		if big.NewInt(p).ProbablyPrime(0) {
			primorial.Mul(primorial, big.NewInt(p))
		}
	}
	residue := new(big.Int).Exp(f4, big.NewInt(123456789), primorial)
	n := modulus(t, 3072)
	n.Sub(n, new(big.Int).Mod(n, primorial)).Add(n, residue)
	for hasSmallFactor(n) {
		n.Add(n, primorial)
	}
	return n
}

func testCertificate(t testing.TB) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{Key: newPublicKey(t), CertType: ssh.UserCert, ValidPrincipals: []string{"alice"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, newTestKey(t, "").Signer()); err != nil {
		t.Fatal(err)
	}
	return cert
}

// odd is a public key that x/crypto did not make.
type odd struct{ ssh.PublicKey }

func (odd) Type() string    { return "odd" }
func (odd) Marshal() []byte { return []byte("odd") }

func TestKeyObjectsThatWereNotParsedHereAreChecked(t *testing.T) {
	t.Parallel()
	cert := testCertificate(t)
	for name, key := range map[string]ssh.PublicKey{
		"nil":                               nil,
		"certificate":                       cert,
		"certificate over a certificate":    &ssh.Certificate{Key: cert},
		"certificate with nothing in it":    &ssh.Certificate{},
		"nil certificate":                   (*ssh.Certificate)(nil),
		"certificate under another wrapper": wrapped{cert},
		"foreign type":                      odd{},
		"dsa":                               sshKey(t, dsaKey()),
		"rsa 1024":                          sshKey(t, &rsa.PublicKey{N: modulus(t, 1024), E: 65537}),
	} {
		if _, err := checkPublicKey(key); err == nil {
			t.Errorf("%s: was taken", name)
		} else {
			wantCode(t, err, CodePublicKey)
		}
	}
}

// wrapped hides a certificate from a type assertion.
type wrapped struct{ ssh.PublicKey }

// FuzzParsePublicKey: what is taken is one of the allowed types, survives a round
// trip, and x/crypto reads the same key in it.
func FuzzParsePublicKey(f *testing.F) {
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzParsePublicKey"); err != nil || len(seeds) == 0 {
		f.Fatalf("no checked-in seeds: %v", err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParsePublicKey(text)
		if err != nil {
			wantCode(t, err, CodePublicKey)
			return
		}
		switch key.Type() {
		case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
			ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA:
		default:
			t.Fatalf("type %q was taken", key.Type())
		}
		again, err := ParsePublicKey(line(key))
		if err != nil || !bytes.Equal(again.Marshal(), key.Marshal()) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
		reference, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 || !bytes.Equal(reference.Marshal(), key.Marshal()) {
			t.Fatalf("x/crypto reads %v, options %q, rest %q, %v", reference, options, rest, err)
		}
	})
}
