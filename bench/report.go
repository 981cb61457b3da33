package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is everything that a run found.
type report struct {
	Time    time.Time     `json:"time"`
	Machine machine       `json:"machine"`
	Options options       `json:"options"`
	Rows    []row         `json:"rows"`
	Idle    *idleReport   `json:"idle,omitempty"`
	Streams *streamReport `json:"streams,omitempty"`
	Targets []target      `json:"targets"`
}

// A machine is what figures belong to.
type machine struct {
	CPUs     int    `json:"cpus"`
	Load     string `json:"load"` // /proc/loadavg at the end
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Revision string `json:"revision,omitempty"`
}

// A row is a point: the medians over its rounds, and each of them.
type row struct {
	Name    string   `json:"name"`
	Clients int      `json:"clients"`
	Median  sample   `json:"median"`
	Rounds  []sample `json:"rounds"`
	// Error is one of the errors, if there were any.
	Error string `json:"error,omitempty"`
}

func newReport(opt options, points []*point) *report {
	r := &report{Time: time.Now().UTC(), Options: opt, Machine: machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.Machine.Load = strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Machine.Kernel = strings.TrimSpace(string(text))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				r.Machine.Revision = s.Value
			}
		}
	}
	slices.SortStableFunc(points, func(a, b *point) int {
		return cmp.Compare(order(a.name), order(b.name))
	})
	for _, p := range points {
		each := row{Name: p.name, Clients: p.count, Median: medianOf(p.samples), Rounds: p.samples}
		for _, s := range p.samples {
			if s.firstError != nil && each.Error == "" {
				each.Error = s.firstError.Error()
			}
		}
		r.Rows = append(r.Rows, each)
	}
	return r
}

// order is where the rows of a name stand in the table: as in scenarios.
func order(name string) int {
	name = strings.TrimSuffix(name, beforeSuffix)
	return slices.IndexFunc(scenarios(options{}), func(s scenario) bool { return s.name == name })
}

// medianOf takes the median of each figure; errors are summed up.
func medianOf(samples []sample) sample {
	var m sample
	m.Throughput = median(samples, func(s sample) float64 { return s.Throughput })
	m.P50 = median(samples, func(s sample) time.Duration { return s.P50 })
	m.P95 = median(samples, func(s sample) time.Duration { return s.P95 })
	m.P99 = median(samples, func(s sample) time.Duration { return s.P99 })
	m.Done = median(samples, func(s sample) int { return s.Done })
	m.SSHD = median(samples, func(s sample) time.Duration { return s.SSHD })
	m.Sallyport = median(samples, func(s sample) time.Duration { return s.Sallyport })
	m.Bench = median(samples, func(s sample) time.Duration { return s.Bench })
	m.RSS = median(samples, func(s sample) int64 { return s.RSS })
	for _, s := range samples {
		m.Errors += s.Errors
	}
	return m
}

// median is the middle value, or the lower one of two.
func median[T cmp.Ordered](samples []sample, of func(sample) T) T {
	values := make([]T, 0, len(samples))
	for _, s := range samples {
		values = append(values, of(s))
	}
	if len(values) == 0 {
		var none T
		return none
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// print writes the tables.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%d processors, load %s, %s, Linux %s; medians of %d rounds\n\n",
		r.Machine.CPUs, r.Machine.Load, r.Machine.Go, r.Machine.Kernel, r.Options.Rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "row\tclients\tper second\tp50\tp95\tp99\terrors\tsshd\tsallyport\tbench\tsshd\tsallyport\tbench\tRSS\t")
	fmt.Fprintln(t, "\t\t\tms\tms\tms\t\tCPU share\tCPU share\tCPU share\tµs each\tµs each\tµs each\tMiB\t")
	for _, row := range r.Rows {
		m := row.Median
		total := max(m.SSHD+m.Sallyport+m.Bench, 1)
		share := func(d time.Duration) string { return fmt.Sprintf("%.0f %%", 100*float64(d)/float64(total)) }
		// In each round, and then the median: rounds do not have equally many.
		each := func(of func(sample) time.Duration) string {
			return fmt.Sprintf("%.3g", median(row.Rounds, func(s sample) float64 {
				return float64(of(s).Nanoseconds()) / 1000 / float64(max(s.Done, 1))
			}))
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t\n", row.Name, row.Clients, m.Throughput,
			ms(m.P50), ms(m.P95), ms(m.P99), m.Errors, share(m.SSHD), share(m.Sallyport), share(m.Bench),
			each(func(s sample) time.Duration { return s.SSHD }), each(func(s sample) time.Duration { return s.Sallyport }),
			each(func(s sample) time.Duration { return s.Bench }), mib(m.RSS))
	}
	_ = t.Flush() // out is standard output: nobody could be told
	if i := r.Idle; i != nil && i.Connections > 0 {
		fmt.Fprintf(out, "\n%d idle connections: %.1f MiB more resident (%.1f before, %.1f after the logins, %.1f after a collection), %.1f KiB each; "+
			"live heap %.1f KiB, stacks %.1f KiB and %.1f goroutines each\n",
			i.Connections, mib(i.rss()), mib(i.RSSBefore), mib(i.RSSBurst), mib(i.RSSAfter), float64(i.rss())/1024/float64(i.Connections),
			float64(i.Heap)/1024/float64(i.Connections), float64(i.Stacks)/1024/float64(i.Connections), float64(i.Goroutines)/float64(i.Connections))
	}
	if d := r.Streams; d != nil {
		fmt.Fprintf(out, "\n%d downloads of 100 MB at once for %.0f s: %.0f MB/s; resident %.1f MiB before, %.1f early, %.1f at most; %d errors\n",
			d.Downloads, d.Seconds, float64(d.Bytes)/1e6/d.Seconds, mib(d.RSSBefore), mib(d.RSSEarly), mib(d.RSSPeak), d.Errors)
	}
	r.printTargets(out)
	r.printErrors(out)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3g", float64(d.Nanoseconds())/1e6) }
func mib(bytes int64) float64   { return float64(bytes) / (1 << 20) }

func (r *report) printErrors(out io.Writer) {
	for _, row := range r.Rows {
		if row.Median.Errors > 0 {
			fmt.Fprintf(out, "\n*** %d ERRORS: %s, %d clients; the first: %s\n", row.Median.Errors, row.Name, row.Clients, row.Error)
		}
	}
}

func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o600) //nolint:gosec // the file that the user named
}
