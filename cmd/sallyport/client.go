package main

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
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// maxAnswerBytes bounds what a client reads of an answer that it holds whole.
const maxAnswerBytes = 8 << 20

// clientOptions is how a client command finds the service and its token.
type clientOptions struct {
	url          string
	token        string
	tokenFile    string
	tokenCommand string
	caFile       string
	dpopKey      string
	// given says whether a flag stands on the command line.
	given func(flag string) bool
}

// clientFlags adds the flags of every client command.
func clientFlags(cmd *cobra.Command, s streams) *clientOptions {
	f := cmd.Flags()
	opt := &clientOptions{given: f.Changed}
	f.StringVar(&opt.url, "url", cmp.Or(s.getenv("SALLYPORT_URL"), "http://127.0.0.1:8080"), "the service (environment: SALLYPORT_URL)")
	f.StringVar(&opt.token, "token", "", "the token; other users can see it in ps(1): prefer SALLYPORT_TOKEN")
	f.StringVar(&opt.tokenFile, "token-file", "", "read the token from this file")
	f.StringVar(&opt.tokenCommand, "token-command", s.getenv("SALLYPORT_TOKEN_COMMAND"),
		"run this with /bin/sh to get a token (environment: SALLYPORT_TOKEN_COMMAND)")
	f.StringVar(&opt.caFile, "tls-ca", s.getenv("SALLYPORT_TLS_CA"), "PEM file of the CA that signed the service's TLS certificate (environment: SALLYPORT_TLS_CA)")
	f.StringVar(&opt.dpopKey, "dpop-key", s.getenv("SALLYPORT_DPOP_KEY"),
		"file with the private key that the token is bound to, JWK or PEM, mode 0600 (environment: SALLYPORT_DPOP_KEY)")
	return opt
}

// A client speaks to a running service.
type client struct {
	base  string
	token string
	dpop  *prover // nil: the token is sent as a bearer's
	http  *http.Client
}

// connect checks the options and fetches the token.
func (opt *clientOptions) connect(ctx context.Context, s streams) (*client, error) {
	u, err := url.Parse(opt.url)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usageError{fmt.Errorf("--url: %q is not a URL such as https://sallyport.example.org", opt.url)}
	}
	host := u.Host
	if u.Port() == "" {
		host += ":80"
	}
	if u.Scheme == "http" && !isLoopback(host) {
		return nil, usageError{fmt.Errorf("--url: %q would send your token in the clear; use https", opt.url)}
	}
	transport, err := opt.transport()
	if err != nil {
		return nil, err
	}
	token, err := opt.findToken(ctx, s)
	if err != nil {
		return nil, err
	}
	var dpop *prover
	if opt.dpopKey != "" {
		if dpop, err = readProver(opt.dpopKey); err != nil {
			return nil, fmt.Errorf("--dpop-key: %w", err)
		}
	}
	return &client{
		base:  strings.TrimSuffix(opt.url, "/"),
		token: token,
		dpop:  dpop,
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the service answered with a redirect, and a token must not follow one")
		}},
	}, nil
}

func (opt *clientOptions) transport() (*http.Transport, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if opt.caFile != "" {
		pem, err := readBounded(opt.caFile, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-ca: %q holds no PEM certificate", opt.caFile)
		}
	}
	return t, nil
}

// findToken takes the token from a flag, of which there may be one, else from
// SALLYPORT_TOKEN, else from the command in SALLYPORT_TOKEN_COMMAND.
func (opt *clientOptions) findToken(ctx context.Context, s streams) (string, error) {
	var flags []string
	for _, name := range []string{"token", "token-file", "token-command"} {
		if opt.given(name) {
			flags = append(flags, name)
		}
	}
	if len(flags) > 1 {
		return "", usageError{fmt.Errorf("--%s exclude each other", strings.Join(flags, " and --"))}
	}
	token, source := s.getenv("SALLYPORT_TOKEN"), "SALLYPORT_TOKEN"
	var err error
	switch {
	case opt.given("token"):
		token, source = opt.token, "--token"
	case opt.given("token-file"):
		source = "--token-file"
		token, err = readTokenFile(opt.tokenFile)
	case opt.given("token-command"), token == "" && opt.tokenCommand != "":
		source = "--token-command"
		token, err = runTokenCommand(ctx, s, opt.tokenCommand)
	case token == "":
		return "", usageError{errors.New("no token: set SALLYPORT_TOKEN, or give --token-command (such as 'oidc-token centre') or --token-file")}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", fmt.Errorf("%s: there is no token, it is empty", source)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the token has characters that no token has; was something else printed with it?")
	}
	return token, nil
}

