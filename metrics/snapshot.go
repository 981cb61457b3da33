package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A sample is one value of a snapshot.
type sample struct {
	*family
	value  float64
	labels []string
}

// A family is one metric with its labels.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) *family {
	return &family{prometheus.NewDesc(namespace+"_"+name, help, labels, nil), prometheus.GaugeValue}
}

// counter is for numbers that never fall while the program runs.
func counter(name, help string, labels ...string) *family {
	return &family{prometheus.NewDesc(namespace+"_"+name, help, labels, nil), prometheus.CounterValue}
}

// of returns a value of the family.
func of[T int | int64 | uint64 | float64 | time.Duration](f *family, value T, labels ...string) sample {
	number := float64(value)
	if d, ok := any(value).(time.Duration); ok {
		number = d.Seconds()
	}
	return sample{f, number, labels}
}

// A snapshot is a collector whose values are taken at once, when they are asked
// for. It is unchecked (it describes nothing), since what there is to say depends
// on the configuration; the registry still refuses values that contradict.
type snapshot func() []sample

// Describe implements [prometheus.Collector].
func (snapshot) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (s snapshot) Collect(out chan<- prometheus.Metric) {
	for _, v := range s() {
		out <- prometheus.MustNewConstMetric(v.desc, v.kind, v.value, v.labels...)
	}
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
