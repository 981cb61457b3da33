package main

import (
	"context"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/identity/identitytest"
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
		{"a token that is bound to a key, without a proof", "401 proof_invalid", func(ctx context.Context, s *site) (string, error) {
			return s.whoamiBound(ctx, func(b bound) (string, error) { return "", nil })
		}},
		{"a bound token with a proof, so that the next lines mean something", "200", func(ctx context.Context, s *site) (string, error) {
			return s.whoamiBound(ctx, bound.good)
		}},
		{"a bound token with a proof that was used", "401 proof_invalid", func(ctx context.Context, s *site) (string, error) {
			return s.whoamiBound(ctx, func(b bound) (string, error) {
				proof, err := b.good()
				if err == nil {
					_, err = b.show(ctx, proof)
				}
				return proof, err
			})
		}},
		{"a bound token with a proof for another address", "401 proof_invalid", func(ctx context.Context, s *site) (string, error) {
			return s.whoamiBound(ctx, func(b bound) (string, error) {
				return b.client.Proof("GET", "https://another.example.org/v1/whoami", b.token, nil)
			})
		}},
		{"a token whose signature was respelled has another name in the log", "no", respelled},
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

// bound is a token that is bound to a client's key, and a service.
type bound struct {
	service *service
	client  *identitytest.Prover
	token   string
}

func (b bound) good() (string, error) {
	return b.client.Proof("GET", b.service.scheme+"://"+b.service.address+"/v1/whoami", b.token, nil)
}

// show asks who the token is, with a proof unless it is empty.
func (b bound) show(ctx context.Context, proof string) (answer, error) {
	header := http.Header{"Authorization": {"DPoP " + b.token}}
	if proof != "" {
		header.Set("DPoP", proof)
	}
	return b.service.call(ctx, call{path: "/v1/whoami", header: header})
}

// whoamiBound shows a bound token with the proof that somebody makes.
func (s *site) whoamiBound(ctx context.Context, prove func(bound) (string, error)) (string, error) {
	v, err := s.serve(ctx, settings{})
	if err != nil {
		return "", err
	}
	client, err := identitytest.NewProver("ES256")
	if err != nil {
		return "", err
	}
	token, err := s.token(0, map[string]any{"cnf": client.Confirmation()})
	if err != nil {
		return "", err
	}
	b := bound{v, client, token}
	proof, err := prove(b)
	if err != nil {
		return "", err
	}
	a, err := b.show(ctx, proof)
	return a.String(), err
}

// respelled makes two certificates by one token in its two spellings: for an ECDSA
// signature (r, s), (r, n-s) is as good, and anybody can make it.
func respelled(ctx context.Context, s *site) (string, error) {
	v, err := s.serve(ctx, settings{})
	if err != nil {
		return "", err
	}
	token, err := s.token(0, nil)
	if err != nil {
		return "", err
	}
	end := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[end:])
	if err != nil || len(signature) != 64 { // RFC 7518 §3.4, of ES256
		return "", fmt.Errorf("the signature has %d bytes: %w", len(signature), err)
	}
	number := new(big.Int).SetBytes(signature[32:])
	number.Sub(elliptic.P256().Params().N, number).FillBytes(signature[32:])
	names := map[string]bool{}
	for _, each := range []string{token, token[:end] + base64.RawURLEncoding.EncodeToString(signature)} {
		a, err := v.call(ctx, call{path: "/v1/systems/node/exec", token: each, body: map[string]any{"command": "true"}})
		if err != nil || a.status != http.StatusOK {
			return a.String(), err
		}
	}
	log, err := os.ReadFile(filepath.Join(v.dir, "audit", "audit-000001.jsonl"))
	if err != nil {
		return "", err
	}
	starts := 0
	for line := range strings.Lines(string(log)) {
		var record struct {
			Action string `json:"event.action"`
			Name   string `json:"sallyport.token_sha256"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			return "", err
		}
		if record.Action == "exec.start" {
			starts++
			names[record.Name] = true
		}
	}
	if starts != 2 || names[""] {
		return "", fmt.Errorf("%d starts are recorded, by the tokens %v", starts, names)
	}
	return map[bool]string{true: "yes", false: "no"}[len(names) > 1], nil
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
