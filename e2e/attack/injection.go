package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// injection are attacks by values that end as text in a shell, a log or an administrator's
// terminal.
func injection() []attack {
	return []attack{
		{"an argument, a variable and a folder with shell syntax", "nothing ran", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{})
			if err != nil {
				return "", err
			}
			token, err := s.token(0, nil)
			if err != nil {
				return "", err
			}
			proof := filepath.Join(s.node.Home(login(0)), "ran")
			for _, text := range []string{"$(touch ran)", "`touch ran`", "'; touch ran; '", "\n touch ran\n", "\"; touch ran; \""} {
				for _, body := range []map[string]any{
					{"argv": []string{"echo", text}},
					{"argv": []string{"true"}, "env": map[string]string{"NAME": text}},
					{"argv": []string{"true"}, "workdir": "/tmp/" + text},
				} {
					if _, err := v.call(ctx, call{path: "/v1/systems/node/exec", token: token, body: body}); err != nil {
						return "", err
					}
				}
			}
			if _, err := os.Stat(proof); err == nil {
				return "ran", nil
			}
			return "nothing ran", nil
		}},
		{"a subject with a line feed and terminal codes", "one plain line each", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{})
			if err != nil {
				return "", err
			}
			token, err := s.token(0, map[string]any{"sub": "x\n{\"type\":\"revoke\"}\x1b[2J"})
			if err != nil {
				return "", err
			}
			a, err := v.call(ctx, call{path: "/v1/systems/node/exec", token: token, body: map[string]any{"command": "true"}})
			if err != nil {
				return "", err
			}
			verified, code, err := v.command(ctx, "audit", "verify")
			if err != nil || code != 0 {
				return fmt.Sprintf("audit verify: exit %d: %s", code, verified), err
			}
			for _, text := range []string{v.tail(), string(a.body), s.node.Log()} {
				if strings.Contains(text, "\x1b") || strings.Contains(text, "\n{") {
					return "the subject wrote a line of its own", nil
				}
			}
			return "one plain line each", nil
		}},
	}
}
