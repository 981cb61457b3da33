package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// bounds are attacks by one person who spends what is everybody's. What each cost goes to
// standard error, since it differs from run to run.
func bounds() []attack {
	const mallory, alice = 0, 1
	return []attack{
		{"200 bodies of 1 MiB with an argv of empty strings", "refused, memory bounded", func(ctx context.Context, s *site) (string, error) {
			return s.bodies(ctx, mallory, []byte(`{"argv":[`+strings.TrimSuffix(strings.Repeat(`"",`, 349_000), ",")+`]}`))
		}},
		{"200 bodies of 1 MiB with an env of tiny keys", "refused, memory bounded", func(ctx context.Context, s *site) (string, error) {
			var env strings.Builder
			for i := 0; env.Len() < 1_040_000; i++ {
				fmt.Fprintf(&env, `"%x":"",`, i)
			}
			return s.bodies(ctx, mallory, []byte(`{"argv":["true"],"env":{`+strings.TrimSuffix(env.String(), ",")+`}}`))
		}},
		{"reads of missing long paths for 10 s, while others work", "bounded, others served", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{more: "[firecrest]\nenabled = true", system: "[[systems.firecrest.file_systems]]\npath = \"/\"\ndata_type = \"users\""})
			if err != nil {
				return "", err
			}
			path := "/filesystem/node/ops/view?path=/" + strings.Repeat("p/", 1900)
			return v.flood(ctx, mallory, alice, func(i int64) call { return call{path: path + fmt.Sprint(i)} })
		}},
		{"bad public keys for 10 s, while others work", "bounded, others served", func(ctx context.Context, s *site) (string, error) {
			v, err := s.serve(ctx, settings{})
			if err != nil {
				return "", err
			}
			return v.flood(ctx, mallory, alice, func(i int64) call {
				return call{path: "/v1/certificates", body: map[string]any{"public_key": fmt.Sprint("ssh-rsa ", i, strings.Repeat("A", 4000))}}
			})
		}},
	}
}

// bodies sends a body 200 times at once, and says whether the service stayed within the
// memory that it may have for bodies and its own 150 MiB.
func (s *site) bodies(ctx context.Context, person int, body []byte) (string, error) {
	v, err := s.serve(ctx, settings{})
	if err != nil {
		return "", err
	}
	before, err := v.memory()
	if err != nil {
		return "", err
	}
	token, err := s.token(person, nil)
	if err != nil {
		return "", err
	}
	var all sync.WaitGroup
	var ran atomic.Int64
	for range 200 {
		all.Go(func() {
			a, err := v.call(ctx, call{path: "/v1/systems/node/exec", token: token, body: body})
			if err == nil && a.status == http.StatusOK {
				ran.Add(1)
			}
		})
	}
	all.Wait()
	after, err := v.memory()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "  200 bodies of %d bytes: resident at most %d MiB, %d MiB more than before, %d KiB a body\n",
		len(body), after>>20, (after-before)>>20, (after-before)/200>>10)
	if ran.Load() > 0 || after-before > 256<<20 {
		return fmt.Sprintf("%d ran, %d MiB more", ran.Load(), (after-before)>>20), nil
	}
	return "refused, memory bounded", nil
}

// flood has one person make calls for 10 s, while another runs commands, and says whether
// the audit log stayed within that person's part and the other was served.
func (v *service) flood(ctx context.Context, person, other int, next func(int64) call) (string, error) {
	token, err := v.site.token(person, nil)
	if err != nil {
		return "", err
	}
	before := v.auditBytes()
	flooding, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	var all sync.WaitGroup
	var made atomic.Int64
	for range 8 {
		all.Go(func() {
			for flooding.Err() == nil {
				c := next(made.Add(1))
				c.token = token
				_, _ = v.call(flooding, c) // what comes of it is in the log's size
			}
		})
	}
	refused := 0
	for flooding.Err() == nil {
		if a, err := v.exec(ctx, other, "true"); err != nil || a.status != http.StatusOK {
			refused++
		}
		time.Sleep(500 * time.Millisecond) // another person's pace
	}
	all.Wait()
	grown := v.auditBytes() - before
	fmt.Fprintf(os.Stderr, "  %d calls in 10 s: %d KiB of audit log, %d bytes a call\n", made.Load(), grown>>10, grown/made.Load())
	const most = 8<<20 + 8<<20/6 + 1<<20 // the part of a minute, what comes in 10 s, and the others'
	if grown > most || refused > 0 {
		return fmt.Sprintf("%d MiB of log, %d refused to others", grown>>20, refused), nil
	}
	return "bounded, others served", nil
}

// auditBytes is how much the audit log has.
func (v *service) auditBytes() (total int64) {
	files, _ := filepath.Glob(filepath.Join(v.dir, "audit", "*.jsonl")) // the pattern is good
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			total += info.Size()
		}
	}
	return total
}
