package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxDocumentBytes = 1 << 20
	maxRedirects     = 3
	fetchTimeout     = 10 * time.Second
)

// A source is where an issuer's JWK Set comes from. Load is called by one
// goroutine at a time.
type source interface {
	load(ctx context.Context) ([]byte, error)
}

// fileSource reads the set from a file.
type fileSource string

func (path fileSource) load(context.Context) ([]byte, error) {
	f, err := os.Open(string(path))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	return readDocument(f)
}

// webSource fetches the set from jwksURL, which discovery finds if it is empty.
type webSource struct {
	client    *http.Client
	issuer    string
	jwksURL   string
	allowHTTP bool

	discovered string
}

func (s *webSource) load(ctx context.Context) ([]byte, error) {
	address := s.jwksURL
	if address == "" {
		if s.discovered == "" {
			found, err := s.discover(ctx)
			if err != nil {
				return nil, err
			}
			s.discovered = found
		}
		address = s.discovered
	}
	document, err := s.get(ctx, address)
	if err != nil {
		// The keys may have moved: ask again next time.
		s.discovered = ""
		return nil, err
	}
	return document, nil
}

// discover returns the issuer's "jwks_uri" (OpenID Connect Discovery §4). The
// document must be about this very issuer (§4.3), or one provider could speak
// for another.
func (s *webSource) discover(ctx context.Context) (string, error) {
	document, err := s.get(ctx, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(document, &metadata); err != nil {
		return "", errors.New("discovery document is not JSON of the right shape")
	}
	if metadata.Issuer != s.issuer {
		return "", fmt.Errorf("discovery document is about issuer %q, not %q", clip(metadata.Issuer), s.issuer)
	}
	if err := checkURL(metadata.JWKSURI, s.allowHTTP); err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	return metadata.JWKSURI, nil
}

func (s *webSource) get(ctx context.Context, address string) (_ []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // nothing was written
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, response.Status)
	}
	document, err := readDocument(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return document, nil
}

func readDocument(r io.Reader) ([]byte, error) {
	document, err := io.ReadAll(io.LimitReader(r, maxDocumentBytes+1))
	if err != nil {
		return nil, err
	}
	if len(document) > maxDocumentBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxDocumentBytes)
	}
	return document, nil
}

// httpClient copies the configured client, or makes one, and has it refuse
// redirects to another host or from https to http: the host that was configured
// answers, or nobody does.
func httpClient(configured *http.Client) *http.Client {
	client := &http.Client{}
	if configured != nil {
		*client = *configured
	} else {
		client.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true, // minutes pass between two requests
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	client.Jar = nil
	client.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		first := via[0].URL
		switch {
		case len(via) > maxRedirects:
			return fmt.Errorf("more than %d redirects", maxRedirects)
		case next.URL.Host != first.Host || next.URL.Scheme != first.Scheme:
			return fmt.Errorf("redirect to another origin, %q", next.URL.Scheme+"://"+next.URL.Host)
		}
		return nil
	}
	return client
}