func readTokenFile(path string) (string, error) {
	text, err := readBounded(path, 64<<10)
	return string(text), err
}

func runTokenCommand(ctx context.Context, s streams, line string) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Stderr = s.err
	text, err := cmd.Output()
	return string(text), err
}

// A problem is the service's own description of an error (RFC 9457).
type problem struct {
	Status    int    `json:"status"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	RequestID string `json:"request_id"`
	Field     string `json:"field"`
}

func (p *problem) Error() string {
	text := cmp.Or(p.Detail, p.Title)
	if p.Code == "route_unknown" {
		text = "the service has no such call: --url (SALLYPORT_URL) is its address without a path; or it is of another version"
	}
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	return fmt.Sprintf("%s (%s, request %s)", strings.TrimSuffix(text, "."), p.Code, p.RequestID)
}

// send makes a request with a JSON body (nil: none) and returns an answer of
// status 2xx; any other becomes an error.
func (c *client) send(ctx context.Context, method, path string, body any, accept string) (*http.Response, error) {
	resp, err := c.sendOnce(ctx, method, path, body, accept)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && c.learnNonce(resp) {
		closeBody(resp)
		resp, err = c.sendOnce(ctx, method, path, body, accept)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer closeBody(resp)
	return nil, readProblem(resp)
}

// learnNonce takes the nonce that proofs must hold, and says whether it is a new one. A
// request that was refused for want of it was not served (RFC 9449 §9), so that it may
// be sent again.
func (c *client) learnNonce(resp *http.Response) bool {
	nonce := resp.Header.Get("DPoP-Nonce")
	if c.dpop == nil || nonce == "" || nonce == c.dpop.nonce {
		return false
	}
	c.dpop.nonce = nonce
	return true
}

func (c *client) sendOnce(ctx context.Context, method, path string, body any, accept string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	if err := c.identify(req); err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return resp, nil
}

// identify adds the token, with a proof if there is a key for one.
func (c *client) identify(req *http.Request) error {
	switch {
	case c.token == "":
		return nil
	case c.dpop == nil:
		req.Header.Set("Authorization", "Bearer "+c.token)
		return nil
	}
	address := *req.URL
	address.RawQuery = ""
	proof, err := c.dpop.proof(req.Method, address.String(), c.token)
	if err != nil {
		return fmt.Errorf("--dpop-key: %w", err)
	}
	req.Header.Set("Authorization", "DPoP "+c.token)
	req.Header.Set("DPoP", proof)
	return nil
}

// unreachable says what to look at when there was no answer.
func (c *client) unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the method and the path
	}
	hint := "see --url and SALLYPORT_URL"
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		hint = "see --tls-ca"
	}
	if c.token == "" { // the admin socket
		return err
	}
	return fmt.Errorf("cannot reach the service at %s (%s): %w", c.base, hint, err)
}

// call makes a request and decodes the JSON answer into result.
func (c *client) call(ctx context.Context, method, path string, body, result any) error {
	resp, err := c.send(ctx, method, path, body, "application/json")
	if err != nil {
		return err
	}
	defer closeBody(resp)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(result); err != nil {
		return fmt.Errorf("the service's answer cannot be read: %w", err)
	}
	return nil
}

func readProblem(resp *http.Response) error {
	p := &problem{}
	err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(p)
	if err != nil || p.Code == "" {
		return fmt.Errorf("the service answered %s without a problem document; is the URL that of Sallyport?", resp.Status)
	}
	return p
}

// closeBody closes an answer that was read as far as it matters.
func closeBody(resp *http.Response) {
	_ = resp.Body.Close() // nothing was written: an error changes nothing
}

// printJSON writes v as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
