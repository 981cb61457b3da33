package main

import (
	"fmt"
	"net/url"
	"reflect"
	"time"
)

// DPoPSection configures the proofs of tokens that are bound to a key.
type DPoPSection struct {
	// How old a proof may be, beyond the issuer's leeway. Each is good once.
	MaxAge time.Duration `key:"max_age" default:"1m" check:"5s..10m"`
	// Demand that a proof holds a nonce of ours, which clients learn from a first
	// refusal and then from each answer: proofs cannot be made ahead of time. The nonces
	// of one process are good there alone, and until it ends.
	Nonces bool `key:"nonces" default:"false"`
}

// checkBinding finds demands that no request could meet.
func (d *decoder) checkBinding(f *File) {
	s := f.Server
	if s.ClientCertificates && s.TLSCertificate == "" {
		d.fail("server.client_certificates", "needs server.tls_certificate: only who ends TLS sees a client's certificate, and no proxy's header is believed")
	}
	elsewhere := f.Executor.Enabled && (f.Executor.Credentials == "remote" || f.Executor.Credentials == "deic")
	for i, issuer := range f.Issuers {
		fail := func(format string, args ...any) {
			d.fail(fmt.Sprintf("issuers[%d].token_binding", i), "%q "+format, append([]any{issuer.TokenBinding}, args...)...)
		}
		switch issuer.TokenBinding {
		case "mtls":
			if !s.ClientCertificates {
				fail("needs server.client_certificates = true")
			}
		case "dpop", "either":
			if s.TLSCertificate == "" && len(s.PublicURLs) == 0 && !isLoopback(s.Listen) {
				fail("needs server.public_urls: a proof names the address that it is for, and behind a proxy only the configuration knows it")
			}
		}
		if elsewhere && issuer.TokenBinding != "any" {
			fail("and executor.credentials = %q exclude each other: a bound token cannot be passed on to another service", f.Executor.Credentials)
		}
	}
}

// checkPublicURLs refuses what is no address with perhaps a path below it.
func checkPublicURLs(c *trustCheck, key string, v reflect.Value) {
	for _, raw := range texts(v) {
		if u, err := url.Parse(raw); err == nil && (u.RawQuery != "" || u.Fragment != "" || u.User != nil) {
			c.d.fail(key, "a URL has a query, a user or a fragment")
		}
	}
}
