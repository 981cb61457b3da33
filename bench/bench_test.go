package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestEveryRowIsMeasured is the whole program on a small scale: real sshd, real
// service, every scenario once. It says nothing about speed.
func TestEveryRowIsMeasured(t *testing.T) {
	file := filepath.Join(t.TempDir(), "result.json")
	binary, err := build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	opt, err := parse([]string{"--quick", "--idle", "2", "--json", file, "--binary", binary, "--before", binary}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := run(t.Context(), opt, &table, t.Output()); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, want := range scenarios(opt) {
		for _, n := range want.clients {
			row := got.row(want.name, n)
			switch {
			case row == nil && want.name == "warm": // of another binary
			case row == nil:
				t.Errorf("%s with %d clients was not measured", want.name, n)
			case row.Median.Errors > 0:
				t.Errorf("%s with %d clients: %s", want.name, n, row.Error)
			}
		}
	}
	for name, clients := range map[string]int{"isolated": 8, "isolated before": 8, "certificate": 64} {
		if row := got.row(name, clients); row == nil || row.Median.Sallyport == 0 || row.Median.RSS == 0 {
			t.Errorf("%s has no processor time or memory of sallyport: %+v", name, row)
		}
	}
	if got.Idle == nil || got.Idle.Connections != 2 || got.Idle.RSSAfter == 0 || got.Idle.Goroutines <= 0 {
		t.Errorf("idle connections: %+v", got.Idle)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--clients 0": "--clients", "--clients 1,x": "--clients", "--clients 801": "--clients", "--rounds 0": "--rounds",
		"--seconds 0": "--seconds", "--idle -1": "--idle", "--only (": "--only", "more": "unexpected argument",
	} {
		if _, err := parse(strings.Fields(args), t.Output()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not name %s", args, err, want)
		}
	}
	opt, err := parse([]string{"--quick", "--rounds", "3"}, t.Output())
	if err != nil || opt.Rounds != 3 || opt.Window != 100*time.Millisecond {
		t.Errorf("--quick does not leave what is given: %+v, %v", opt, err)
	}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	t.Parallel()
	rates := func(values ...float64) (samples []sample) {
		for _, v := range values {
			samples = append(samples, sample{Throughput: v, P50: time.Second, P99: 2 * time.Second, SSHD: 3, Sallyport: 1})
		}
		return samples
	}
	rows := func(name string, clients int, values ...float64) row {
		return row{Name: name, Clients: clients, Median: medianOf(rates(values...)), Rounds: rates(values...)}
	}
	// The machine was at half its speed in the second round.
	r := &report{Rows: []row{rows("raw", 1, 10, 5, 10), rows("raw", 8, 100, 50, 100), rows("isolated", 500, 90, 45, 120)}}
	r.Rows[2].Median.Errors = 1
	targets := judge(r)
	for name, want := range map[string]struct {
		got      float64
		measured bool
		reached  bool
	}{
		"isolated, 500 clients: throughput / best of raw":                {0.9, true, false},
		"isolated, 500 clients: p99 / p50":                               {2, true, true},
		"isolated, 500 clients: errors":                                  {1, true, false},
		"isolated, 500 clients: Sallyport's share of its and sshd's CPU": {0.25, true, true},
		"warm, 500 clients: throughput / best of raw":                    {0, false, false},
		"1,000 idle connections: resident memory":                        {0, false, true},
	} {
		found := false
		for _, each := range targets {
			if each.Name != name {
				continue
			}
			found = true
			if each.Got != want.got || each.Measured != want.measured || each.reached() != want.reached {
				t.Errorf("%s: %+v, want %+v", name, each, want)
			}
		}
		if !found {
			t.Errorf("there is no target %q", name)
		}
	}
	r.Targets = targets
	var out bytes.Buffer
	r.printTargets(&out)
	if !regexp.MustCompile(`(?m)best of raw +0\.9 +>= 1 +missed$`).MatchString(out.String()) {
		t.Errorf("the table does not say what was missed:\n%s", out.String())
	}
}

func TestQuantilesAndMedians(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	if p50, p99 := quantile(hundred, 0.5), quantile(hundred, 0.99); p50 != 51 || p99 != 100 {
		t.Errorf("p50 %d, p99 %d", p50, p99)
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing is %d", got)
	}
	m := medianOf([]sample{{Done: 3, Errors: 1}, {Done: 1}, {Done: 2, Errors: 2}})
	if m.Done != 2 || m.Errors != 3 {
		t.Errorf("median is %+v", m)
	}
}
