// Package metrics turns what the parts of a daemon know of themselves into
// Prometheus metrics.
//
// Nothing is counted twice: requests come from the HTTP layer, outcomes from the
// audit log, through which every act goes anyway, and queues, limits and pools
// from the snapshots of their owners, taken when somebody scrapes.
//
// Guarantee: labels are few and bounded. They name routes, systems, nodes and
// issuers of the configuration and the codes and actions of the program; never a
// caller, a path, a command or anything else that a client can choose.
package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const namespace = "sallyport"

// latency are the bounds of duration histograms in seconds: a pooled command takes
// milliseconds, a login tenths of a second, a command up to its timeout.
var latency = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// Metrics are those of one daemon. Make them with [New].
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	sent     *prometheus.CounterVec
	events   *prometheus.CounterVec
	records  prometheus.Histogram
	unsaved  prometheus.Counter
	// overShare counts acts that were refused because their caller's part of the log was used up.
	overShare prometheus.Counter
}

// New returns metrics that know the process and the version, and nothing else yet.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "http_requests_total",
			Help: "Requests answered, by route template, method, status and problem code (empty: none).",
		}, []string{"route", "method", "status", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "http_request_duration_seconds", Buckets: latency,
			Help: "Time from the head of a request to the end of its answer, streams included.",
		}, []string{"route"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "http_response_bytes_total", Help: "Bytes of answers' bodies.",
		}, []string{"route"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "audit_events_total",
			Help: "Events in the audit log, by action, outcome and system (empty: none).",
		}, []string{"action", "outcome", "system"}),
		records: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "audit_record_duration_seconds", Buckets: latency[:13],
			Help: "Time until an event was durable in the audit log.",
		}),
		unsaved: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "audit_record_failures_total",
			Help: "Events that could not be recorded, so that the act did not happen.",
		}),
		overShare: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "audit_share_refusals_total",
			Help: "Events that were not recorded, and acts that did not happen, because their caller's part of the audit log was used up.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "1, with the version of the program.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.requests, m.duration, m.sent, m.events, m.records, m.unsaved, m.overShare,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Gatherer gives the values of now, to serve them to a scraper.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Request counts an answered request. The route is a template, the method one of
// the known ones.
func (m *Metrics) Request(route, method string, status int, code string, bytes int64, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status), code).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
	m.sent.WithLabelValues(route).Add(float64(bytes))
}
