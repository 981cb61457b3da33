package firecrest

import (
	"bytes"
	"strconv"
)

// Python reads a name that is no UTF-8 with lone surrogates, U+DC80 to U+DCFF, for its
// bytes (PEP 383, surrogateescape), and its JSON encoder escapes them. encoding/json
// would take each for U+FFFD, and the call another file than was meant.

// bytesOfPython rewrites the escapes of such surrogates in a JSON text to those of the
// characters that [meant] takes for bytes. It is false if another half of a surrogate
// pair stands alone, which is no text. The text is changed in place.
func bytesOfPython(text []byte) bool {
	if !bytes.Contains(text, []byte(`\ud`)) && !bytes.Contains(text, []byte(`\uD`)) {
		return true
	}
	for i := 0; i < len(text); {
		unit, escaped := escapedUnit(text[i:])
		switch {
		case !escaped && text[i] == '\\':
			i += 2
		case !escaped:
			i++
		case unit >= 0xDC80 && unit <= 0xDCFF:
			copy(text[i+2:], "ef")
			i += 6
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return false
		case unit >= 0xD800 && unit <= 0xDBFF:
			second, ok := escapedUnit(text[i+6:])
			if !ok || second < 0xDC00 || second > 0xDFFF {
				return false
			}
			i += 12
		default:
			i += 6
		}
	}
	return true
}

// escapedUnit reads an escape such as \udc80 at the beginning of text.
func escapedUnit(text []byte) (unit uint64, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return unit, err == nil
}
