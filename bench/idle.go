package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// An idleReport is what connections cost that nobody uses.
type idleReport struct {
	Connections int   `json:"connections"`
	RSSBefore   int64 `json:"rss_before_bytes"`
	// RSSBurst is right after the logins, RSSAfter after a collection: an idle
	// service makes one every two minutes.
	RSSBurst int64 `json:"rss_burst_bytes"`
	RSSAfter int64 `json:"rss_after_bytes"`
	// Heap and Stacks are live bytes after a collection, Goroutines their number:
	// what one more connection adds.
	Heap       int64 `json:"heap_bytes"`
	Stacks     int64 `json:"stack_bytes"`
	Goroutines int64 `json:"goroutines"`
}

func (r *idleReport) rss() int64 { return r.RSSAfter - r.RSSBefore }

// measureIdle starts a service of its own, has that many people run one command
// each, and sees how much larger it has become once nothing happens.
func measureIdle(ctx context.Context, s *site, opt options, progress io.Writer) (*idleReport, error) {
	v, err := s.startService(ctx, s.binary, "idle")
	if err != nil {
		return nil, err
	}
	report, err := idleOf(ctx, s, v, opt.Idle, progress)
	if err == nil && opt.profile != "" {
		err = v.save(ctx, "heap", filepath.Join(opt.profile, "idle-heap.pprof"))
	}
	if err2 := v.stop(); err == nil {
		err = err2
	}
	return report, err
}

func idleOf(ctx context.Context, s *site, v *service, connections int, progress io.Writer) (*idleReport, error) {
	first, err := s.newcomer(0, v)
	if err != nil {
		return nil, err
	}
	defer first.close()
	if err := first.call(ctx); err != nil {
		return nil, err
	}
	before, err := v.settle(ctx)
	if err != nil {
		return nil, err
	}
	var failed atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range connections {
		group.Go(func() error {
			c, err := s.newcomer(i+1, v)
			if err != nil {
				return err
			}
			defer c.close()
			if err := c.call(groupCtx); err != nil && failed.Add(1) > int64(connections/10) {
				return err
			}
			return nil
		})
		if i%100 == 99 {
			fmt.Fprintf(progress, "  %d of %d logins begun\n", i+1, connections)
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	after, err := v.settle(ctx)
	return &idleReport{
		Connections: connections - int(failed.Load()), RSSBefore: before.rss, RSSBurst: after.burst, RSSAfter: after.rss,
		Heap: after.heap - before.heap, Stacks: after.stacks - before.stacks, Goroutines: after.goroutines - before.goroutines,
	}, err
}

// A footprint is the memory of the service.
type footprint struct{ burst, rss, heap, stacks, goroutines int64 }

// settle reads the memory once it neither grows nor shrinks: as it is, and after a
// collection.
func (v *service) settle(ctx context.Context) (f footprint, err error) {
	if f.burst, err = v.steadyRSS(ctx); err != nil {
		return f, err
	}
	if _, err = v.runtime(ctx, "heap?gc=1&debug=1"); err != nil {
		return f, err
	}
	if f.rss, err = v.steadyRSS(ctx); err != nil {
		return f, err
	}
	values, err := v.runtime(ctx, "heap?gc=1&debug=1")
	if err != nil {
		return f, err
	}
	f.heap, f.stacks = values["HeapAlloc"], values["Stack"]
	values, err = v.runtime(ctx, "goroutine?debug=1")
	f.goroutines = values["goroutine profile"]
	return f, err
}

// steadyRSS waits until the resident memory grows or shrinks no more, for 10 s at
// most.
func (v *service) steadyRSS(ctx context.Context) (rss int64, err error) {
	const pauses, least = 10, 64 << 10
	for range pauses {
		last := rss
		if rss, err = v.rss(); err != nil || max(rss-last, last-rss) < least {
			return rss, err
		}
		pause(ctx, time.Second)
	}
	return rss, nil
}

// runtime reads "# Name = value" and "name: total value" from a profile in text
// form (runtime/pprof).
func (v *service) runtime(ctx context.Context, profile string) (map[string]int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/debug/pprof/"+profile, nil)
	if err != nil {
		return nil, err
	}
	res, err := v.admin().Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	values := map[string]int64{}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "# "), " = ")
		if !ok {
			name, value, ok = strings.Cut(lines.Text(), ": total ")
		}
		value, _, _ = strings.Cut(value, " ") // "Stack = in use / of the system"
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			values[name] = n
		}
	}
	return values, lines.Err()
}
