package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// A topScreen is one look at a service.
type topScreen struct {
	topStatus
	Seconds  float64     `json:"interval_seconds"`
	Requests topRequests `json:"requests"`
	Systems  []topSystem `json:"systems"`
	Nodes    []topNode   `json:"nodes"`
	Process  topProcess  `json:"process"`
}

// topRequests are the users' requests; latencies are null when there were none.
type topRequests struct {
	PerSecond   float64  `json:"per_second"`
	Refused     float64  `json:"refused_per_second"` // 429 and 503
	InFlight    int      `json:"in_flight"`
	MaxInFlight int      `json:"max_in_flight"`
	Callers     int      `json:"callers"`
	P50         *float64 `json:"p50_seconds"`
	P95         *float64 `json:"p95_seconds"`
	P99         *float64 `json:"p99_seconds"`
	Recorded    *float64 `json:"audit_p99_seconds"`
}

type topSystem struct {
	Name     string  `json:"name"`
	Ended    float64 `json:"commands_per_second"`
	Failed   float64 `json:"failed_per_second"`
	Sessions int     `json:"sessions"`
	Waiting  int     `json:"waiting"`
	Open     int     `json:"connections"`
	Idle     int     `json:"idle_connections"`
	Dialing  int     `json:"dialing"`
	Dials    float64 `json:"logins_per_second"`
	Refused  float64 `json:"failed_logins_per_second"`
}

// topNode is the queue before a login node.
type topNode struct {
	System   string  `json:"system"`
	Node     string  `json:"node"`
	Dead     bool    `json:"unreachable"`
	Limit    int     `json:"starts_limit"`
	Starting int     `json:"starting"`
	Waiting  int     `json:"waiting"`
	Users    int     `json:"waiting_users"`
	Refused  float64 `json:"refused_per_second"`
	Recent   float64 `json:"start_recent_seconds"`
	Baseline float64 `json:"start_baseline_seconds"`
}

type topProcess struct {
	Cores      float64 `json:"cores"`
	Resident   float64 `json:"resident_bytes"`
	Goroutines int     `json:"goroutines"`
}

func screenOf(s span, status topStatus) topScreen {
	const durations = "sallyport_http_request_duration_seconds"
	now := s.after
	whole := func(name string, match labels) int { return int(now.sum(name, match)) }
	screen := topScreen{topStatus: status, Seconds: s.seconds(), Systems: []topSystem{}}
	screen.Requests = topRequests{
		PerSecond:   s.observed(durations),
		Refused:     s.rate("sallyport_http_requests_total", labels{"status": "429"}) + s.rate("sallyport_http_requests_total", labels{"status": "503"}),
		InFlight:    whole("sallyport_http_requests_in_flight", nil),
		MaxInFlight: whole("sallyport_http_requests_in_flight_limit", nil),
		Callers:     whole("sallyport_http_callers_in_flight", nil),
		P50:         known(s.quantile(.5, durations, isHealthCheck)),
		P95:         known(s.quantile(.95, durations, isHealthCheck)),
		P99:         known(s.quantile(.99, durations, isHealthCheck)),
		Recorded:    known(s.quantile(.99, "sallyport_audit_record_duration_seconds", isHealthCheck)),
	}
	for _, name := range now.values("sallyport_pool_connections", "system") {
		of := labels{"system": name}
		ended := labels{"system": name, "action": "exec.end"}
		failed := labels{"system": name, "action": "exec.end", "outcome": "failure"}
		screen.Systems = append(screen.Systems, topSystem{
			Name:  name,
			Ended: s.rate("sallyport_audit_events_total", ended), Failed: s.rate("sallyport_audit_events_total", failed),
			Sessions: whole("sallyport_pool_sessions", of), Waiting: whole("sallyport_pool_waiting", of),
			Open: whole("sallyport_pool_connections", of), Idle: whole("sallyport_pool_idle_connections", of),
			Dialing: whole("sallyport_pool_dialing", of), Dials: s.rate("sallyport_pool_dials_total", of),
			Refused: s.rate("sallyport_pool_dial_failures_total", of),
		})
	}
	screen.Nodes = topNodes(s)
	screen.Process = topProcess{
		Cores: s.rate("process_cpu_seconds_total", nil), Resident: now.sum("process_resident_memory_bytes", nil),
		Goroutines: whole("go_goroutines", nil),
	}
	return screen
}

