package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A reading is the service's metrics at a moment.
type reading struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

// A labels value is what a metric's labels must be to count.
type labels map[string]string

func readMetrics(ctx context.Context, c *client) (reading, error) {
	resp, err := c.send(ctx, http.MethodGet, "/metrics", nil, "text/plain")
	if err != nil {
		return reading{}, err
	}
	defer closeBody(resp)
	return parseReading(io.LimitReader(resp.Body, maxAnswerBytes))
}

func parseReading(r io.Reader) (reading, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return reading{}, fmt.Errorf("the service's metrics cannot be read: %w", err)
	}
	return reading{at: time.Now(), families: families}, nil
}

// each calls yield for the metrics of a family that match.
func (r reading) each(name string, match labels, yield func(*dto.Metric)) {
	for _, m := range r.families[name].GetMetric() {
		if match.of(m) {
			yield(m)
		}
	}
}

func (l labels) of(m *dto.Metric) bool {
	for key, want := range l {
		if labelOf(m, key) != want {
			return false
		}
	}
	return true
}

func labelOf(m *dto.Metric, key string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == key {
			return l.GetValue()
		}
	}
	return ""
}

// sum adds up the values that match.
func (r reading) sum(name string, match labels) (total float64) {
	r.each(name, match, func(m *dto.Metric) {
		total += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	})
	return total
}

// values lists the values of a label, sorted.
func (r reading) values(name, label string) []string {
	var list []string
	r.each(name, nil, func(m *dto.Metric) { list = append(list, labelOf(m, label)) })
	slices.Sort(list)
	return slices.Compact(list)
}

// A span is what happened between two readings.
type span struct{ before, after reading }

func (s span) seconds() float64 { return s.after.at.Sub(s.before.at).Seconds() }

// rate is how much a counter grew per second. It is 0 where there was no time, or
// the service was started anew.
func (s span) rate(name string, match labels) float64 {
	grown, took := s.after.sum(name, match)-s.before.sum(name, match), s.seconds()
	if took <= 0 || grown < 0 {
		return 0
	}
	return grown / took
}

// observed is how many values a histogram got per second, health checks left out.
func (s span) observed(name string) float64 {
	count := func(r reading) (n float64) {
		r.each(name, nil, func(m *dto.Metric) {
			if !isHealthCheck(m) {
				n += float64(m.GetHistogram().GetSampleCount())
			}
		})
		return n
	}
	grown, took := count(s.after)-count(s.before), s.seconds()
	if took <= 0 || grown < 0 {
		return 0
	}
	return grown / took
}

// quantile estimates a quantile of a histogram in seconds, as Prometheus does: by
// straight lines within buckets. It is NaN when nothing was observed.
func (s span) quantile(q float64, name string, skip func(*dto.Metric) bool) float64 {
	counts := make(map[float64]float64)
	add := func(r reading, sign float64) {
		r.each(name, nil, func(m *dto.Metric) {
			if skip(m) {
				return
			}
			for _, b := range m.GetHistogram().GetBucket() {
				counts[b.GetUpperBound()] += sign * float64(b.GetCumulativeCount())
			}
		})
	}
	add(s.after, 1)
	add(s.before, -1)
	bounds := make([]float64, 0, len(counts))
	for bound := range counts {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	if len(bounds) == 0 || counts[bounds[len(bounds)-1]] <= 0 {
		return math.NaN()
	}
	rank := q * counts[bounds[len(bounds)-1]]
	i := slices.IndexFunc(bounds, func(b float64) bool { return counts[b] >= rank })
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = bounds[i-1], counts[bounds[i-1]]
	}
	if math.IsInf(bounds[i], 1) || counts[bounds[i]] == below {
		return low
	}
	return low + (bounds[i]-low)*(rank-below)/(counts[bounds[i]]-below)
}

// isHealthCheck says that a metric is of requests that no user makes.
func isHealthCheck(m *dto.Metric) bool {
	route := labelOf(m, "route")
	return route == "/livez" || route == "/readyz" || strings.HasPrefix(route, "/v1/admin/") || route == "/metrics"
}
