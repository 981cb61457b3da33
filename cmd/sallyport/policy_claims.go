package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"sallyport/identity"
)

// readClaims reads a JSON object, or a token (RFC 7519) whose payload is one. Nothing
// is verified: the policy is what is tried, not the token.
func readClaims(s streams, path string) (map[string]any, error) {
	in := s.in
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--claims: %w", err)
		}
		defer file.Close() //nolint:errcheck // it was only read
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, identity.MaxTokenBytes+1))
	if err != nil {
		return nil, fmt.Errorf("--claims: %w", err)
	}
	if len(text) > identity.MaxTokenBytes {
		return nil, fmt.Errorf("--claims: %q has more than %d bytes", path, identity.MaxTokenBytes)
	}
	if parts := strings.Split(strings.TrimSpace(string(text)), "."); len(parts) == 3 && !strings.HasPrefix(parts[0], "{") {
		if text, err = base64.RawURLEncoding.DecodeString(parts[1]); err != nil {
			return nil, fmt.Errorf("--claims: %q is neither JSON nor a token", path)
		}
	}
	var claims map[string]any
	if json.Unmarshal(text, &claims) != nil || claims == nil {
		return nil, fmt.Errorf("--claims: %q holds no JSON object of claims", path)
	}
	return claims, nil
}

// claimAt follows a path through nested claims.
func claimAt(claims map[string]any, path string) any {
	var at any = claims
	for name := range strings.SplitSeq(path, ".") {
		object, _ := at.(map[string]any)
		at = object[name]
	}
	return at
}

// setClaim sets a list at a path.
func setClaim(claims map[string]any, path string, list []string) {
	parts := strings.Split(path, ".")
	for _, name := range parts[:len(parts)-1] {
		next, ok := claims[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			claims[name] = next
		}
		claims = next
	}
	values := make([]any, len(list))
	for i, v := range list {
		values[i] = v
	}
	claims[parts[len(parts)-1]] = values
}

// issuerOf is the issuer that the alias names, or else the claims, or else the first.
func issuerOf(f File, alias string, claims map[string]any) (IssuerSection, error) {
	url, _ := claims["iss"].(string)
	for _, s := range f.Issuers {
		if alias != "" && s.Alias != alias || alias == "" && url != "" && s.URL != url {
			continue
		}
		return s, nil
	}
	if alias != "" {
		return IssuerSection{}, usageError{fmt.Errorf("--issuer %q is the alias of no [[issuers]] table", alias)}
	}
	return IssuerSection{}, fmt.Errorf("--claims: \"iss\" is %q, the url of no [[issuers]] table", url)
}
