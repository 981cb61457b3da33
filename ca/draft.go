package ca

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
	"sallyport/store"
)

const maxForceCommandBytes = 1 << 10

// A Request asks for a certificate. Only PublicKey is the caller's to choose;
// the rest can make the certificate narrower than its profile, never wider.
type Request struct {
	// Caller is whom the certificate is for.
	Caller identity.Identity
	// Profile is the name of a configured profile.
	Profile string
	// PublicKey is the key to certify; see [ParsePublicKey].
	PublicKey ssh.PublicKey
	// Principals, at most 16, are of the caller's login and the profile's extra
	// principals; nil means the login. A list that is empty but not nil is refused:
	// some readers of certificates take it for everybody.
	Principals []string
	// TTL is the lifetime, at least one second; 0 means the profile's default.
	// The profile's maximum and the token's expiry shorten it.
	TTL time.Duration
	// SourceAddresses, at most 32, lie within the profile's; nil means the profile's.
	SourceAddresses []netip.Prefix
	// ForceCommand, if set, is all that the certificate can run: at most 1 KiB of
	// printable ASCII.
	ForceCommand string

	// ephemeral: the key was made for this request and belongs to nobody else.
	ephemeral bool
}

// A draft is a certificate that passed every check and is not signed. It is good
// for one signature.
type draft struct {
	caller      identity.Identity
	profile     string
	key         ssh.PublicKey
	serial      uint64
	keyID       string
	principals  []string
	validAfter  uint64
	validBefore uint64
	options     map[string]string
	extensions  map[string]string
	drafted     time.Time
	spent       atomic.Bool

	// What findOwner has found; empty for an ephemeral key.
	ownership store.Entry
	keyAlsoOf string
}

// newDraft decides what to certify; it depends on its arguments only. An error is
// a [*RequestError], except when the clock is wrong.
func newDraft(r Request, p *profile, now time.Time, serial uint64, requestID string) (*draft, error) {
	if !r.Caller.Valid() {
		return nil, &RequestError{CodeIdentity, "token", "names nobody"}
	}
	key, err := checkPublicKey(r.PublicKey)
	if err != nil {
		return nil, err
	}
	principals, err := choosePrincipals(r, p)
	if err != nil {
		return nil, err
	}
	after, before, err := validity(r.TTL, p, now, r.Caller.Expires())
	if err != nil {
		return nil, err
	}
	options, err := criticalOptions(r, p)
	if err != nil {
		return nil, err
	}
	return &draft{
		caller:      r.Caller,
		profile:     p.name,
		key:         key,
		serial:      serial,
		keyID:       keyID(r.Caller, requestID),
		principals:  principals,
		validAfter:  after,
		validBefore: before,
		options:     options,
		extensions:  p.extensionsFor(r.Caller),
		drafted:     now,
	}, nil
}

// choosePrincipals returns at least one principal, and only the caller's own.
func choosePrincipals(r Request, p *profile) ([]string, error) {
	bad := func(format string, args ...any) error {
		return &RequestError{CodePrincipal, "principals", fmt.Sprintf(format, args...)}
	}
	login := r.Caller.Login()
	if !isPrincipal(login) {
		return nil, bad("login %q cannot be a principal", clip(login))
	}
	if r.Principals == nil {
		return []string{login}, nil
	}
	if n := len(r.Principals); n == 0 || n > maxPrincipals {
		return nil, bad("%d names are not 1 to %d", n, maxPrincipals)
	}
	for i, name := range r.Principals {
		switch {
		case !isPrincipal(name):
			return nil, bad("%q is not an account name", clip(name))
		case name != login && !slices.Contains(p.extra, name):
			return nil, bad("%q is not yours", clip(name))
		case slices.Contains(r.Principals[:i], name):
			return nil, bad("%q stands twice", clip(name))
		}
	}
	return slices.Clone(r.Principals), nil
}

