// Package idp starts real identity providers on a loopback port, for tests that
// must not rest on an identity provider of our own making: dex, with the password
// grant, and npm's oidc-provider, with the client credentials grant and access
// tokens after RFC 9068.
//
// Both are built from pinned sources under e2e/ when they are missing, which
// needs the Go module proxy or the npm registry the first time.
package idp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/identity"
)

const (
	audience     = "sallyport"
	startTimeout = 30 * time.Second
	maxAnswer    = 1 << 20
)

// A Provider is a running identity provider.
type Provider struct {
	url     string
	typ     string // of its access tokens
	port    int
	log     string // path
	command func(ctx context.Context, port int) *exec.Cmd
	request func(login string) (form url.Values, user, password string)
	token   string // URL of the token endpoint

	process *exec.Cmd
	stop    context.CancelFunc
	exited  chan struct{} // closed when the process has ended
}

// URL is the issuer identifier.
func (p *Provider) URL() string { return p.url }

// IssuerConfig is the rule that accepts the provider's access tokens.
func (p *Provider) IssuerConfig(alias string) identity.IssuerConfig {
	return identity.IssuerConfig{
		Alias: alias, URL: p.url, Audiences: []string{audience}, Type: p.typ, AllowHTTP: true,
	}
}

// TokenEndpoint is the URL where tokens are asked for.
func (p *Provider) TokenEndpoint() string { return p.token }

// Token gets an access token for a login that the provider was started with.
func (p *Provider) Token(ctx context.Context, login string) (string, error) {
	return p.ask(ctx, login, nil, "Bearer")
}

// BoundToken gets one that is bound to the key by which the DPoP proof was made (RFC
// 9449 §5). Only oidc-provider makes such tokens.
func (p *Provider) BoundToken(ctx context.Context, login, proof string) (string, error) {
	return p.ask(ctx, login, http.Header{"Dpop": {proof}}, "DPoP")
}

// CertificateToken gets one that is bound to a client certificate in DER (RFC 8705 §3).
// Only oidc-provider makes such tokens; it is told of the certificate as a proxy that
// ends TLS in front of it would do that.
func (p *Provider) CertificateToken(ctx context.Context, login string, certificate []byte) (string, error) {
	return p.ask(ctx, login+certificateClient, http.Header{certificateHeader: {base64.StdEncoding.EncodeToString(certificate)}}, "Bearer")
}

// ask gets a token of a type (RFC 6749 §7.1) by a request with further headers.
func (p *Provider) ask(ctx context.Context, login string, header http.Header, kind string) (string, error) {
	form, user, password := p.request(login)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.token, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(user, password)
	maps.Copy(request.Header, header)
	status, body, err := do(request)
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		Type        string `json:"token_type"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("%s answered %d for login %q: %s %s", p.token, status, login, answer.Error, answer.Description)
	}
	if !strings.EqualFold(answer.Type, kind) {
		return "", fmt.Errorf("%s made a token of type %q, want %q", p.token, answer.Type, kind)
	}
	return answer.AccessToken, nil
}

// Rotate replaces the provider's signing key: it starts again, at the same
// address, and neither provider keeps a key.
func (p *Provider) Rotate(ctx context.Context) error {
	p.halt()
	return p.start(ctx)
}

// Stop makes the provider unreachable until Rotate or Close.
func (p *Provider) Stop() { p.halt() }

// Log is what the provider has printed so far.
func (p *Provider) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Close ends the provider.
func (p *Provider) Close() error {
	p.halt()
	return nil
}

// start runs the process and waits until it answers. The context bounds the
// wait; the process lives until halt.
func (p *Provider) start(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has a descriptor of its own
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.process = p.command(life, p.port)
	p.process.Stdout, p.process.Stderr = log, log
	if err := p.process.Start(); err != nil {
		stop()
		return err
	}
	p.stop, p.exited = stop, make(chan struct{})
	go func(process *exec.Cmd, exited chan<- struct{}) {
		defer close(exited)
		_ = process.Wait() // killed by halt, or it explains itself in the log
	}(p.process, p.exited)
	if err := p.await(ctx); err != nil {
		p.halt()
		return fmt.Errorf("%s: %w; its log:\n%s", filepath.Base(p.process.Path), err, p.Log())
	}
	return nil
}

func (p *Provider) halt() {
	p.stop()
	<-p.exited
}

// await polls the discovery document until it is there.
func (p *Provider) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/.well-known/openid-configuration", nil)
		if err != nil {
			return err
		}
		status, _, err := do(request)
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-p.exited:
			return errors.New("the process has ended")
		case <-ctx.Done():
			return fmt.Errorf("does not answer: %w", errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func do(request *http.Request) (status int, body []byte, err error) {
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close() //nolint:errcheck // nothing was written
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, body, err
}

// freePort finds a port for a program that must know its own address before it
// listens. Another process may take it meanwhile; launch then tries again.
func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// launch starts a provider on a port that is free.
func launch(ctx context.Context, dir, name string, build func(p *Provider, base string) error) (*Provider, error) {
	const attempts = 3
	var failed error
	for range attempts {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		p := &Provider{port: port, log: filepath.Join(dir, name+".log")}
		if err := build(p, "http://127.0.0.1:"+strconv.Itoa(port)); err != nil {
			return nil, err
		}
		if failed = p.start(ctx); failed == nil {
			return p, nil
		}
		if !bytes.Contains([]byte(p.Log()), []byte("in use")) && !strings.Contains(p.Log(), "EADDRINUSE") {
			break
		}
	}
	return nil, failed
}
