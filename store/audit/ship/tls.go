package ship

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// TLSConfig says who the receiver must be, and who we are.
type TLSConfig struct {
	// CA is a PEM file of the CAs that sign the receiver's certificate; the system's if
	// empty. Certificate and Key are PEM files of our own, if the receiver wants one.
	// All are read for each connection.
	CA, Certificate, Key string
	// ServerName is the name in the receiver's certificate; the host of its address if
	// empty.
	ServerName string
}

// load reads the files.
func (c TLSConfig) load(host string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%q has no certificate in PEM form", c.CA)
		}
	}
	if c.Certificate == "" && c.Key == "" {
		return cfg, nil
	}
	cert, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, err
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}

// Check reads the files, for who wants to know before a receiver is asked.
func (c TLSConfig) Check() error {
	_, err := c.load("localhost")
	return err
}

// tlsProblem says whether err is about certificates and not about the network.
func tlsProblem(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.AlertError](err)
	return ok
}

// loopback says whether a host is this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
