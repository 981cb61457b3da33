package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A target is a figure to reach, as a ratio within one run wherever it can be one.
type target struct {
	Name    string  `json:"name"`
	Want    float64 `json:"want"`
	AtLeast bool    `json:"at_least"` // else: at most
	Unit    string  `json:"unit,omitempty"`
	Got     float64 `json:"got"`
	// Measured is false when a row that it needs was left out.
	Measured bool `json:"measured"`
}

func (t target) reached() bool {
	if t.AtLeast {
		return t.Got >= t.Want
	}
	return t.Got <= t.Want
}

// judge computes the targets of issues 4 and 5. Ratios are taken round by round, where
// both sides were measured within seconds, and then their median.
func judge(r *report) []target {
	raw := r.best("raw")
	rate := func(s sample) float64 { return s.Throughput }
	p50 := func(s sample) float64 { return s.P50.Seconds() * 1000 }
	p99 := func(s sample) float64 { return s.P99.Seconds() * 1000 }
	isolated, warm := r.row("isolated", 500), r.row("warm", 500)
	targets := []target{
		compare("isolated, 500 clients: throughput / best of raw", 1, true, "", isolated, raw, rate, rate, divide),
		compare("isolated, 500 clients: p99 / p50", 2, false, "", isolated, isolated, p99, p50, divide),
		errorsOf("isolated, 500 clients: errors", isolated),
		compare("warm, 500 clients: throughput / best of raw", 2.5, true, "", warm, raw, rate, rate, divide),
		compare("isolated, 1 client: p50 above that of raw", 0.4, false, "ms", r.row("isolated", 1), r.row("raw", 1), p50, p50, minus),
		compare("isolated, 500 clients: Sallyport's share of its and sshd's CPU", 0.35, false, "", isolated, isolated, serviceCPU, bothCPU, divide),
		compare("certificates over HTTP, 64 clients", 5000, true, "/s", r.row("certificate", 64), r.row("certificate", 64), rate, rate, first),
	}
	idle := target{Name: "1,000 idle connections: resident memory", Want: 60, Unit: "MB"}
	if r.Idle != nil && r.Idle.Connections > 0 {
		idle.Got = float64(r.Idle.rss()) / 1e6 * 1000 / float64(r.Idle.Connections)
		idle.Measured = true
	}
	return append(append(targets, idle), r.fileTargets()...)
}

// fileTargets are those of issue 5.
func (r *report) fileTargets() (targets []target) {
	rate := func(s sample) float64 { return s.Throughput }
	p50 := func(s sample) float64 { return s.P50.Seconds() }
	p99 := func(s sample) float64 { return s.P99.Seconds() }
	for _, want := range []struct {
		name string
		rate float64
	}{{"stat", 8000}, {"ls", 1500}, {"head", 1500}} {
		row := r.row(want.name, 500)
		targets = append(targets,
			compare(want.name+", 500 clients", want.rate, true, "/s", row, row, rate, rate, first),

			compare(want.name+", 500 clients: p99 / p50", 3, false, "", row, row, p99, p50, divide),
			errorsOf(want.name+", 500 clients: errors", row))
	}
	flat := target{Name: "200 downloads of 100 MB: peak / early resident memory", Want: 1.15}
	if d := r.Streams; d != nil {
		flat.Got, flat.Measured = float64(d.RSSPeak)/float64(max(d.RSSEarly, 1)), true
	}
	return append(targets, flat)
}

func serviceCPU(s sample) float64 { return s.Sallyport.Seconds() }
func bothCPU(s sample) float64    { return max(s.SSHD+s.Sallyport, time.Nanosecond).Seconds() }

func divide(a, b float64) float64 { return a / max(b, 1e-9) }
func minus(a, b float64) float64  { return a - b }
func first(a, _ float64) float64  { return a }

// compare combines two rows in every round.
func compare(name string, want float64, atLeast bool, unit string, a, b *row, ofA, ofB func(sample) float64, combine func(a, b float64) float64) target {
	t := target{Name: name, Want: want, AtLeast: atLeast, Unit: unit}
	if a == nil || b == nil {
		return t
	}
	var values []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		values = append(values, combine(ofA(a.Rounds[i]), ofB(b.Rounds[i])))
	}
	slices.Sort(values)
	t.Got, t.Measured = values[(len(values)-1)/2], true
	return t
}

func errorsOf(name string, r *row) target {
	t := target{Name: name}
	if r != nil {
		t.Got, t.Measured = float64(r.Median.Errors), true
	}
	return t
}

func (r *report) row(name string, clients int) *row {
	for i := range r.Rows {
		if r.Rows[i].Name == name && r.Rows[i].Clients == clients {
			return &r.Rows[i]
		}
	}
	return nil
}

// best is the row of a name with the highest throughput: for raw, its knee.
func (r *report) best(name string) *row {
	var best *row
	for i := range r.Rows {
		if r.Rows[i].Name == name && (best == nil || r.Rows[i].Median.Throughput > best.Median.Throughput) {
			best = &r.Rows[i]
		}
	}
	return best
}

func (r *report) printTargets(out io.Writer) {
	fmt.Fprintln(out, "\ntargets")
	if best := r.best("raw"); best != nil {
		fmt.Fprintf(out, "(raw is at its best with %d in flight: %.0f/s)\n", best.Clients, best.Median.Throughput)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, each := range r.Targets {
		sign := "<="
		if each.AtLeast {
			sign = ">="
		}
		verdict, got := "not measured", "-"
		if each.Measured {
			got = fmt.Sprintf("%.3g%s", each.Got, each.Unit)
			verdict = "missed"
			switch {
			case each.Got < 0: // more work cannot take less time
				verdict = "too noisy to say"
			case each.reached():
				verdict = "reached"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s %.4g%s\t%s\n", each.Name, got, sign, each.Want, each.Unit, verdict)
	}
	_ = t.Flush() // as in print
}
