package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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

// trustedKeys is GET /v1/ca/trusted-user-ca-keys.
func (a *API) trustedKeys(w http.ResponseWriter, r *http.Request) error {
	return serveShared(w, r, "text/plain; charset=utf-8", a.cfg.Certificates.TrustBundle())
}

// revokedKeys is GET /v1/ca/revoked-keys. A client that has the list, and prefers to
// wait for the next one, is told when it is there.
func (a *API) revokedKeys(w http.ResponseWriter, r *http.Request) error {
	list := a.cfg.Certificates.RevocationList()
	if wait := preferredWait(r); wait > 0 && hasBytes(r, list) {
		list = a.awaitRevocations(w, r, list, wait)
	}
	return serveShared(w, r, "application/octet-stream", list)
}

// manifest is GET /v1/ca/manifest.
func (a *API) manifest(w http.ResponseWriter, r *http.Request) error {
	text, _, err := a.cfg.Distribution.Manifest(r.Context())
	if err != nil {
		return err
	}
	return serveShared(w, r, mediaJSON, text)
}

// manifestSignature is GET /v1/ca/manifest.sig.
func (a *API) manifestSignature(w http.ResponseWriter, r *http.Request) error {
	_, signature, err := a.cfg.Distribution.Manifest(r.Context())
	if err != nil {
		return err
	}
	return serveShared(w, r, "text/plain; charset=utf-8", signature)
}

// serveShared answers with bytes that are for everyone. What login nodes poll
// needs no token: public keys and a revocation list are no secrets, and a node
// that cannot fetch them keeps trusting what it should not. Caches must ask each
// time.
func serveShared(w http.ResponseWriter, r *http.Request, mediaType string, data []byte) error {
	media, _, _ := strings.Cut(mediaType, ";")
	if _, err := negotiate(r, media); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-cache")
	serveBytes(w, r, mediaType, data)
	return nil
}

// serveBytes answers with a strong ETag, or with 304 to a client that has the
// bytes (RFC 9110 §13.1.2).
func serveBytes(w http.ResponseWriter, r *http.Request, mediaType string, data []byte) {
	h := w.Header()
	h.Set("ETag", tagOf(data))
	if hasBytes(r, data) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // a client that is gone needs no answer
}

func tagOf(data []byte) string {
	sum := sha256.Sum256(data)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// hasBytes says whether the client has the bytes, by its If-None-Match.
func hasBytes(r *http.Request, data []byte) bool {
	tag := tagOf(data)
	for known := range strings.SplitSeq(strings.Join(r.Header.Values("If-None-Match"), ","), ",") {
		if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == tag || known == "*" {
			return true
		}
	}
	return false
}
