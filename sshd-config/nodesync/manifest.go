package nodesync

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Manifest says which files a node must have. Its text is JSON laid out so that one value stands on one line: a shell script
// reads it with sed. Parse takes only text that Marshal makes, so both read the same.
type Manifest struct {
	// CA is the name of the authority: 1 to 64 of letters, digits, dot, dash and underscore.
	CA string
	// Version rises with each manifest and is at most MaxVersion. A node never goes back.
	Version int64
	// IssuedAt and ExpiresAt have a resolution of one second. From ExpiresAt on a node does not adopt it; one that has has a complaint,
	// not less trust.
	IssuedAt, ExpiresAt time.Time
	// Trust and Revocation are the two files.
	Trust, Revocation FileSum
	// Keys are the keys of the trust file in its order: the active one first. After a compromise without a standby no key is
	// active, and there may be none at all: then nobody logs in by a certificate, which is meant.
	Keys []Key
	// Canary is a certificate that the revocation list revokes, as a line of a public key file without comment; empty if there
	// is none. A node refuses a list that does not revoke it.
	Canary string
}

// A FileSum is the content of a file in short.
type FileSum struct {
	SHA256 string `json:"sha256"` // 64 lower-case hexadecimal digits
	Size   int64  `json:"size"`   // in bytes, up to MaxFile
}

// A Key is one line of the trust file.
type Key struct {
	Fingerprint string `json:"fingerprint"` // "SHA256:..." as ssh-keygen -l prints it
	State       string `json:"state"`       // "active" for the key that signs, the first; else such as "pending" or "retiring"
}

// StateActive is the state of the key that signs.
const StateActive = "active"

// MaxVersion is the greatest version: a number that JSON, shells and sed agree on.
const MaxVersion = 999_999_999_999_999

const maxKeys = 32

// ErrManifest is wrapped by every refusal of a manifest's text.
var ErrManifest = errors.New("the manifest is not valid")

// Sum returns the sum of a file.
func Sum(content []byte) FileSum {
	s := sha256.Sum256(content)
	return FileSum{SHA256: hex.EncodeToString(s[:]), Size: int64(len(content))}
}

// Marshal checks the manifest and returns its text.
func (m Manifest) Marshal() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	var b bytes.Buffer
	// Every text was held to characters that JSON does not escape.
	fmt.Fprintf(&b, "{\n  \"format\": 1,\n  \"ca\": \"%s\",\n  \"version\": %d,\n", m.CA, m.Version)
	fmt.Fprintf(&b, "  \"issued_at\": \"%s\",\n  \"expires_at\": \"%s\",\n", timeText(m.IssuedAt), timeText(m.ExpiresAt))
	fmt.Fprintf(&b, "  \"files\": {\n    \"%s\": %s,\n    \"%s\": %s\n  },\n", TrustFile, m.Trust, RevocationFile, m.Revocation)
	b.WriteString("  \"keys\": [\n")
	for i, k := range m.Keys {
		comma := ","
		if i == len(m.Keys)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, "    {\"fingerprint\": \"%s\", \"state\": \"%s\"}%s\n", k.Fingerprint, k.State, comma)
	}
	b.WriteString("  ]")
	if m.Canary != "" {
		fmt.Fprintf(&b, ",\n  \"canary\": \"%s\"", m.Canary)
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}

func (f FileSum) String() string {
	return fmt.Sprintf(`{"sha256": "%s", "size": %d}`, f.SHA256, f.Size)
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ParseManifest reads what Marshal wrote. The error wraps ErrManifest.
func ParseManifest(text []byte) (Manifest, error) {
	if len(text) > MaxManifest {
		return Manifest{}, fmt.Errorf("%w: it has more than %d bytes", ErrManifest, MaxManifest)
	}
	var raw struct {
		Format    int                `json:"format"`
		CA        string             `json:"ca"`
		Version   int64              `json:"version"`
		IssuedAt  time.Time          `json:"issued_at"`
		ExpiresAt time.Time          `json:"expires_at"`
		Files     map[string]FileSum `json:"files"`
		Keys      []Key              `json:"keys"`
		Canary    string             `json:"canary"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return Manifest{}, fmt.Errorf("%w: it cannot be read as JSON", ErrManifest)
	}
	if raw.Format != 1 {
		return Manifest{}, fmt.Errorf("%w: its format is %d, and only 1 is known here; update sallyport on this node", ErrManifest, raw.Format)
	}
	m := Manifest{
		CA: raw.CA, Version: raw.Version, IssuedAt: raw.IssuedAt, ExpiresAt: raw.ExpiresAt,
		Trust: raw.Files[TrustFile], Revocation: raw.Files[RevocationFile], Keys: raw.Keys, Canary: raw.Canary,
	}
	again, err := m.Marshal()
	if err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(again, text) {
		return Manifest{}, fmt.Errorf("%w: it is not laid out as this program writes it", ErrManifest)
	}
	return m, nil
}

var (
	nameText        = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	sumText         = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fingerprintText = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)
	stateText       = regexp.MustCompile(`^[a-z]{1,32}$`)
	canaryText      = regexp.MustCompile(`^[a-z0-9@.-]{1,64} [A-Za-z0-9+/]+={0,2}$`)
)

func (m Manifest) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(nameText.MatchString(m.CA), "ca %.80q does not match %s", m.CA, nameText)
	need(m.Version > 0 && m.Version <= MaxVersion, "version %d is not from 1 to %d", m.Version, MaxVersion)
	need(wholeSecond(m.IssuedAt) && wholeSecond(m.ExpiresAt) && m.ExpiresAt.After(m.IssuedAt), "it is not issued before it expires, in whole seconds of this age")
	for name, f := range map[string]FileSum{TrustFile: m.Trust, RevocationFile: m.Revocation} {
		need(sumText.MatchString(f.SHA256) && f.Size >= 0 && f.Size <= MaxFile, "%s has no SHA-256, or more than %d bytes", name, MaxFile)
	}
	need(m.Revocation.Size > 0, "an empty %s would revoke nobody", RevocationFile)
	need((m.Trust.Size > 0) == (len(m.Keys) > 0) && len(m.Keys) <= maxKeys, "it names %d keys, %d bytes, and at most %d keys are taken", len(m.Keys), m.Trust.Size, maxKeys)
	for i, k := range m.Keys {
		need(fingerprintText.MatchString(k.Fingerprint), "key %d: fingerprint %.80q", i+1, k.Fingerprint)
		need(stateText.MatchString(k.State) && (k.State != StateActive || i == 0), "key %d: state %.40q; only the first key may be active", i+1, k.State)
	}
	need(m.Canary == "" || len(m.Canary) <= 16<<10 && canaryText.MatchString(m.Canary) && strings.Contains(m.Canary, "-cert-v01@openssh.com "), "the canary is no certificate")
	return errors.Join(errs...)
}

func wholeSecond(t time.Time) bool {
	return t.Year() >= 2000 && t.Year() <= 9999 && t.Nanosecond() == 0
}
