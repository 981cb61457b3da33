package executor

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// hostTrust is what known_hosts files say about one address.
type hostTrust struct {
	check ssh.HostKeyCallback
	// keys are the host keys of the address, authorities the CAs that may certify
	// one.
	keys, authorities []ssh.PublicKey
}

// checkKnownHosts says whether the files can be read and hold anything.
func checkKnownHosts(files []string) error {
	if _, err := knownhosts.New(files...); err != nil {
		return fmt.Errorf("known_hosts: %w", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("known_hosts: %w", err)
		}
		blank := func(line string) bool { return strings.TrimSpace(line) == "" || strings.TrimSpace(line)[0] == '#' }
		if !slices.ContainsFunc(strings.Split(string(text), "\n"), func(l string) bool { return !blank(l) }) {
			return fmt.Errorf("known_hosts: %q holds no host key", name)
		}
	}
	return nil
}

// loadHostTrust reads the files. It is done at each dial: a dial costs far more.
func loadHostTrust(files []string, address string) (hostTrust, error) {
	check, err := knownhosts.New(files...)
	if err != nil {
		return hostTrust{}, fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	t := hostTrust{check: check}
	// The package does not list what it knows of an address, except in the error
	// about a key that it does not know.
	nobody, err := ssh.NewPublicKey(make(ed25519.PublicKey, ed25519.PublicKeySize))
	if err != nil {
		return hostTrust{}, err
	}
	unknown, ok := errors.AsType[*knownhosts.KeyError](check(address, &net.TCPAddr{}, nobody))
	if !ok {
		return hostTrust{}, fmt.Errorf("%w: known_hosts has no answer for %s", ErrHostKey, address)
	}
	markers := make(map[string]map[int]bool)
	for _, line := range unknown.Want {
		if markers[line.Filename] == nil {
			if markers[line.Filename], err = authorityLines(line.Filename); err != nil {
				return hostTrust{}, err
			}
		}
		if markers[line.Filename][line.Line] {
			t.authorities = append(t.authorities, line.Key)
		} else {
			t.keys = append(t.keys, line.Key)
		}
	}
	return t, nil
}

// authorityLines returns the numbers of the lines with @cert-authority.
func authorityLines(name string) (map[int]bool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	lines := make(map[int]bool)
	number := 0
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		number++
		if bytes.HasPrefix(bytes.Trim(line, " \t"), []byte("@cert-authority")) {
			lines[number] = true
		}
	}
	return lines, nil
}

// algorithms orders the host key algorithms so that a host with keys of several
// types shows the one that is known: the client's order decides (RFC 4253 §7.1).
// Unknown types follow, so that an unexpected key is seen and refused by its
// fingerprint instead of by failing negotiation. Certificates are asked for only
// if a CA could vouch for them.
func (t hostTrust) algorithms() []string {
	var certificates, known, others []string
	supported := ssh.SupportedAlgorithms().HostKeys
	for _, algorithm := range supported {
		switch {
		case strings.Contains(algorithm, "-cert-v01@"):
			if len(t.authorities) > 0 {
				certificates = append(certificates, algorithm)
			}
		case slices.ContainsFunc(t.keys, func(k ssh.PublicKey) bool { return keyFormat(algorithm) == k.Type() }):
			known = append(known, algorithm)
		default:
			others = append(others, algorithm)
		}
	}
	return slices.Concat(certificates, known, others)
}

// keyFormat is the type of the keys that sign with an algorithm (RFC 8332 §3).
func keyFormat(algorithm string) string {
	if algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512 {
		return ssh.KeyAlgoRSA
	}
	return algorithm
}

// verify is the ssh.HostKeyCallback. It is stricter than package knownhosts in
// two points: the key of a CA is no host key, and a certificate without
// principals is good for no host (as of OpenSSH 10.3). Like ssh(1) it falls back
// from a certificate to the key in it.
func (t hostTrust) verify(address string, remote net.Addr, key ssh.PublicKey) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return t.verifyKey(address, remote, key)
	}
	err := t.check(address, remote, cert)
	if err == nil && len(cert.ValidPrincipals) == 0 {
		err = errors.New("host certificate names no host")
	}
	if err != nil && t.verifyKey(address, remote, cert.Key) == nil {
		return nil
	}
	return err
}

func (t hostTrust) verifyKey(address string, remote net.Addr, key ssh.PublicKey) error {
	if err := t.check(address, remote, key); err != nil {
		return err
	}
	if !slices.ContainsFunc(t.keys, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) }) {
		return errors.New("the key of a certificate authority is no host key")
	}
	return nil
}

// fingerprints lists what would have been accepted.
func (t hostTrust) fingerprints() []string {
	var all []string
	for _, key := range t.keys {
		all = append(all, ssh.FingerprintSHA256(key))
	}
	for _, ca := range t.authorities {
		all = append(all, "CA "+ssh.FingerprintSHA256(ca))
	}
	return all
}

// A hostKeyError says which key a node showed and which it should have.
type hostKeyError struct {
	node      string
	shown     ssh.PublicKey
	expected  []string
	complaint error
}

func (e *hostKeyError) Error() string {
	expected := "none"
	if len(e.expected) > 0 {
		expected = strings.Join(e.expected, ", ")
	}
	return fmt.Sprintf("%v: %s showed %s %s, known_hosts has %s: %v",
		ErrHostKey, e.node, e.shown.Type(), e.fingerprint(), expected, e.complaint)
}

func (e *hostKeyError) Unwrap() error { return ErrHostKey }

// fingerprint is that of the key itself, which is what ssh-keygen -l shows of a
// certificate.
func (e *hostKeyError) fingerprint() string {
	if cert, ok := e.shown.(*ssh.Certificate); ok {
		return ssh.FingerprintSHA256(cert.Key) + " certified by " + ssh.FingerprintSHA256(cert.SignatureKey)
	}
	return ssh.FingerprintSHA256(e.shown)
}
