// Package sshdconfig writes the sshd_config text that lets a login node trust Sallyport, and no more than it must.
//
// All that concerns logins stands in one Match block for the addresses of Sallyport: its CA is trusted from nowhere else, and a
// broken trust file or revocation list shuts out Sallyport, never the administrators. What sshd knows only outside of Match
// blocks is a part of its own. Each line carries its reason.
//
// The text is as good as its place: the first Match block that sets a keyword wins, so this one must stand before the site's own.
// Facts by keyword and version were read from servconf.c of OpenSSH 7.4 to 10.5 and tried with 9.2.
package sshdconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
)

// Config describes a node's side of the trust. The zero value of a field is the default that its comment names.
type Config struct {
	// Addresses are those that Sallyport connects from: at least one, without host bits. Needed.
	Addresses []netip.Prefix
	// TrustedUserCAKeys is the path of the file with the CA's public keys. Empty: DefaultTrustedUserCAKeys.
	TrustedUserCAKeys string
	// RevokedKeys is the path of the key revocation list. Empty: DefaultRevokedKeys.
	RevokedKeys string
	// CAFingerprints ("SHA256:...") are printed as a comment: what an administrator should find in TrustedUserCAKeys.
	CAFingerprints []string
	// CASignatureAlgorithms are those that the CA may sign with. Empty: ssh-ed25519, which fits the default CA key.
	CASignatureAlgorithms []string
	// DenyGroups are groups whose members may not log in through Sallyport. Empty: DefaultDenyGroups.
	DenyGroups []string
	// MaxSessions limits concurrent commands and transfers per connection. 0: 64. At most 1000.
	MaxSessions int
	// MaxStartups limits connections that have not authenticated, over all of the node, "start:rate:full". Empty: 200:30:1000.
	MaxStartups string
	// JumpTargets makes the node a jump host to these "host:port" and to nothing else. Empty: no forwarding of any kind.
	JumpTargets []string
	// Version is the sshd of the node. Zero: 8.0. Keywords that a node of this version does not know are comments.
	Version Version
}

// Where Sallyport's files are on a node, unless configured.
const (
	DefaultTrustedUserCAKeys = "/etc/ssh/sallyport/trusted_user_ca_keys"
	DefaultRevokedKeys       = "/etc/ssh/sallyport/revoked.krl"
)

// DefaultDenyGroups are the groups by which the common distributions give administrator rights.
func DefaultDenyGroups() []string { return []string{"root", "wheel", "sudo", "adm", "daemon"} }

// Version is a version of OpenSSH, without its "p" number, which names no keywords.
type Version struct{ Major, Minor int }

// oldestKnown is the oldest version whose keywords were read; assumed is the one of the zero Version (RHEL 8).
var (
	oldestKnown = Version{7, 4}
	assumed     = Version{8, 0}
)

var versionText = regexp.MustCompile(`^(?:.*OpenSSH_)?([0-9]{1,3})\.([0-9]{1,3})(?:p[0-9].*|[ ,].*)?$`)

// ParseVersion reads "9.2", "9.2p1", or a line that holds "OpenSSH_9.2p1": a banner or what `ssh -V` prints.
func ParseVersion(text string) (Version, error) {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return Version{}, fmt.Errorf("%q is no version of OpenSSH, such as 9.2", text)
	}
	major, _ := strconv.Atoi(m[1]) // digits by the pattern
	minor, _ := strconv.Atoi(m[2])
	return Version{major, minor}, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (v Version) before(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

// ParseAddress reads an address or a CIDR prefix without host bits.
func ParseAddress(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		prefix := netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
		return prefix, errors.Join(zoneError(addr), checkAddress(prefix))
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a CIDR prefix", text)
	}
	return prefix, checkAddress(prefix)
}

func zoneError(addr netip.Addr) error {
	if addr.Zone() != "" {
		return fmt.Errorf("address %q: a zone means nothing on another host", addr)
	}
	return nil
}

