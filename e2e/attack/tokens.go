package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"
)

// tokens are attacks by who has a token that is not good, or good for less.
func tokens() []attack {
	return []attack{
		{"a command with a good token, so that the rest means something", "200", func(ctx context.Context, s *site) (string, error) {
			return s.execAs(ctx, nil)
		}},
		{"a token without a signature (alg none)", "401 token_invalid", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{})
			if err != nil {
				return "", err
			}
			part := base64.RawURLEncoding.EncodeToString
			payload := fmt.Sprintf(`{"iss":%q,"aud":"sallyport","sub":"person-0","preferred_username":"user0","exp":%d}`, s.issuer.URL(), time.Now().Add(time.Hour).Unix())
			a, err := v.call(ctx, call{path: "/v1/whoami", token: part([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + part([]byte(payload)) + "."})
			return a.String(), err
		}},
		{"a token for another service", "401 token_invalid", func(ctx context.Context, s *site) (string, error) {
			return s.execAs(ctx, map[string]any{"aud": "another"})
		}},
		{"a token of root", "403 login_refused", func(ctx context.Context, s *site) (string, error) {
			return s.execAs(ctx, map[string]any{"preferred_username": "root"})
		}},
		{"a token whose login has shell syntax", "403 login_refused", func(ctx context.Context, s *site) (string, error) {
			return s.execAs(ctx, map[string]any{"preferred_username": "user0;id"})
		}},
	}
}

// execAs runs a command by a token with these claims, and returns the answer.
func (s *site) execAs(ctx context.Context, claims map[string]any) (string, error) {
	v, err := s.serve(ctx, settings{})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, claims)
	if err != nil {
		return "", err
	}
	a, err := v.call(ctx, call{path: "/v1/systems/node/exec", token: token, body: map[string]any{"command": "true"}})
	return a.String(), err
}
