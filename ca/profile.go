package ca

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/identity"
)

// The built-in profiles.
const (
	// ProfileExecutor is for the executor's own logins: no extensions, hence no
	// terminal and no forwarding of any kind.
	ProfileExecutor = "executor"
	// ProfileJump is for the executor's logins on jump hosts: only
	// permit-port-forwarding, without which sshd opens no way to the next host.
	ProfileJump = "jump"
	// ProfileUser is for people who log in with ssh: permit-pty only.
	ProfileUser = "user"
)

const (
	defaultTTL    = 5 * time.Minute
	defaultMaxTTL = 15 * time.Minute
	defaultAge    = 60 * time.Second
	defaultGrace  = 30 * time.Second

	// Beyond these a configuration is a mistake, not a choice: what takes the
	// place of revocation is that certificates are short.
	mostTTL      = 24 * time.Hour
	mostBackdate = 5 * time.Minute
	mostGrace    = 5 * time.Minute

	maxSourceAddresses = 32
	maxPrincipals      = 16
)

// A ProfileConfig says what certificates of one kind look like.
type ProfileConfig struct {
	// Name is 1 to 32 bytes of [a-z0-9-].
	Name string
	// DefaultTTL is the lifetime when the request names none; 0 means 5 minutes,
	// or MaxTTL if that is shorter.
	DefaultTTL time.Duration
	// MaxTTL bounds every lifetime; 0 means 15 minutes, and 24 hours is the most.
	// A longer request is granted this much.
	MaxTTL time.Duration
	// Backdate is how long before now validity starts, for nodes whose clock is
	// behind; 0 means 60 seconds, and 5 minutes is the most.
	Backdate time.Duration
	// ExpiryGrace is how long a certificate may outlive the token that it was
	// issued for; 0 means 30 seconds, and 5 minutes is the most.
	ExpiryGrace time.Duration
	// Extensions are of permit-pty, permit-port-forwarding,
	// permit-agent-forwarding, permit-X11-forwarding and permit-user-rc. Nil means
	// those of the built-in profile of this name, or none; "executor" and "jump" may
	// have no others.
	Extensions []string
	// SourceAddresses are the networks that the certificate works from, at most
	// 32 (critical option source-address); empty means from anywhere.
	SourceAddresses []netip.Prefix
	// ExtraPrincipals are accounts that each caller of this profile may ask for
	// besides the login of the token, at most 16.
	ExtraPrincipals []string
}

// A profile is a ProfileConfig that was checked: whoever holds one need not ask
// again.
type profile struct {
	name       string
	ttl, max   time.Duration
	backdate   time.Duration
	grace      time.Duration
	extensions map[string]string
	sources    []netip.Prefix
	extra      []string
}

// compileProfiles checks the configured profiles and adds the built-in ones that
// they do not replace.
func compileProfiles(configs []ProfileConfig) (map[string]*profile, error) {
	var errs []error
	profiles := make(map[string]*profile)
	for _, c := range configs {
		p, err := c.compile()
		if err != nil {
			errs = append(errs, fmt.Errorf("profile %q: %w", c.Name, err))
			continue
		}
		if profiles[c.Name] != nil {
			errs = append(errs, fmt.Errorf("profile %q: configured twice", c.Name))
		}
		profiles[c.Name] = p
	}
	for _, name := range []string{ProfileExecutor, ProfileJump, ProfileUser} {
		if profiles[name] != nil {
			continue
		}
		p, err := ProfileConfig{Name: name}.compile()
		if err != nil {
			errs = append(errs, fmt.Errorf("profile %q: %w", name, err))
		}
		profiles[name] = p
	}
	return profiles, errors.Join(errs...)
}

