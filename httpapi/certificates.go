package httpapi

import (
	"bytes"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/identity"
	"sallyport/store/audit"
)

// userProfile is the certificate profile of keys that callers bring themselves.
const userProfile = "user"

// certificateAnswer is a certificate and what it says, for programs that cannot
// read it.
type certificateAnswer struct {
	Certificate   string    `json:"certificate"` // one line as in id_ed25519-cert.pub
	Serial        string    `json:"serial"`
	KeyID         string    `json:"key_id"`
	Principals    []string  `json:"principals"`
	ValidAfter    time.Time `json:"valid_after"`
	ValidBefore   time.Time `json:"valid_before"`
	CAFingerprint string    `json:"ca_fingerprint"`
}

// issue is POST /v1/certificates.
func (a *API) issue(w http.ResponseWriter, r *http.Request, caller identity.Identity) error {
	body, err := a.readObject(w, r, a.cfg.MaxCertificateBody)
	if err != nil {
		return err
	}
	req := ca.Request{
		Caller:          caller,
		Profile:         userProfile,
		Principals:      body.texts("principals"),
		TTL:             body.duration("ttl"),
		SourceAddresses: addresses(body, "source_address"),
		ForceCommand:    forcedCommand(body, "force_command"),
	}
	key := body.text("public_key")
	if !body.has("public_key") {
		body.refuse("public_key", "The field is required.")
	}
	if err := body.finish(); err != nil {
		return err
	}
	if req.PublicKey, err = ca.ParsePublicKey(key); err != nil {
		return a.refuseKey(r, caller, err)
	}
	cert, err := a.cfg.Certificates.Issue(r.Context(), req)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, certificateAnswer{
		Certificate:   string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(cert))),
		Serial:        strconv.FormatUint(cert.Serial, 10),
		KeyID:         cert.KeyId,
		Principals:    cert.ValidPrincipals,
		ValidAfter:    unixTime(cert.ValidAfter),
		ValidBefore:   unixTime(cert.ValidBefore),
		CAFingerprint: ssh.FingerprintSHA256(cert.SignatureKey),
	})
	return nil
}

// refuseKey records a key that never reached the authority, which records its
// own refusals.
func (a *API) refuseKey(r *http.Request, caller identity.Identity, cause error) error {
	err := a.cfg.Audit.Record(r.Context(), audit.Event{
		Action: audit.CertificateRefused, Outcome: audit.Failure, Reason: oneLine(cause.Error()),
		Issuer: caller.Alias(), Subject: caller.Subject(), Login: caller.Login(), Detail: caller.TokenDetail(),
	})
	if err != nil {
		return err
	}
	return cause
}

// addresses takes a list in the notation of OpenSSH's source-address: addresses
// and ranges, separated by commas. Absent is nil.
func addresses(o *object, field string) []netip.Prefix {
	text := o.text(field)
	if !o.has(field) {
		return nil
	}
	var list []netip.Prefix
	for item := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(item)
		if addr, bare := netip.ParseAddr(item); bare == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			o.refuse(field, `The field must be addresses or ranges (CIDR) separated by commas, such as "192.0.2.7,2001:db8::/32".`)
			return nil
		}
		list = append(list, prefix)
	}
	return list
}

// unixTime reads a certificate's time; those that package ca issues fit.
func unixTime(seconds uint64) time.Time {
	return time.Unix(int64(seconds), 0).UTC() //nolint:gosec // see above
}
