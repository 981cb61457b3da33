package credential

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"sallyport/executor"
	"sallyport/identity"
)

const (
	// maxAnswerBytes bounds an answer of a service; a certificate with the longest
	// RSA key takes 6 KiB, its private key as much.
	maxAnswerBytes = 32 << 10
	// maxServiceConns bounds the connections to a service.
	maxServiceConns = 32
	// minTokenLife is what must be left of a token for it to be worth sending.
	minTokenLife = time.Second
)

// ServiceConfig says where a certificate service is and what of it is believed.
// The service is trusted to know whom it certifies and with nothing else: see
// [Remote] and [DeiC] for what is checked.
//
// It gets the caller's token as it is, and can use it wherever the token's
// audience allows until the token expires. Give the service an audience of its
// own, or run it yourself.
type ServiceConfig struct {
	// URL is the base of the service, without the last part of the path:
	// "https://ca.example.org" for SSHService, "https://ca.example.org/name" for
	// DeiC. It has no query and no user.
	URL string
	// AllowHTTP permits http:// to an address other than loopback. Whoever sits on
	// the path then reads tokens and, with SSHService, private keys.
	AllowHTTP bool
	// TLSRoots are the CAs that sign the service's TLS certificate; nil means the
	// system's.
	TLSRoots *x509.CertPool
	// Timeout bounds a request from connect to the last byte; 0 means 5 s.
	Timeout time.Duration
	// Expect says which certificates are acceptable.
	Expect Expectation
	// RequestID, if set, names the request under way; the service gets the name as
	// X-Request-ID.
	RequestID func(context.Context) string
	// Traceparent, if set, is the trace of the request under way (W3C Trace Context);
	// the service gets it as it is.
	Traceparent func(context.Context) string
	// Version is sent along with the client's name; "" means "devel".
	Version string
}

// A service is an HTTP client for one URL.
type service struct {
	url       string
	client    *http.Client
	transport *http.Transport
	timeout   time.Duration
	context   map[string]func(context.Context) string // headers of the request under way
	version   string
}

// newService checks cfg, except for what it expects; path is added to the URL.
func newService(cfg ServiceConfig, path string) (*service, error) {
	if err := checkServiceURL(cfg.URL, cfg.AllowHTTP); err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("timeout %s is negative", cfg.Timeout)
	}
	timeout := cmp.Or(cfg.Timeout, 5*time.Second)
	transport := newTransport(timeout, cfg.TLSRoots)
	return &service{
		url: strings.TrimSuffix(cfg.URL, "/") + path, transport: transport, timeout: timeout,
		client: &http.Client{
			Transport: transport,
			// A token goes where the operator said, and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		context: map[string]func(context.Context) string{"X-Request-ID": cfg.RequestID, "Traceparent": cfg.Traceparent},
		version: cmp.Or(cfg.Version, "devel"),
	}, nil
}

// newTransport is how services are reached; timeout is for connect and handshake.
func newTransport(timeout time.Duration, roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    timeout,
		MaxConnsPerHost:        maxServiceConns,
		MaxIdleConnsPerHost:    maxServiceConns,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxAnswerBytes,
		DisableCompression:     true, // what is counted is what was sent
		ForceAttemptHTTP2:      true,
	}
}

func checkServiceURL(text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fmt.Errorf("URL %q is not one such as https://ca.example.org", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("URL of host %q has a user, a query or a fragment", u.Host) // which may be secret
	case u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()):
		return fmt.Errorf("URL %q would send tokens in the clear", text)
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (s *service) close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// ready refuses callers whose token would not be accepted.
func ready(caller identity.Identity) error {
	if !caller.Valid() || caller.Bearer() == "" {
		return fmt.Errorf("%w: caller is nobody", executor.ErrNoCredential)
	}
	if caller.Binding() != "" {
		// The service there would need a proof that only the caller can make.
		return fmt.Errorf("%w: the caller's token is bound to a key and of no use to another service", executor.ErrNoCredential)
	}
	if time.Until(caller.Expires()) < minTokenLife {
		return fmt.Errorf("%w: the caller's token has expired", executor.ErrNoCredential)
	}
	return nil
}

// post sends body as JSON and returns an answer of the status that means success.
// What the service refuses is executor.ErrNoCredential; any other error means that
// it did not answer as it should. No error quotes what was sent, nor what came
// back: a service may echo the token.
//
// There is no second attempt. The first may have made a certificate.
func (s *service) post(ctx context.Context, bearer string, body any, success int) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("certificate service: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("certificate service: %w", err)
	}
	s.label(req, bearer)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, s.failure(err)
	}
	defer func() { _ = resp.Body.Close() }() // nothing was written
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	switch {
	case resp.StatusCode != success:
		return nil, s.refusal(resp.StatusCode, answer)
	case err != nil:
		return nil, s.failure(err)
	case len(answer) > maxAnswerBytes:
		return nil, fmt.Errorf("certificate service %s: answer is larger than %d bytes", s.url, maxAnswerBytes)
	}
	return answer, nil
}

// label sets the headers, among them those that FirecREST v2 sends.
func (s *service) label(req *http.Request, bearer string) {
	h := req.Header
	if bearer != "" {
		h.Set("Authorization", "Bearer "+bearer)
	}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "sallyport/"+s.version)
	h.Set("X-Client-Type", "api")
	h.Set("X-Client-Name", "sallyport")
	h.Set("X-Client-Version", s.version)
	for name, of := range s.context {
		if of == nil {
			continue
		}
		if value := of(req.Context()); value != "" {
			h.Set(name, value)
		}
	}
}

// stableCode is what a code of a problem document looks like; no token does.
var stableCode = regexp.MustCompile(`\A[a-z_]{1,40}\z`)

// refusal says what a status means, with the code of a problem document (RFC 9457)
// if there is one.
func (s *service) refusal(status int, answer []byte) error {
	var problem struct {
		Code string `json:"code"`
	}
	detail := ""
	if json.Unmarshal(answer, &problem) == nil && stableCode.MatchString(problem.Code) {
		detail = " " + problem.Code
	}
	err := fmt.Errorf("certificate service %s answered %d%s", s.url, status, detail)
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", executor.ErrNoCredential, err)
	}
	return err
}

// failure says why there is no answer. Errors of net/http that quote what the
// other side has sent are left out.
func (s *service) failure(err error) error {
	var reason error
	if op, ok := errors.AsType[*net.OpError](err); ok {
		reason = op
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		reason = certificate
	}
	switch {
	case errors.Is(err, context.Canceled):
		reason = context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		reason = fmt.Errorf("no answer within %s", s.timeout)
	case reason == nil:
		reason = errors.New("no answer in HTTP, or one that broke off")
	}
	return fmt.Errorf("certificate service %s: %w", s.url, reason)
}
