package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An op does one thing once, for one of the clients.
type op func(ctx context.Context, client int) error

// A sample is what one point showed in one round.
type sample struct {
	Throughput float64       `json:"throughput"` // per second
	P50        time.Duration `json:"p50_ns"`
	P95        time.Duration `json:"p95_ns"`
	P99        time.Duration `json:"p99_ns"`
	Done       int           `json:"done"`
	Errors     int           `json:"errors"`
	SSHD       time.Duration `json:"cpu_sshd_ns"`      // processor time in the window
	Sallyport  time.Duration `json:"cpu_sallyport_ns"` //
	Bench      time.Duration `json:"cpu_bench_ns"`     //
	RSS        int64         `json:"rss_bytes"`        // of sallyport, at the end
	firstError error
}

// A tally is what one client did while the window was open.
type tally struct {
	latencies []time.Duration
	errors    int
	first     error
}

// drive lets clients do op in closed loops: each begins the next when the last one
// has ended. What ends while the window is open counts.
func drive(ctx context.Context, s *site, v *service, clients int, warmUp, window time.Duration, do op) (sample, error) {
	var open, over atomic.Bool
	tallies := make([]tally, clients)
	var running sync.WaitGroup
	for i := range tallies {
		running.Go(func() {
			for !over.Load() && ctx.Err() == nil {
				began := time.Now()
				err := do(ctx, i)
				took := time.Since(began)
				if open.Load() {
					tallies[i].count(took, err)
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // no storm of errors
				}
			}
		})
	}
	pause(ctx, warmUp)
	before, err := s.usage(v)
	began := time.Now()
	open.Store(true)
	pause(ctx, window)
	open.Store(false)
	elapsed := time.Since(began)
	after, err2 := s.usage(v)
	over.Store(true)
	running.Wait()
	for _, err := range []error{ctx.Err(), err, err2} {
		if err != nil {
			return sample{}, err
		}
	}
	used := after.minus(before)
	rss, err := v.rss()
	result := summarize(tallies, elapsed)
	result.SSHD, result.Sallyport, result.Bench, result.RSS = used.sshd, used.sallyport, used.bench, rss
	return result, err
}

func (t *tally) count(took time.Duration, err error) {
	if err == nil {
		t.latencies = append(t.latencies, took)
		return
	}
	t.errors++
	if t.first == nil {
		t.first = err
	}
}

func summarize(tallies []tally, elapsed time.Duration) sample {
	var all []time.Duration
	var result sample
	for _, t := range tallies {
		all = append(all, t.latencies...)
		result.Errors += t.errors
		if result.firstError == nil {
			result.firstError = t.first
		}
	}
	slices.Sort(all)
	result.Done = len(all)
	result.Throughput = float64(len(all)) / elapsed.Seconds()
	result.P50, result.P95, result.P99 = quantile(all, 0.5), quantile(all, 0.95), quantile(all, 0.99)
	return result
}

// quantile takes sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
