// Package logreceiver starts real receivers of audit events on loopback ports, for
// tests: rsyslogd, and a collector of OpenTelemetry. They can be killed and started
// again, and tell what they have written.
package logreceiver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A Receiver is a program that takes events and writes them to a file.
type Receiver struct {
	// Address is host:port, CA the PEM file of the certificate's issuer: itself.
	Address, CA string

	command  func() *exec.Cmd
	output   string
	lines    func([]byte) ([]string, error)
	process  *exec.Cmd
	exited   chan struct{}
	complain string
}

// Start starts it and waits until it listens.
func (r *Receiver) Start(ctx context.Context) error {
	log, err := os.OpenFile(r.complain, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has a descriptor of its own
	process := r.command()
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = process.Wait() // it is killed
	}()
	r.process, r.exited = process, exited
	for {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", r.Address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-exited:
			text, _ := os.ReadFile(r.complain)
			return fmt.Errorf("%s has ended:\n%s", process, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill kills it, at whatever it is.
func (r *Receiver) Kill() {
	if r.process != nil {
		_ = r.process.Process.Kill()
		<-r.exited
	}
}

// Lines returns the records that it has written, in their order. A line that a kill has
// torn is left out.
func (r *Receiver) Lines() ([]string, error) {
	text, err := os.ReadFile(r.output)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.lines(text)
}

// whole returns the lines that have an end.
func whole(text []byte) (lines [][]byte) {
	for line := range bytes.Lines(text) {
		if line, ok := bytes.CutSuffix(line, []byte("\n")); ok {
			lines = append(lines, line)
		}
	}
	return lines
}

// certificate makes a key and a certificate for localhost and 127.0.0.1 that signs itself.
func certificate(dir string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	draft := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, draft, draft, private.Public(), private)
	if err != nil {
		return "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}

// freePort is one that nobody has at the moment.
func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
