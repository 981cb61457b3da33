package identity

import (
	"net/url"
	"strings"
)

const maxAddressBytes = 4 << 10

// normalAddress is a URL in the one spelling in which "htu" and a request's address
// are compared (RFC 9449 §4.3; RFC 3986 §6.2.2 and §6.2.3): scheme and host in lower
// case, no port that is the scheme's own, percent-encoding in upper case and only
// where it is needed, no dot segments, at least "/" for a path, neither query nor
// fragment. False says that it is no http or https URL, or holds a user.
func normalAddress(raw string) (string, bool) {
	if len(raw) > maxAddressBytes {
		return "", false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" || u.User != nil {
		return "", false
	}
	host := strings.ToLower(u.Host)
	host = strings.TrimSuffix(host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
	return u.Scheme + "://" + strings.TrimSuffix(host, ":") + withoutDots(normalEscapes(u.EscapedPath())), true
}

// normalEscapes decodes what need not be encoded (RFC 3986 §2.3) and writes the rest
// in upper case. Net/url has checked that each "%" has two hex digits.
func normalEscapes(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		digits := path[i : i+3]
		i += 2
		if c, err := url.PathUnescape(digits); err == nil && unreserved(c[0]) {
			b.WriteString(c)
		} else {
			b.WriteString(strings.ToUpper(digits))
		}
	}
	return b.String()
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// withoutDots resolves "." and ".." segments (RFC 3986 §5.2.4). Empty segments stay.
func withoutDots(path string) string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	kept := segments[:0]
	for i, segment := range segments {
		last := i == len(segments)-1
		switch segment {
		case "..":
			kept = kept[:max(0, len(kept)-1)]
			fallthrough
		case ".":
			if last {
				kept = append(kept, "")
			}
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}
