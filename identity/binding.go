package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// A Presentation is a token as a client presented it, with what may prove that it is
// the client's own. What a token is not bound to is not looked at.
type Presentation struct {
	Token string
	// DPoP says that the token came under the scheme DPoP (RFC 9449 §7.1), not Bearer.
	DPoP bool
	// Proofs are the values of the DPoP headers; a token that is bound to a key needs
	// just one.
	Proofs []string
	// Method is that of the request. Addresses are the URLs under which the client may
	// have sent it, without query; one of them must be the proof's. They MUST be
	// addresses of this service, whatever the request says, or else a proof that was
	// made for another service would do.
	Method    string
	Addresses []string
	// Certificate is that of the client of the TLS connection, in DER, if this process
	// itself ended TLS and the handshake has shown that the client has its key.
	Certificate []byte
}

// Binding says what a token must be bound to.
type Binding string

// The bindings that a configuration can demand.
const (
	BindingAny    Binding = "any"    // nothing; but what a token is bound to is always proved
	BindingDPoP   Binding = "dpop"   // a key that each request proves (RFC 9449)
	BindingMTLS   Binding = "mtls"   // the client's certificate (RFC 8705 §3)
	BindingEither Binding = "either" // one of the two, or both
)

func (b Binding) known() bool {
	return slices.Contains([]Binding{"", BindingAny, BindingDPoP, BindingMTLS, BindingEither}, b)
}

// A binding is the "cnf" claim (RFC 7800): which key a client must prove. Whoever
// stole the token lacks that key.
type binding struct {
	key         string // RFC 9449 §6.1: the RFC 7638 thumbprint of a key
	certificate string // RFC 8705 §3.1: the SHA-256 of a certificate
}

// binding reads the claim. A member that is not understood refuses the token: it may
// be the one that counts.
func (c *claims) binding() (binding, error) {
	cnf := c.all["cnf"]
	if cnf == nil { // null is as good as absent, as with every claim
		return binding{}, nil
	}
	members, ok := cnf.(map[string]any)
	if !ok || len(members) == 0 {
		return binding{}, reject("cnf is no object with members")
	}
	var b binding
	for name, value := range members {
		thumb, ok := value.(string)
		sum, err := base64.RawURLEncoding.Strict().DecodeString(thumb)
		if !ok || err != nil || len(sum) != sha256.Size || strings.ContainsAny(thumb, "\r\n") {
			return binding{}, reject("cnf member %q is not a SHA-256 in base64url", clip(name))
		}
		switch name {
		case "jkt":
			b.key = thumb
		case "x5t#S256":
			b.certificate = thumb
		default:
			return binding{}, reject("the token is bound by %q, which is not supported", clip(name))
		}
	}
	return b, nil
}

// demands checks that a token is bound as the issuer's rule says.
func (iss *issuer) demands(b binding) error {
	ok := true
	switch iss.cfg.Binding {
	case BindingDPoP:
		ok = b.key != ""
	case BindingMTLS:
		ok = b.certificate != ""
	case BindingEither:
		ok = b != binding{}
	case BindingAny, "":
	}
	if !ok {
		return fmt.Errorf("%w: want %q, it is bound to %q", ErrBinding, iss.cfg.Binding, b)
	}
	return nil
}

// String is "dpop", "mtls", both with "+" between them, or "".
func (b binding) String() string {
	switch {
	case b.key != "" && b.certificate != "":
		return "dpop+mtls"
	case b.key != "":
		return "dpop"
	case b.certificate != "":
		return "mtls"
	}
	return ""
}

// shownBy checks that a presentation proves everything that the token is bound to.
func (b binding) shownBy(p Presentation) error {
	switch {
	case b.key != "" && !p.DPoP: // RFC 9449 §7.2: no downgrade
		return fmt.Errorf("%w: it is bound to a key and was sent as a bearer's", ErrBinding)
	case b.key == "" && p.DPoP: // RFC 9449 §7.1
		return fmt.Errorf("%w: it was sent under DPoP and is not bound to a key", ErrBinding)
	case b.certificate == "":
		return nil
	case len(p.Certificate) == 0:
		return fmt.Errorf("%w: it is bound to a certificate, and the connection to this process has none", ErrBinding)
	}
	sum := sha256.Sum256(p.Certificate)
	shown := base64.RawURLEncoding.EncodeToString(sum[:])
	if subtle.ConstantTimeCompare([]byte(shown), []byte(b.certificate)) != 1 {
		return fmt.Errorf("%w: the connection has another certificate than the one that it is bound to", ErrBinding)
	}
	return nil
}