// checkAddress refuses what sshd does not take (match.c, addr.c) and what would trust the CA from everywhere.
func checkAddress(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("addresses: an empty prefix")
	case p.Bits() == 0:
		return fmt.Errorf("addresses: %q would trust the CA from everywhere", p)
	case p != p.Masked():
		return fmt.Errorf("addresses: %q has bits beyond its mask; did you mean %q?", p, p.Masked())
	case p.Addr().Is4In6():
		return fmt.Errorf("addresses: %q: write the IPv4 address, sshd compares that", p)
	}
	return nil
}

var (
	pathText        = regexp.MustCompile(`^(/[A-Za-z0-9][A-Za-z0-9._-]*)+$`)
	groupText       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@-]*$`)
	fingerprintText = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)
	startupsText    = regexp.MustCompile(`^([1-9][0-9]{0,5}):([1-9][0-9]{0,2}):([1-9][0-9]{0,5})$`)
	hostText        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)
)

// caSignatureAlgorithms are those of OpenSSH's own default list, and no SHA-1.
func caSignatureAlgorithms() []string {
	return []string{
		"ssh-ed25519", "sk-ssh-ed25519@openssh.com",
		"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com",
		"rsa-sha2-512", "rsa-sha2-256",
	}
}

// withDefaults returns the configuration with every field set.
func (c Config) withDefaults() Config {
	if c.TrustedUserCAKeys == "" {
		c.TrustedUserCAKeys = DefaultTrustedUserCAKeys
	}
	if c.RevokedKeys == "" {
		c.RevokedKeys = DefaultRevokedKeys
	}
	if len(c.CASignatureAlgorithms) == 0 {
		c.CASignatureAlgorithms = []string{"ssh-ed25519"}
	}
	if len(c.DenyGroups) == 0 {
		c.DenyGroups = DefaultDenyGroups()
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 64
	}
	if c.MaxStartups == "" {
		c.MaxStartups = "200:30:1000"
	}
	if c.Version == (Version{}) {
		c.Version = assumed
	}
	return c
}

// validate reports every mistake. A value goes into the text as it is, so each is held to a list of characters that means
// nothing else to sshd.
func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Addresses) == 0 {
		bad("addresses: at least one of Sallyport is needed")
	}
	for _, a := range c.Addresses {
		errs = append(errs, checkAddress(a))
	}
	for _, path := range []string{c.TrustedUserCAKeys, c.RevokedKeys} {
		if !pathText.MatchString(path) {
			bad("path %q is not absolute or holds other characters than letters, digits, dot, dash and underscore", path)
		}
	}
	eachMatches(bad, "ca fingerprints", c.CAFingerprints, fingerprintText)
	eachMatches(bad, "deny groups", c.DenyGroups, groupText)
	for _, a := range c.CASignatureAlgorithms {
		if !slices.Contains(caSignatureAlgorithms(), a) {
			bad("ca signature algorithms: %q is not one of %q", a, caSignatureAlgorithms())
		}
	}
	if c.MaxSessions < 1 || c.MaxSessions > 1000 {
		bad("max sessions: %d is not between 1 and 1000", c.MaxSessions)
	}
	if !isStartups(c.MaxStartups) {
		bad("max startups: %q is not start:rate:full with a rate of 1 to 100 and start up to full", c.MaxStartups)
	}
	for _, target := range c.JumpTargets {
		if !isHostPort(target) {
			bad("jump targets: %q is not host:port", target)
		}
	}
	if c.Version.before(oldestKnown) {
		bad("version: OpenSSH %v is older than %v", c.Version, oldestKnown)
	}
	return errors.Join(errs...)
}

func eachMatches(bad func(string, ...any), field string, values []string, pattern *regexp.Regexp) {
	for _, v := range values {
		if !pattern.MatchString(v) {
			bad("%s: %q does not match %s", field, v, pattern)
		}
	}
}

func isStartups(text string) bool {
	m := startupsText.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	start, _ := strconv.Atoi(m[1]) // digits by the pattern
	rate, _ := strconv.Atoi(m[2])
	full, _ := strconv.Atoi(m[3])
	return start <= full && rate <= 100
}

// isHostPort takes no port 0 and no wildcard, which PermitOpen would.
func isHostPort(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" || hostText.MatchString(host)
}