// validity returns the times of a certificate in Unix seconds. It calculates in
// int64 and checks before it casts: in uint64, a negative lifetime is for ever.
func validity(ttl time.Duration, p *profile, now, tokenExpires time.Time) (after, before uint64, err error) {
	switch {
	case ttl == 0:
		ttl = p.ttl
	case ttl < time.Second:
		return 0, 0, &RequestError{CodeTTL, "ttl", fmt.Sprintf("%s is less than one second", ttl)}
	}
	left := tokenExpires.Sub(now) // saturates, so that a far expiry cannot wrap
	if left <= 0 {
		return 0, 0, &RequestError{CodeIdentity, "token", "has expired"}
	}
	ttl = min(ttl, p.max)
	if left < ttl {
		ttl = min(ttl, left+p.grace)
	}
	from, to := now.Add(-p.backdate).Unix(), now.Add(ttl).Unix()
	if to <= now.Unix() {
		return 0, 0, &RequestError{CodeIdentity, "token", "expires too soon"}
	}
	if from <= 0 || to <= from {
		return 0, 0, fmt.Errorf("clock is wrong: validity would be from %d to %d", from, to)
	}
	return uint64(from), uint64(to), nil //nolint:gosec // both are positive, as checked above
}

func criticalOptions(r Request, p *profile) (map[string]string, error) {
	options := make(map[string]string)
	networks, err := chooseSources(r.SourceAddresses, p.sources)
	if err != nil {
		return nil, err
	}
	if len(networks) > 0 {
		options["source-address"] = joinNetworks(networks)
	}
	if r.Caller.Narrow() && r.ForceCommand == "" {
		r.ForceCommand = identity.NarrowCommand
	}
	if r.ForceCommand == "" {
		return options, nil
	}
	if r.Caller.Narrow() && r.ForceCommand != identity.NarrowCommand {
		return nil, &RequestError{CodeForceCommand, "force_command", "is another than " + identity.NarrowCommand + ", and the caller may run no commands"}
	}
	unprintable := func(c rune) bool { return c < ' ' || c > '~' }
	if len(r.ForceCommand) > maxForceCommandBytes || strings.ContainsFunc(r.ForceCommand, unprintable) ||
		strings.TrimSpace(r.ForceCommand) == "" {
		return nil, &RequestError{
			CodeForceCommand, "force_command",
			fmt.Sprintf("is not 1 to %d bytes of printable ASCII", maxForceCommandBytes),
		}
	}
	options["force-command"] = r.ForceCommand
	return options, nil
}

// chooseSources returns the requested networks if all lie within allowed ones.
func chooseSources(requested, allowed []netip.Prefix) ([]netip.Prefix, error) {
	bad := func(detail string) error {
		return &RequestError{CodeSourceAddress, "source_address", detail}
	}
	if requested == nil {
		return allowed, nil
	}
	if len(requested) == 0 {
		return nil, bad("list is empty")
	}
	if len(requested) > maxSourceAddresses {
		return nil, bad(fmt.Sprintf("more than %d networks", maxSourceAddresses))
	}
	for _, n := range requested {
		if err := checkNetwork(n); err != nil {
			return nil, bad(err.Error())
		}
		within := func(a netip.Prefix) bool { return a.Bits() <= n.Bits() && a.Contains(n.Addr()) }
		if len(allowed) > 0 && !slices.ContainsFunc(allowed, within) {
			return nil, bad(fmt.Sprintf("%q is outside the addresses of the profile", n))
		}
	}
	return requested, nil
}

// joinNetworks writes a list as sshd reads it: comma-separated, no spaces.
func joinNetworks(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, ",")
}

// certificate returns a new unsigned certificate, which shares nothing with the
// draft: what happens to it while signing cannot change the draft.
func (d *draft) certificate() *ssh.Certificate {
	return &ssh.Certificate{
		Key:             d.key,
		Serial:          d.serial,
		CertType:        ssh.UserCert,
		KeyId:           d.keyID,
		ValidPrincipals: slices.Clone(d.principals),
		ValidAfter:      d.validAfter,
		ValidBefore:     d.validBefore,
		Permissions: ssh.Permissions{
			CriticalOptions: maps.Clone(d.options),
			Extensions:      maps.Clone(d.extensions),
		},
	}
}
