package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A check says what is wrong with a value, in words that name what is allowed;
// "" means nothing. The rule is the text of a check tag.

var (
	aliasPattern  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,15}$`)
	systemPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	loginPattern  = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}$`)
	caNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

	fingerprintPattern = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)
)

// checkText checks one string, alone or of a list.
func checkText(rule, s string) string {
	switch rule {
	case "":
		return ""
	case "hostport":
		return checkHostPort(s, "login1.example.org:22 or [::1]:22")
	case "listen":
		return checkHostPort(s, "127.0.0.1:8080, [::1]:8080 or :8443")
	case "cidr":
		if _, err := netip.ParsePrefix(s); err != nil {
			return "must be a network such as 192.0.2.0/24 or 2001:db8::/32"
		}
		return ""
	case "url":
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.Fragment != "" {
			return "must be a URL such as https://idp.example.org/realm"
		}
		return ""
	case "regexp":
		if _, err := regexp.Compile(s); err != nil {
			return "must be a regular expression (RE2 syntax)"
		}
		return ""
	case "alias":
		return matches(aliasPattern, s, "must be 1 to 16 of a-z, 0-9 and '-', beginning with a letter")
	case "system":
		return matches(systemPattern, s, "must be 1 to 63 of a-z, 0-9, '.', '_' and '-'")
	case "fingerprint":
		return matches(fingerprintPattern, s, "must be a fingerprint as ssh-keygen -l prints it: SHA256: and 43 characters")
	case "caname":
		return matches(caNamePattern, s, "must be 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', beginning with a letter or digit")
	case "folder":
		if !path.IsAbs(s) || path.Clean(s) != s {
			return "must be an absolute path without '.', '..' and a slash at its end, such as /home"
		}
		return ""
	case "login":
		return matches(loginPattern, s, "must be an account name: 1 to 32 of a-z, 0-9, '_', '.' and '-'")
	}
	allowed := strings.Split(rule, "|")
	if !slices.Contains(allowed, s) {
		return "must be " + orList(allowed)
	}
	return ""
}

func matches(p *regexp.Regexp, s, otherwise string) string {
	if p.MatchString(s) {
		return ""
	}
	return otherwise
}

func checkHostPort(s, example string) string {
	host, port, err := net.SplitHostPort(s)
	n, convErr := strconv.Atoi(port)
	if err != nil || convErr != nil || n < 0 || n > 65535 || strings.ContainsAny(host, " /@") {
		return "must be host:port, such as " + example
	}
	return ""
}

// checkInt checks a number against a rule "least..most".
func checkInt(rule string, n int64) string {
	low, high, found := strings.Cut(rule, "..")
	if !found {
		return ""
	}
	least, most := mustInt(low), mustInt(high)
	if n < least || n > most {
		return fmt.Sprintf("must be from %d to %d", least, most)
	}
	return ""
}

// checkDuration checks a time span against a rule "least..most".
func checkDuration(rule string, d time.Duration) string {
	low, high, found := strings.Cut(rule, "..")
	if !found {
		return ""
	}
	least, most := mustDuration(low), mustDuration(high)
	if d < least || d > most {
		return fmt.Sprintf("must be from %s to %s", low, high)
	}
	return ""
}

// Rules are constants of this program: one that does not parse is a bug.

func mustInt(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return n
}

func mustDuration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return d
}

func orList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}
