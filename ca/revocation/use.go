package revocation

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
)

// A Use is what somebody does, or has open, or asks for: who it is, as which accounts,
// and by what.
type Use struct {
	// Issuer is the URL of the identity provider. Where it is not on record (the ledger
	// of older versions has the alias alone, which may have been another's) it is empty,
	// and the subject alone counts: rather one certificate too many than one too few.
	Issuer, Subject string
	// Accounts are the login and whatever other accounts are used.
	Accounts []string
	// Keys are the fingerprints of keys without a certificate.
	Keys []string
	// Grants are the certificates.
	Grants []Grant
}

// A Grant is what counts of a certificate.
type Grant struct {
	Serial     uint64
	KeyID      string
	Principals []string
	Key        string // fingerprint
	// Issued is when, or the beginning of its validity, which is a little earlier.
	Issued time.Time
}

// UseOf is what a person does as the login, and as other accounts if there are any.
func UseOf(caller identity.Identity, others ...string) Use {
	return Use{Issuer: caller.Issuer(), Subject: caller.Subject(), Accounts: append([]string{caller.Login()}, others...)}
}

// GrantOf describes a certificate.
func GrantOf(c *ssh.Certificate) Grant {
	return Grant{
		Serial: c.Serial, KeyID: c.KeyId, Principals: c.ValidPrincipals, Key: ssh.FingerprintSHA256(c.Key),
		Issued: time.Unix(int64(c.ValidAfter), 0), //nolint:gosec // one beyond is before every time, and so revoked
	}
}

// Covers says whether the act revokes a use. It is the one rule that every layer
// follows: at admission, before signing, in the ledger and so in the list for nodes, in
// the cache of credentials, and for what is open.
func (a Act) Covers(u Use) bool {
	switch a.Kind {
	case User:
		// In any case of their letters: nodes with accounts of a directory tell "Alice" and
		// "alice" apart no more than that does.
		return slices.ContainsFunc(u.accounts(), func(name string) bool { return strings.ToLower(name) == strings.ToLower(a.Value) }) //nolint:staticcheck // as [Index] does, which EqualFold does not
	case Subject:
		issuer, subject, _ := strings.Cut(a.Value, "#")
		return u.Subject == subject && subject != "" && (u.Issuer == issuer || u.Issuer == "")
	case Key:
		return slices.Contains(u.Keys, a.Value) || slices.ContainsFunc(u.Grants, func(g Grant) bool { return g.Key == a.Value })
	case Serial:
		return slices.ContainsFunc(u.Grants, func(g Grant) bool { return strconv.FormatUint(g.Serial, 10) == a.Value })
	case KeyID:
		return slices.ContainsFunc(u.Grants, func(g Grant) bool { return g.KeyID == a.Value })
	case IssuedBefore:
		before, err := time.Parse(time.RFC3339, a.Value)
		return err == nil && slices.ContainsFunc(u.Grants, func(g Grant) bool { return g.Issued.Before(before) })
	}
	return false
}

// accounts are all that a use names.
func (u Use) accounts() []string {
	names := slices.Clone(u.Accounts)
	for _, g := range u.Grants {
		names = append(names, g.Principals...)
	}
	return names
}

// isAccount says whether a name can be an account, or a principal of a certificate.
func isAccount(name string) bool {
	if name == "" || len(name) > 64 || strings.EqualFold(name, "root") || strings.ContainsRune("+.@-", rune(name[0])) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_+.@-", r)
	})
}
