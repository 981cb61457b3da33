package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

const durations = "sallyport_http_request_duration_seconds"

func readingOf(t *testing.T, at time.Duration, lines ...string) reading {
	t.Helper()
	text := "# TYPE " + durations + " histogram\n# TYPE n_total counter\n" + strings.Join(lines, "\n") + "\n"
	r, err := parseReading(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.at = time.Unix(0, 0).Add(at)
	return r
}

func buckets(route string, counts ...string) []string {
	var lines []string
	for i, bound := range []string{"0.01", "0.1", "+Inf"} {
		lines = append(lines, durations+`_bucket{route="`+route+`",le="`+bound+`"} `+counts[i])
	}
	return append(lines, durations+`_sum{route="`+route+`"} 1`, durations+`_count{route="`+route+`"} `+counts[2])
}

func TestQuantilesAreThoseOfTheSpanAndLeaveHealthChecksOut(t *testing.T) {
	before := readingOf(t, 0, append(buckets("/v1/x", "100", "100", "100"), buckets("/livez", "0", "0", "0")...)...)
	after := readingOf(t, 10*time.Second, append(buckets("/v1/x", "110", "119", "120"), buckets("/livez", "0", "0", "900")...)...)
	s := span{before, after}
	for q, want := range map[float64]float64{.25: .005, .5: .01, .75: .01 + .09*5/9, .99: .1} {
		if got := s.quantile(q, durations, isHealthCheck); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := s.observed(durations); got != 2 {
		t.Errorf("%v requests per second, want 2", got)
	}
	if got := (span{after, after}).quantile(.5, durations, isHealthCheck); !math.IsNaN(got) {
		t.Errorf("quantile of nothing is %v", got)
	}
}

func TestARateIsZeroAfterARestart(t *testing.T) {
	before := readingOf(t, 0, `n_total{system="a"} 100`, `n_total{system="b"} 7`)
	after := readingOf(t, 2*time.Second, `n_total{system="a"} 3`, `n_total{system="b"} 17`)
	s := span{before, after}
	if got := s.rate("n_total", labels{"system": "b"}); got != 5 {
		t.Errorf("rate %v, want 5", got)
	}
	if got := s.rate("n_total", labels{"system": "a"}); got != 0 {
		t.Errorf("rate over a restart is %v, want 0", got)
	}
	if got := (span{after, after}).rate("n_total", nil); got != 0 {
		t.Errorf("rate over no time is %v, want 0", got)
	}
}

func TestBrokenMetricsAreAnError(t *testing.T) {
	if _, err := parseReading(strings.NewReader("<html>no metrics</html>")); err == nil {
		t.Error("HTML was taken for metrics")
	}
}

func TestTheScreenFitsATerminal(t *testing.T) {
	second := .0123
	screen := topScreen{
		Seconds: 2,
		Requests: topRequests{
			PerSecond: 1234.5, Refused: 123.4, InFlight: 1000, MaxInFlight: 1024, Callers: 500,
			P50: &second, P95: &second, P99: &second, Recorded: &second,
		},
		Systems: []topSystem{{Name: "daint", Ended: 123.4, Failed: 1.5, Sessions: 100, Waiting: 900, Open: 200, Idle: 12, Dialing: 3, Dials: 1.5}},
		Nodes:   []topNode{{System: "daint", Node: "login1.centre.org:22", Dead: true, Limit: 16, Starting: 16, Waiting: 900, Users: 90, Refused: 1.5, Recent: second, Baseline: second}},
		Process: topProcess{Cores: 1.25, Resident: 1e8, Goroutines: 12345},
	}
	screen.Version, screen.UptimeSeconds = "v1.0.0-12-gabcdef0", 1e6
	var out strings.Builder
	if err := screen.write(&out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("%d columns, more than 80: %s", len(line)-1, line)
		}
	}
}
