package ca

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"sallyport/identity"
)

// maxKeyIDBytes keeps serial and CA on sshd's log line, which ends after 1024
// bytes.
const maxKeyIDBytes = 128

// hashMark begins a field that stands for a longer or unprintable one.
const hashMark = "sha256="

// keyID is what sshd logs of a certificate: v1:alias:subject:login:request-id.
//
// It has exactly five fields, whatever the token says: a field outside
// [A-Za-z0-9._@=/+-], which leaves out ':' and all that could forge a log line,
// becomes "sha256=" and 28 hex digits of its SHA-256, and so does one that looks
// like such a hash. If the whole is longer than maxKeyIDBytes, the subject, then
// the request id, then the login are hashed until it fits: 127 bytes at most,
// since an alias has 16.
func keyID(caller identity.Identity, requestID string) string {
	return joinKeyID(caller.Alias(), caller.Subject(), caller.Login(), requestID)
}

func joinKeyID(alias, subject, login, requestID string) string {
	raw := [5]string{"v1", alias, subject, login, requestID}
	fields := raw
	for i, f := range raw {
		if !isPlainField(f) {
			fields[i] = hashField(f)
		}
	}
	for _, i := range []int{2, 4, 3} {
		if len(strings.Join(fields[:], ":")) > maxKeyIDBytes && len(fields[i]) > len(hashField("")) {
			fields[i] = hashField(raw[i])
		}
	}
	return strings.Join(fields[:], ":")
}

func isPlainField(s string) bool {
	return s != "" && !strings.HasPrefix(s, hashMark) && !strings.ContainsFunc(s, func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune("._@=/+-", r)
	})
}

func hashField(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hashMark + hex.EncodeToString(sum[:14])
}
