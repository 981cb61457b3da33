package httpapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"sallyport/identity"
)

// presented is what a request shows: the token of its one Authorization header (RFC 6750
// §2.1, RFC 9449 §7.1) and what may prove that the token is the client's. The query and
// form variants of RFC 6750 are not supported: they end in logs.
func (a *API) presented(r *http.Request) (identity.Presentation, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return identity.Presentation{}, errTokenMissing
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	dpop := strings.EqualFold(scheme, "DPoP")
	if !dpop && !strings.EqualFold(scheme, "Bearer") {
		return identity.Presentation{}, errTokenMissing
	}
	shown := a.shownWith(r, strings.Trim(token, " "), dpop)
	switch {
	case len(values) > 1:
		return shown, fmt.Errorf("%w: more than one Authorization header", identity.ErrInvalidToken)
	case shown.Token == "":
		return shown, errTokenMissing
	}
	return shown, nil
}

// shownWith adds to a token what the request has of proofs. A header about a client's
// certificate, which proxies make, is never looked at: whoever reaches the service past
// the proxy could write it.
func (a *API) shownWith(r *http.Request, token string, dpop bool) identity.Presentation {
	shown := identity.Presentation{Token: token, DPoP: dpop, Method: r.Method}
	if dpop {
		shown.Proofs, shown.Addresses = r.Header.Values("DPoP"), a.addressesOf(r)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		shown.Certificate = r.TLS.PeerCertificates[0].Raw
	}
	return shown
}

// addressesOf are the URLs under which the client may have sent the request. The Host
// header does not say whose name it is: a proof that was made for another service would
// do here if it were believed. So names are those of the configuration, or else, where
// this process ends TLS, those of its own certificate; without TLS, those of loopback.
func (a *API) addressesOf(r *http.Request) []string {
	path := r.URL.EscapedPath()
	if len(a.cfg.PublicURLs) > 0 {
		addresses := make([]string, len(a.cfg.PublicURLs))
		for i, base := range a.cfg.PublicURLs {
			addresses[i] = strings.TrimSuffix(base, "/") + path
		}
		return addresses
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	switch {
	case r.TLS != nil && a.cfg.OwnName != nil && a.cfg.OwnName(host):
		return []string{"https://" + r.Host + path}
	case r.TLS == nil && isLoopbackHost(host):
		return []string{"http://" + r.Host + path}
	}
	return nil
}

func isLoopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func checkPublicURLs(urls []string) error {
	var errs []error
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, fmt.Errorf("public URLs: %q is not a URL of scheme, host and perhaps a path", raw))
		}
		if _, port, err := net.SplitHostPort(u.Host); err == nil && port == "" {
			errs = append(errs, fmt.Errorf("public URLs: %q has an empty port", raw))
		}
	}
	return errors.Join(errs...)
}

// tellNonce adds the nonce that the next proof must hold (RFC 9449 §8.2), if it must.
func (a *API) tellNonce(h http.Header) {
	if a.cfg.ProofNonce == nil {
		return
	}
	if nonce := a.cfg.ProofNonce(); nonce != "" {
		h.Set("DPoP-Nonce", nonce)
	}
}

// challenge adds WWW-Authenticate (RFC 6750 §3, RFC 9449 §7.1): without an error code when
// no token was sent, as the RFCs want it.
func challenge(h http.Header, p problem, err error) {
	const bearer = `Bearer realm="sallyport"` //nolint:gosec // the name of a scheme
	dpop := `DPoP algs="` + strings.Join(identity.ProofAlgorithms(), " ") + `"`
	say := func(scheme, code string) {
		h.Set("WWW-Authenticate", scheme+`, error="`+code+`", error_description="`+p.Title+`"`)
	}
	switch {
	case errors.Is(err, errTokenMissing):
		h.Set("WWW-Authenticate", bearer)
		h.Add("WWW-Authenticate", dpop)
	case errors.Is(err, identity.ErrScope):
		h.Set("WWW-Authenticate", bearer+`, error="insufficient_scope"`)
	case errors.Is(err, identity.ErrNonce):
		say(dpop, "use_dpop_nonce")
	case errors.Is(err, identity.ErrProof):
		say(dpop, "invalid_dpop_proof")
	case errors.Is(err, identity.ErrBinding):
		say(dpop, "invalid_token")
	case p.Status == http.StatusUnauthorized:
		say(bearer, "invalid_token")
	}
}
