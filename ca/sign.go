package ca

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"
)

// sign spends the draft. A panic below, in x/crypto or a key module, becomes an
// error: it must not end the process, whose other requests did nothing wrong.
func (d *draft) sign(signer *pinnedSigner) (cert *ssh.Certificate, err error) {
	if d.spent.Swap(true) {
		return nil, errors.New("sign certificate: the draft was signed before")
	}
	defer func() {
		if p := recover(); p != nil {
			cert, err = nil, fmt.Errorf("sign certificate: panic: %v", p)
		}
	}()
	cert = d.certificate()
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return cert, nil
}

// verify says whether cert, byte for byte, is the draft with a nonce and a good
// signature of signer. It finds a faulty signer, memory or library before a node
// does.
func (d *draft) verify(cert *ssh.Certificate, signer *pinnedSigner) error {
	if len(cert.Nonce) != 32 || bytes.Equal(cert.Nonce, make([]byte, 32)) {
		return errors.New("nonce is not 32 random bytes")
	}
	if cert.Signature == nil || cert.Signature.Format != signer.algorithm {
		return fmt.Errorf("signature is not of algorithm %q", signer.algorithm)
	}
	want := d.certificate()
	want.Nonce, want.Signature, want.SignatureKey = cert.Nonce, cert.Signature, signer.PublicKey()
	wire := cert.Marshal()
	if !bytes.Equal(wire, want.Marshal()) {
		return errors.New("content is not what was drafted")
	}
	// x/crypto takes a certificate without principals for everybody's.
	if want.Serial == 0 || len(want.ValidPrincipals) == 0 || want.ValidBefore <= want.ValidAfter {
		return errors.New("draft has no serial, no principal or no time")
	}
	return verifyWire(wire, want)
}

// verifyWire reads the certificate back as a node would.
func verifyWire(wire []byte, want *ssh.Certificate) error {
	parsed, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return fmt.Errorf("cannot be read back: %w", err)
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok || !bytes.Equal(cert.Marshal(), wire) {
		return errors.New("reads back as something else")
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{"source-address", "force-command"},
		Clock:                    func() time.Time { return unixTime(want.ValidAfter) },
	}
	for _, principal := range want.ValidPrincipals {
		if err := checker.CheckCert(principal, cert); err != nil {
			return fmt.Errorf("does not verify: %w", err)
		}
	}
	return nil
}
