package firecrest

import (
	"net/url"
	"strings"
)

// parseQuery takes a query as FirecREST does: only "&" separates parameters, and what is
// no escape is meant as it stands. Its web interface puts paths into queries as they
// are, and net/url would drop those with a ";" or a "%".
func parseQuery(raw string) url.Values {
	values := url.Values{}
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if name = unescape(name); name != "" {
			values.Add(name, unescape(value))
		}
	}
	return values
}

// unescape undoes the escapes of a query, and leaves what is none.
func unescape(s string) string {
	s = strings.ReplaceAll(s, "+", " ")
	var b strings.Builder
	for {
		plain, rest, ok := strings.Cut(s, "%")
		b.WriteString(plain)
		if !ok {
			return b.String()
		}
		const digits = 2
		if len(rest) >= digits {
			if c, err := url.PathUnescape("%" + rest[:digits]); err == nil {
				b.WriteString(c)
				s = rest[digits:]
				continue
			}
		}
		b.WriteByte('%')
		s = rest
	}
}
