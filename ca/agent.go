package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const (
	// agentPrefix begins the source of a key that an agent holds.
	agentPrefix = "agent:"
	// agentTimeout bounds one question to the agent, the wait for a slot included:
	// an HSM in the next rack needs milliseconds, a touch of a FIDO key seconds.
	agentTimeout = 15 * time.Second
	// agentSlots bounds the questions at one time. An ssh-agent answers them one by
	// one; more would only use up its descriptors.
	agentSlots = 8
	// maxAgentBytes bounds the answer to one question.
	maxAgentBytes = 1 << 20
)

// IsAgent says whether the source of a key, as [OpenKey] takes it, names an
// ssh-agent and no file.
func IsAgent(source string) bool { return strings.HasPrefix(source, agentPrefix) }

// ParseAgent splits "agent:/path/to/socket#SHA256:…" into the path of the socket
// and the fingerprint of the key.
func ParseAgent(source string) (socket, fingerprint string, err error) {
	rest, ok := strings.CutPrefix(source, agentPrefix)
	i := strings.LastIndexByte(rest, '#')
	if !ok || i <= 0 {
		return "", "", fmt.Errorf("key %q is not of the form agent:/path/to/socket#SHA256:…", clip(source))
	}
	socket, fingerprint = rest[:i], rest[i+1:]
	const base64SHA256 = 43 // without padding, as ssh-add -l prints it
	if !strings.HasPrefix(fingerprint, "SHA256:") || len(fingerprint) != len("SHA256:")+base64SHA256 {
		return "", "", fmt.Errorf("key %q: %q is no fingerprint as \"ssh-add -l\" prints it", clip(source), clip(fingerprint))
	}
	if !filepath.IsAbs(socket) {
		return "", "", fmt.Errorf("key %q: path of the socket is not absolute", clip(source))
	}
	return socket, fingerprint, nil
}

// OpenKey opens a key where it lies: "agent:/path/to/socket#SHA256:…" is a key
// that an ssh-agent holds, anything else the path of a file (see [LoadKey]).
//
// The private half of an agent's key never enters this process. So keys in HSMs
// and on smart cards ("ssh-add -s LIBRARY", PKCS#11) and FIDO keys serve as CA
// keys, too. The fingerprint pins the key: another process behind the socket can
// refuse to sign, and nothing else. The passphrase must be empty: the agent has it.
// Errors wrap [ErrSigner] if the agent does not answer or lacks the key.
func OpenKey(source string, passphrase []byte) (*Key, error) {
	if !IsAgent(source) {
		return LoadKey(source, passphrase)
	}
	if len(passphrase) > 0 {
		return nil, fmt.Errorf("key %q: a passphrase was given, but the agent holds the key", clip(source))
	}
	socket, fingerprint, err := ParseAgent(source)
	if err != nil {
		return nil, err
	}
	s := &agentSigner{socket: socket, slots: make(chan struct{}, agentSlots), timeout: agentTimeout}
	if s.pub, err = s.find(fingerprint); err != nil {
		return nil, fmt.Errorf("key %q: %w", source, err)
	}
	// Nothing can be derived from a key that only signs. What is sealed lives
	// minutes, so its key need not outlive the process.
	root := make([]byte, 32)
	_, _ = rand.Read(root) // never fails: crypto/rand ends the process instead
	return &Key{signer: &pinnedSigner{inner: s, algorithm: signatureAlgorithm(s.pub)}, root: root, ready: s.ready}, nil
}

// Ready says whether the key can sign now: an agent may have gone, or have been
// locked or emptied. A key in a file is always ready.
func (k *Key) Ready(ctx context.Context) error {
	if k.ready == nil {
		return nil
	}
	return k.ready(ctx)
}

// agentSigner signs by asking an ssh-agent (draft-ietf-sshm-ssh-agent), over a new
// connection each time: an agent that was restarted is found again.
type agentSigner struct {
	socket  string
	pub     ssh.PublicKey
	slots   chan struct{}
	timeout time.Duration
}

// find returns the public half of the key with the fingerprint, if it may sign
// certificates.
func (s *agentSigner) find(fingerprint string) (ssh.PublicKey, error) {
	var found ssh.PublicKey
	err := s.ask(context.Background(), func(a agent.ExtendedAgent) error {
		keys, err := a.List()
		if err != nil {
			return err
		}
		for _, k := range keys {
			// A key and its certificate are two entries; only the key signs.
			pub, err := ssh.ParsePublicKey(k.Blob)
			if err == nil && ssh.FingerprintSHA256(pub) == fingerprint {
				found = pub
			}
		}
		if found == nil {
			return fmt.Errorf("none of its %d keys is %s", len(keys), fingerprint)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found, err = checkPublicKey(found); err != nil {
		return nil, fmt.Errorf("the agent's key: %w", err)
	}
	return found, nil
}

func (s *agentSigner) ready(ctx context.Context) error {
	return s.ask(ctx, func(a agent.ExtendedAgent) error {
		keys, err := a.List()
		if err != nil {
			return err
		}
		for _, k := range keys {
			if bytes.Equal(k.Blob, s.pub.Marshal()) {
				return nil
			}
		}
		return fmt.Errorf("it no longer holds %s", ssh.FingerprintSHA256(s.pub))
	})
}

func (s *agentSigner) PublicKey() ssh.PublicKey { return s.pub }

func (s *agentSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, signatureAlgorithm(s.pub))
}

// SignWithAlgorithm refuses a signature of another algorithm: an agent that does
// not know the flag answers with SHA-1.
func (s *agentSigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (sig *ssh.Signature, err error) {
	var flags agent.SignatureFlags
	if algorithm == ssh.KeyAlgoRSASHA512 {
		flags = agent.SignatureFlagRsaSha512
	}
	err = s.ask(context.Background(), func(a agent.ExtendedAgent) error {
		sig, err = a.SignWithFlags(s.pub, data, flags)
		return err
	})
	if err != nil {
		return nil, err
	}
	if sig.Format != algorithm {
		return nil, fmt.Errorf("%w: agent %q signed with %q in place of %q", ErrSigner, s.socket, clip(sig.Format), algorithm)
	}
	return sig, nil
}

// ask puts one question to the agent, within the timeout. Its errors wrap
// ErrSigner.
func (s *agentSigner) ask(ctx context.Context, question func(agent.ExtendedAgent) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.connect(ctx, func(conn net.Conn) error {
		return question(agent.NewClient(boundedConn{io.LimitReader(conn, maxAgentBytes), conn}))
	})
	if err != nil {
		return fmt.Errorf("%w: agent %q: %w", ErrSigner, s.socket, err)
	}
	return nil
}

func (s *agentSigner) connect(ctx context.Context, use func(net.Conn) error) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return errors.New("too many signatures are waiting")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", s.socket)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer is there, or the question failed
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	return use(conn)
}

// boundedConn reads from one and writes to the other.
type boundedConn struct {
	io.Reader
	io.Writer
}

// signatureAlgorithm is the one algorithm that a CA key signs with.
func signatureAlgorithm(pub ssh.PublicKey) string {
	if pub.Type() == ssh.KeyAlgoRSA {
		return ssh.KeyAlgoRSASHA512
	}
	return pub.Type()
}
