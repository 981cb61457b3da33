package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/identity/identitytest"
)

func startIssuer(t *testing.T) *identitytest.Issuer {
	t.Helper()
	issuer, err := identitytest.Start(identitytest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, issuer.Close()) })
	return issuer
}

// writePair writes a self-signed certificate with the given serial and its key.
func writePair(t *testing.T, certPath, keyPath string, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		certPath: {Type: "CERTIFICATE", Bytes: cert}, keyPath: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}
}

// servedSerial is the serial of the certificate that a new connection gets.
func servedSerial(t *testing.T, address string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // the certificate is what is asked about
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, conn.Close()) }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestTLSCertificateIsReadAgainAndABrokenOneLeavesTheLastInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePair(t, cert, key, 1)
	l, err := listenPublic(t.Context(), unbounded, ServerSection{Listen: "127.0.0.1:0", TLSCertificate: cert, TLSKey: key}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, l.Close()) }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	address := l.Addr().String()
	if got := servedSerial(t, address); got != 1 {
		t.Fatalf("serial %d, want 1", got)
	}
	writePair(t, cert, key, 2)
	eventually(t, "the new certificate is served", func() bool { return servedSerial(t, address) == 2 })
	if err := os.WriteFile(cert, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * tlsCheckInterval) // long enough for the files to be looked at
	if got := servedSerial(t, address); got != 2 {
		t.Errorf("serial %d after a broken file, want 2", got)
	}
}

func TestATLSKeyThatEveryoneCanReadIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePair(t, cert, key, 1)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := listenPublic(t.Context(), unbounded, ServerSection{Listen: "127.0.0.1:0", TLSCertificate: cert, TLSKey: key}, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("a key of mode 0644 was taken")
	}
}

func unbounded(_ string, l net.Listener, _, _ int) net.Listener { return l }
