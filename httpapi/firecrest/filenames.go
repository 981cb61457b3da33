package firecrest

import (
	"strings"
	"unicode/utf8"
)

// A name on a node is bytes, a text of JSON is not. Bytes that are no UTF-8 are shown
// as U+EF80 to U+EFFF, of the private use area (as in MirBSD), and taken in that form
// by every call, so that what a listing shows can be used. Names that have such
// characters themselves are shown byte by byte in the same way.
const (
	byteRunes     = 0xEF00
	firstByteRune = byteRunes + 0x80
	lastByteRune  = byteRunes + 0xFF
)

func isByteRune(r rune) bool { return r >= firstByteRune && r <= lastByteRune }

// shown is a name as clients see it.
func shown(name string) string {
	if utf8.ValidString(name) && !strings.ContainsFunc(name, isByteRune) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 || isByteRune(r) {
			for _, raw := range []byte(name[i : i+n]) {
				b.WriteRune(byteRunes + rune(raw))
			}
		} else {
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

// meant is the name that a client means.
func meant(text string) string {
	if !strings.ContainsFunc(text, isByteRune) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if isByteRune(r) {
			b.WriteByte(byte(r - byteRunes)) //nolint:gosec // below 256
		} else {
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}
