package httpapi

import (
	"fmt"
	"net/http"
	"strconv"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/identity"
)

// deicAnswer is that of /{ca}/signJSON. The name on the system is the only
// principal; "resource", which DeiC's service fills, is left out.
type deicAnswer struct {
	Certificate string `json:"ssh_cert"`
	Login       string `json:"posix_username"`
}

// deicText is POST /{ca}/sign: the certificate alone, a line of text.
func (a *API) deicText(w http.ResponseWriter, r *http.Request) error {
	if _, err := negotiate(r, "text/plain"); err != nil {
		return err
	}
	cert, _, err := a.deicSign(w, r)
	if err != nil {
		return err
	}
	line := certificateLine(cert) + "\n"
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(line)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(line)) // a client that is gone needs no answer
	return nil
}

// deicJSON is POST /{ca}/signJSON.
func (a *API) deicJSON(w http.ResponseWriter, r *http.Request) error {
	if _, err := negotiate(r, mediaJSON); err != nil {
		return err
	}
	cert, caller, err := a.deicSign(w, r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, deicAnswer{Certificate: certificateLine(cert) + "\n", Login: caller.Login()})
	return nil
}

// deicSign certifies the key in the body for whom the token in the body stands
// for. It is the one call that must read a body, a bounded one, before it knows
// the caller; nothing but the token is looked at until the token is verified.
//
// The body is JSON whatever its Content-Type says: FirecREST sends it as
// text/plain, which is what its HTTP library makes of a string.
func (a *API) deicSign(w http.ResponseWriter, r *http.Request) (*ssh.Certificate, identity.Identity, error) {
	var nobody identity.Identity
	if pathValue(r, "ca") != a.cfg.Compat.DeiC {
		return nil, nobody, errRouteUnknown
	}
	body, err := a.readBody(w, r, a.cfg.MaxCertificateBody)
	if err != nil {
		return nil, nobody, err
	}
	token, text, resource, command := body.text("OTT"), body.text("PublicKey"), body.text("Resource"), forcedCommand(body, "ForceCommand")
	if token == "" {
		err = &requestError{err: errTokenMissing, field: "OTT", detail: "Send an access token in the field OTT."}
	}
	// The token is no header's, so there is no scheme: a proof in the header says DPoP.
	shown := a.shownWith(r, token, len(r.Header.Values("DPoP")) > 0)
	if shown.DPoP {
		a.tellNonce(w.Header())
	}
	caller, err := a.admit(r, opIssue, shown, err)
	if err != nil {
		return nil, nobody, err
	}
	if !body.has("PublicKey") {
		body.refuse("PublicKey", "The field is required.")
	}
	if resource != "" {
		// There it narrows the certificate. To ignore it would grant more than asked.
		body.refuse("Resource", "There are no resources here: a certificate is for the caller's login.")
	}
	if err := body.finish(); err != nil {
		return nil, nobody, err
	}
	key, err := ca.ParsePublicKey(text)
	if err != nil {
		return nil, nobody, a.refuseKey(r, caller, err)
	}
	cert, err := a.issueCompat(r, caller, key, 0, command)
	if err != nil {
		return nil, nobody, fmt.Errorf("DeiC format: %w", err)
	}
	return cert, caller, nil
}
