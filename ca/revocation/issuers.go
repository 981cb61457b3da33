package revocation

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An Issuer is an identity provider of the configuration.
type Issuer struct {
	// Alias and URL are its names today.
	Alias, URL string
	// Former are aliases and URLs that it had before: people who were revoked under one
	// of them are people of this issuer.
	Former []string
}

// Issuers are those of the configuration.
type Issuers []Issuer

// maxPerson bounds "URL#SUBJECT": a subject has 255 bytes (OpenID Connect Core §2).
const maxPerson = 1024

var errPerson = errors.New("is not ALIAS:SUBJECT or URL#SUBJECT, of an issuer and the subject of its tokens")

// person brings a person's name into its one form, URL#SUBJECT. It takes ALIAS:SUBJECT
// too, and URL:SUBJECT for an issuer that there is.
func (s Issuers) person(value string) (string, error) {
	name, subject, err := s.split(value)
	if err != nil {
		return "", fmt.Errorf("%q %w", clip(value), err)
	}
	issuer, ok := s.called(name)
	if len(s) == 0 && isURL(name) {
		return name + "#" + subject, nil // nobody has said which there are
	}
	if len(s) == 0 {
		return "", errors.New("issuers are not known here; give URL#SUBJECT")
	}
	if !ok {
		var known []string
		for _, i := range s {
			known = append(known, i.Alias)
		}
		return "", fmt.Errorf("there is no issuer %q; the configuration has %s", clip(name), strings.Join(known, ", "))
	}
	return issuer.URL + "#" + subject, nil
}

// split takes an issuer's name and a subject apart. A URL ends at the first "#", and
// may be followed by ":" only if it is one of the configuration, the longest of them, and
// what follows does not look like a port.
func (s Issuers) split(value string) (name, subject string, err error) {
	switch {
	case !isURL(value):
		name, subject, _ = strings.Cut(value, ":")
	case strings.Contains(value, "#"):
		name, subject, _ = strings.Cut(value, "#")
	default:
		for _, i := range s {
			for _, known := range append([]string{i.URL}, i.Former...) {
				if rest, ok := strings.CutPrefix(value, known+":"); ok && isURL(known) && len(known) > len(name) {
					name, subject = known, rest
				}
			}
		}
		if portAhead.MatchString(subject) {
			return "", "", errPerson
		}
	}
	if name == "" || subject == "" || len(value) > maxPerson || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", errPerson
	}
	return name, subject, nil
}

// portAhead is a subject in front of which a port was meant: that of an issuer that is
// not configured.
var portAhead = regexp.MustCompile(`\A[0-9]{1,5}[:/]`)

// called is the issuer that has a name, or had it before.
func (s Issuers) called(name string) (Issuer, bool) {
	if i := slices.IndexFunc(s, func(i Issuer) bool { return i.Alias == name || i.URL == name }); i >= 0 {
		return s[i], true
	}
	if i := slices.IndexFunc(s, func(i Issuer) bool { return slices.Contains(i.Former, name) }); i >= 0 {
		return s[i], true
	}
	return Issuer{}, false
}

// isURL tells the URL of an issuer from an alias, which has no slash.
func isURL(name string) bool {
	return strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://")
}