func (c ProfileConfig) compile() (*profile, error) {
	p := &profile{
		name:     c.Name,
		max:      orDefault(c.MaxTTL, defaultMaxTTL),
		backdate: orDefault(c.Backdate, defaultAge),
		grace:    orDefault(c.ExpiryGrace, defaultGrace),
		sources:  slices.Clone(c.SourceAddresses),
		extra:    slices.Clone(c.ExtraPrincipals),
	}
	p.ttl = orDefault(c.DefaultTTL, min(defaultTTL, p.max))
	p.extensions = make(map[string]string)
	for _, e := range c.extensions() {
		p.extensions[e] = ""
	}
	return p, errors.Join(
		checkName(c.Name),
		checkSpan("max ttl", p.max, time.Second, mostTTL),
		checkSpan("default ttl", p.ttl, time.Second, p.max),
		checkSpan("backdate", p.backdate, 0, mostBackdate),
		checkSpan("expiry grace", p.grace, 0, mostGrace),
		c.checkExtensions(),
		checkNetworks(c.SourceAddresses),
		c.checkExtraPrincipals(),
	)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (c ProfileConfig) extensions() []string {
	if c.Extensions != nil {
		return c.Extensions
	}
	switch c.Name {
	case ProfileUser:
		return []string{"permit-pty"}
	case ProfileJump:
		return []string{"permit-port-forwarding"}
	}
	return nil
}

// nameFor tells credentials that run nothing from those of the same person that may: a
// profile of the configuration has no slash in its name.
func (p *profile) nameFor(caller identity.Identity) string {
	if caller.Narrow() {
		return p.name + "/" + identity.NarrowCommand
	}
	return p.name
}

// extensionsFor leaves only the way through a jump host to who may run no commands.
func (p *profile) extensionsFor(caller identity.Identity) map[string]string {
	if !caller.Narrow() {
		return p.extensions
	}
	left := make(map[string]string)
	if p.name == ProfileJump {
		left["permit-port-forwarding"] = ""
	}
	return left
}

func checkName(name string) error {
	odd := func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if name == "" || len(name) > 32 || strings.ContainsFunc(name, odd) {
		return errors.New("name is not 1 to 32 bytes of [a-z0-9-]")
	}
	return nil
}

func checkSpan(what string, d, least, most time.Duration) error {
	if d < least || d > most {
		return fmt.Errorf("%s %s is not between %s and %s", what, d, least, most)
	}
	return nil
}

func (c ProfileConfig) checkExtensions() error {
	var errs []error
	if (c.Name == ProfileExecutor || c.Name == ProfileJump) && len(c.Extensions) > 0 {
		errs = append(errs, errors.New("the extensions of the executor's own certificates are fixed"))
	}
	for i, e := range c.Extensions {
		switch e {
		case "permit-pty", "permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding", "permit-user-rc":
		default:
			errs = append(errs, fmt.Errorf("extension %q is not known", e))
		}
		if slices.Contains(c.Extensions[:i], e) {
			errs = append(errs, fmt.Errorf("extension %q stands twice", e))
		}
	}
	return errors.Join(errs...)
}

func checkNetworks(networks []netip.Prefix) error {
	var errs []error
	if len(networks) > maxSourceAddresses {
		errs = append(errs, fmt.Errorf("%d source addresses are more than %d", len(networks), maxSourceAddresses))
	}
	for _, n := range networks {
		if err := checkNetwork(n); err != nil {
			errs = append(errs, fmt.Errorf("source address: %w", err))
		}
	}
	return errors.Join(errs...)
}

// checkNetwork refuses what sshd cannot read (addrmatch.c: host bits that are set
// make the whole list invalid) and what restricts nothing.
func checkNetwork(n netip.Prefix) error {
	switch {
	case !n.IsValid():
		return errors.New("a network is not valid")
	case n.Addr().Is4In6():
		return fmt.Errorf("%q is an IPv4 network in IPv6 form", n)
	case n.Masked() != n:
		return fmt.Errorf("%q has host bits; did you mean %q?", n, n.Masked())
	case n.Bits() == 0:
		return fmt.Errorf("%q restricts nothing", n)
	}
	return nil
}

func (c ProfileConfig) checkExtraPrincipals() error {
	var errs []error
	if len(c.ExtraPrincipals) > maxPrincipals {
		errs = append(errs, fmt.Errorf("%d extra principals are more than %d", len(c.ExtraPrincipals), maxPrincipals))
	}
	for i, name := range c.ExtraPrincipals {
		if !isPrincipal(name) {
			errs = append(errs, fmt.Errorf("extra principal %q is not an account name, or is root", name))
		}
		if slices.Contains(c.ExtraPrincipals[:i], name) {
			errs = append(errs, fmt.Errorf("extra principal %q stands twice", name))
		}
	}
	return errors.Join(errs...)
}

// isPrincipal says whether sshd can only read name as that one account name. What
// identity allows as a login is stricter; this is the last line, for what reaches
// a certificate: no wildcard, comma, space or control character, no leading sign,
// never root.
func isPrincipal(name string) bool {
	if name == "" || len(name) > 64 || strings.EqualFold(name, "root") || strings.ContainsRune("+.@-", rune(name[0])) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return !isAlphanumeric(r) && !strings.ContainsRune("_+.@-", r) })
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
