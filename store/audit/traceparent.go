package audit

import "strings"

// CleanTraceparent returns s if it is a traceparent header of version 00 (W3C Trace
// Context, section 3.2): "00-", a trace id of 32 hex digits that are not all zero,
// "-", a parent id of 16 such, "-" and two digits of flags, all in lower case. Anything
// else is refused, not repaired: it goes to logs and to other services.
func CleanTraceparent(s string) (string, bool) {
	const length = len("00-") + 32 + len("-") + 16 + len("-00")
	if len(s) != length || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return "", false
	}
	trace, parent, flags := s[3:35], s[36:52], s[53:]
	for _, digits := range []string{trace, parent, flags} {
		if strings.Trim(digits, "0123456789abcdef") != "" {
			return "", false
		}
	}
	if strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "" {
		return "", false
	}
	return s, true
}

// TraceID returns the trace id of a clean traceparent, or "" of "".
func TraceID(traceparent string) string {
	if traceparent == "" {
		return ""
	}
	return traceparent[3:35]
}
