package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of a record. A longer string is cut and ends with "…", and the record has the
// SHA-256 of the whole under its name and "_sha256"; more details, or a detail whose name
// is not allowed, are a mistake of the program and fail.
const (
	// MaxFieldBytes is how much of one string a record keeps.
	MaxFieldBytes = 512
	// MaxLongBytes is how much it keeps of a command that the configuration wants recorded, of
	// the principals of a certificate, and of a signature of the log.
	MaxLongBytes = 4096
	// MaxDetails is how many entries Event.Detail may have.
	MaxDetails = 32

	maxDetailName = 64
)

// membersOf returns the members of the record that come from the caller, each
// with a comma in front, in a fixed order.
func membersOf(r Request, e Event) (b []byte, err error) {
	if e.Action == "" {
		return nil, errors.New("event has no action")
	}
	if len(e.Detail) > MaxDetails {
		return nil, fmt.Errorf("event %q has %d details, at most %d are taken", e.Action, len(e.Detail), MaxDetails)
	}
	for _, f := range [...]struct{ name, value string }{
		{"event.action", string(e.Action)},
		{"event.outcome", string(e.Outcome)},
		{"event.reason", e.Reason},
		{"sallyport.issuer", e.Issuer},
		{"user.id", e.Subject},
		{"user.name", e.Login},
		{"source.ip", r.SourceIP},
		{"http.request.id", r.ID},
		{"sallyport.client_request_id", r.ClientID},
		{"trace.id", TraceID(r.Traceparent)},
		{"sallyport.system", e.System},
		{"destination.address", e.Node},
	} {
		b = appendDigest(appendField(b, f.name, f.value), f.name, f.value)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
		if !validDetail(name) {
			return nil, fmt.Errorf("event %q has a detail named %.80q", e.Action, name)
		}
		b = appendField(b, "sallyport."+name, e.Detail[name])
		if _, there := e.Detail[name+digestOf]; !there {
			b = appendDigest(b, "sallyport."+name, e.Detail[name])
		}
	}
	return b, nil
}

// validDetail accepts snake_case names that no field of our own has.
func validDetail(name string) bool {
	switch name {
	case "issuer", "system", "prev", "client_request_id":
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return name != "" && len(name) <= maxDetailName
}

// appendField appends `,"name":"value"`, or nothing if there is no value.
func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":"`...)
	b = appendText(b, cut(value, mostOf(name)))
	return append(b, '"')
}

// digestOf ends the name of a field with the digest of another one.
const digestOf = "_sha256"

// appendDigest appends the digest of a value that appendField cuts.
func appendDigest(b []byte, name, value string) []byte {
	if len(value) <= mostOf(name) {
		return b
	}
	sum := sha256.Sum256([]byte(value))
	return appendField(b, name+digestOf, hex.EncodeToString(sum[:]))
}

// mostOf is how many bytes of a field are kept.
func mostOf(name string) int {
	switch name {
	case "sallyport.command", "sallyport.principals", "sallyport.signature": // RSA's have some 1,500
		return MaxLongBytes
	}
	return MaxFieldBytes
}

// cut keeps whole characters of at most so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most - len("…")
	for i := 0; i < utf8.UTFMax-1 && !utf8.RuneStart(s[end]); i++ {
		end--
	}
	return s[:end] + "…"
}

// appendText appends s as the inside of a JSON string. Whatever a terminal might
// act on or hide (control, format and bidirectional characters, odd spaces) is
// escaped, so a record is one line that can be read as it is; bytes that are not
// UTF-8 become U+FFFD.
func appendText(b []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r) // JSON escapes have 16 bits
			b = appendEscape(appendEscape(b, high), low)
		default:
			b = appendEscape(b, r)
		}
	}
	return b
}

func appendEscape(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&0xf], digits[r>>8&0xf], digits[r>>4&0xf], digits[r&0xf])
}
