package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// beforeSuffix marks the rows of the binary that was given with --before.
const beforeSuffix = " before"

// manyClients is from where on a point takes longer: each client has to have had
// its turn.
const manyClients = 50

// measure does all rounds. Within a round the points with equally many clients
// follow one another, so that what is compared is measured at one time.
func measure(ctx context.Context, s *site, opt options, progress io.Writer) (*report, error) {
	points, err := preparePoints(ctx, s, opt, progress)
	defer func() {
		for _, p := range points {
			p.done()
		}
	}()
	if err != nil {
		return nil, err
	}
	for round := range opt.Rounds {
		for _, p := range points {
			if err := p.measure(ctx, s, opt, round); err != nil {
				return nil, fmt.Errorf("%s, %d clients: %w", p.name, p.count, err)
			}
			last := p.samples[round]
			fmt.Fprintf(progress, "round %d of %d: %-24s %4d clients  %9.0f/s  p50 %v\n",
				round+1, opt.Rounds, p.name, p.count, last.Throughput, last.P50.Round(time.Microsecond))
			if last.Errors > 0 {
				fmt.Fprintf(progress, "  %d ERRORS, the first: %v\n", last.Errors, last.firstError)
			}
		}
	}
	result := newReport(opt, points)
	if opt.Streams > 0 && s.service.files && opt.only.MatchString("streams") {
		fmt.Fprintf(progress, "memory while %d files of 100 MB are downloaded\n", opt.Streams)
		if result.Streams, err = measureStreams(ctx, s, opt); err != nil {
			return nil, fmt.Errorf("streams: %w", err)
		}
	}
	if opt.Idle > 0 && opt.only.MatchString("idle") {
		fmt.Fprintf(progress, "memory of %d idle connections\n", opt.Idle)
		if result.Idle, err = measureIdle(ctx, s, opt, progress); err != nil {
			return nil, fmt.Errorf("idle connections: %w", err)
		}
	}
	return result, nil
}

// preparePoints makes every connection that the points need.
func preparePoints(ctx context.Context, s *site, opt options, progress io.Writer) (points []*point, err error) {
	for _, kind := range scenarios(opt) {
		if !opt.only.MatchString(kind.name) {
			continue
		}
		variants := []*point{{scenario: kind, service: s.service}}
		if s.before != nil && kind.ofService {
			kind.name += beforeSuffix
			variants = append(variants, &point{scenario: kind, service: s.before})
		}
		for _, v := range variants {
			for _, n := range v.clients {
				p := *v
				p.count = n
				if p.do, p.done, err = p.prepare(ctx, s, p.service, n); err != nil {
					return points, fmt.Errorf("prepare %s for %d clients: %w", p.name, n, err)
				}
				if p.do == nil {
					fmt.Fprintf(progress, "%s: the binary does not know it; left out\n", p.name)
					break
				}
				points = append(points, &p)
			}
		}
	}
	slices.SortStableFunc(points, func(a, b *point) int { return a.count - b.count })
	return points, nil
}

func (p *point) measure(ctx context.Context, s *site, opt options, round int) error {
	warmUp, window := opt.Window/4, opt.Window
	if p.count >= manyClients {
		warmUp, window = 4*warmUp, 2*window
	}
	var stopProfile func() error
	if opt.profile != "" && p.ofService && round == opt.Rounds-1 {
		stopProfile = p.service.profile(ctx, window+warmUp, filepath.Join(opt.profile, fmt.Sprintf("%s-%d.pprof", p.name, p.count)))
	}
	result, err := drive(ctx, s, p.service, p.count, warmUp, window, p.do)
	p.samples = append(p.samples, result)
	if stopProfile != nil {
		err = errors.Join(err, stopProfile())
	}
	return err
}

// profile has the service write a CPU profile of the time to come. The function
// that it returns waits for it.
func (v *service) profile(ctx context.Context, length time.Duration, file string) (wait func() error) {
	done := make(chan error, 1)
	go func() {
		done <- v.save(ctx, fmt.Sprintf("profile?seconds=%d", max(1, int(length.Seconds()))), file)
	}()
	return func() error { return <-done }
}

// save writes what the service's profiler answers into a file.
func (v *service) save(ctx context.Context, profile, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/debug/pprof/"+profile, nil)
	if err != nil {
		return err
	}
	res, err := v.admin().Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	out, err := os.Create(filepath.Clean(file))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, res.Body)
	return errors.Join(err, out.Close())
}