func topNodes(s span) []topNode {
	list := []topNode{}
	s.after.each("sallyport_node_starts_limit", nil, func(m *dto.Metric) {
		system, node := labelOf(m, "system"), labelOf(m, "node")
		of := labels{"system": system, "node": node}
		list = append(list, topNode{
			System: system, Node: node, Limit: int(m.GetGauge().GetValue()),
			Starting: int(s.after.sum("sallyport_node_starts", of)), Waiting: int(s.after.sum("sallyport_node_waiting", of)),
			Dead:  s.after.sum("sallyport_node_unreachable", of) > 0,
			Users: int(s.after.sum("sallyport_node_waiting_users", of)), Refused: s.rate("sallyport_node_refusals_total", of),
			Recent: s.after.sum("sallyport_node_start_recent_seconds", of), Baseline: s.after.sum("sallyport_node_start_baseline_seconds", of),
		})
	})
	slices.SortFunc(list, func(a, b topNode) int { return cmp.Or(cmp.Compare(a.System, b.System), cmp.Compare(a.Node, b.Node)) })
	return list
}

func known(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

// write shows the screen to a person.
func (t topScreen) write(out io.Writer) error {
	state := "ready"
	switch {
	case t.Draining:
		state = "DRAINING"
	case !t.Ready:
		state = "NOT READY"
	}
	r, p := t.Requests, t.Process
	fmt.Fprintf(out, "sallyport %s  %s  up %s   every %.1f s, q ends\n", t.Version, state, time.Duration(t.UptimeSeconds)*time.Second, t.Seconds)
	fmt.Fprintf(out, "requests  %.1f/s   429 and 503: %.1f/s   in flight %d of %d, %s\n",
		r.PerSecond, r.Refused, r.InFlight, r.MaxInFlight, counted(r.Callers, "caller"))
	fmt.Fprintf(out, "latency   p50 %s   p95 %s   p99 %s   audit record p99 %s\n",
		latencyText(r.P50), latencyText(r.P95), latencyText(r.P99), latencyText(r.Recorded))
	fmt.Fprintf(out, "process   %.2f cores   %.0f MB   %d goroutines\n\n", p.Cores, p.Resident/1e6, p.Goroutines)
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "SYSTEM\tCMDS/S\tFAILED/S\tRUN\tWAIT\tCONNS\tIDLE\tDIALS\tLOGINS/S\tFAILED/S\t")
	for _, y := range t.Systems {
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.1f\t\n",
			y.Name, y.Ended, y.Failed, y.Sessions, y.Waiting, y.Open, y.Idle, y.Dialing, y.Dials, y.Refused)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	// A table of its own, so that both fit a terminal of 80 columns.
	table = tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "NODE\tLIMIT\tBUSY\tWAIT\tUSERS\tREFUSED\tSTART\tUSUAL\tIS\t")
	for _, n := range t.Nodes {
		state := "up"
		if n.Dead {
			state = "DOWN"
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%.1f\t%s\t%s\t%s\t\n",
			n.Node, n.Limit, n.Starting, n.Waiting, n.Users, n.Refused, latencyText(&n.Recent), latencyText(&n.Baseline), state)
	}
	return table.Flush()
}

// latencyText is for a column of its own: "-" when nothing was measured.
func latencyText(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return time.Duration(*seconds * float64(time.Second)).Round(10 * time.Microsecond).String()
}
