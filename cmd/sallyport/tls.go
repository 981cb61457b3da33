package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificateFiles serves a TLS certificate from files, and reads them again when
// they change. A pair that cannot be read leaves the last good one in use.
type certificateFiles struct {
	certPath, keyPath string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	// checking is held by the one handshake that looks at the files; it guards
	// what follows. The others go on with the current certificate.
	checking sync.Mutex
	stamp    [2]time.Time
	checked  time.Time
}

// tlsCheckInterval is how often the files are looked at, at most.
const tlsCheckInterval = time.Second

func withTLS(l net.Listener, s ServerSection, log *slog.Logger) (net.Listener, error) {
	files := &certificateFiles{certPath: s.TLSCertificate, keyPath: s.TLSKey, log: log}
	if err := files.load(); err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: files.get,
		NextProtos:     []string{"h2", "http/1.1"},
	}
	if s.ClientCertificates {
		// Who signed it does not matter: a token names the one that is good for it (RFC 8705
		// §3), and the handshake proves that the client has its key.
		cfg.ClientAuth = tls.RequestClientCert
	}
	return tls.NewListener(l, cfg), nil
}

// ownNames says which host names are in the service's certificate, or is nil without TLS.
func ownNames(s ServerSection) func(host string) bool {
	if s.TLSCertificate == "" {
		return nil
	}
	files := &certificateFiles{certPath: s.TLSCertificate, keyPath: s.TLSKey, log: slog.New(slog.DiscardHandler)}
	return func(host string) bool {
		pair, err := files.get(nil)
		return err == nil && pair != nil && pair.Leaf != nil && pair.Leaf.VerifyHostname(host) == nil
	}
}

// load reads the pair; the caller holds checking, or nobody else has c yet.
func (c *certificateFiles) load() error {
	if info, err := os.Stat(c.keyPath); err == nil && info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("server.tls_key: %q can be read by everyone (mode %04o): chmod 600 %[1]s", c.keyPath, info.Mode().Perm())
	}
	stamp := c.stamps()
	pair, err := tls.LoadX509KeyPair(c.certPath, c.keyPath)
	if err != nil {
		return fmt.Errorf("server.tls_certificate: %w", err)
	}
	c.current.Store(&pair)
	c.stamp = stamp
	return nil
}

func (c *certificateFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.checking.TryLock() {
		defer c.checking.Unlock()
		c.reload()
	}
	return c.current.Load(), nil
}

// reload reads the pair again if it changed; the caller holds checking.
func (c *certificateFiles) reload() {
	if time.Since(c.checked) < tlsCheckInterval {
		return
	}
	c.checked = time.Now()
	if c.stamps() == c.stamp {
		return
	}
	if err := c.load(); err != nil {
		c.log.Error("the new TLS certificate is not usable; the old one stays", slog.String("error", err.Error()))
		return
	}
	c.log.Info("TLS certificate read again")
}

// stamps are the times of change of both files; the zero time if one is missing.
func (c *certificateFiles) stamps() [2]time.Time {
	var out [2]time.Time
	for i, path := range []string{c.certPath, c.keyPath} {
		if info, err := os.Stat(path); err == nil {
			out[i] = info.ModTime()
		}
	}
	return out
}
