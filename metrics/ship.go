package metrics

import (
	"time"

	"sallyport/store/audit/ship"
)

var (
	shipRecords  = gauge("audit_unshipped_records", "Audit events that a receiver is not known to have.", "destination")
	shipBytes    = gauge("audit_unshipped_bytes", "Bytes of these events.", "destination")
	shipAge      = gauge("audit_unshipped_oldest_seconds", "Age of the first of these events; 0 when there is none.", "destination")
	shipSent     = counter("audit_shipped_records_total", "Audit events sent to a receiver, repeats included.", "destination")
	shipFailures = counter("audit_ship_failures_total", "Breaks and refusals of a receiver.", "destination")
	shipFailing  = gauge("audit_ship_failing", "1 while a receiver gets nothing, by the kind of the last error.", "destination", "kind")
)

// Shipping adds how far the receivers of audit events are. Their names are those of the
// configuration.
func (m *Metrics) Shipping(status func() []ship.Status) {
	m.registry.MustRegister(snapshot(func() (samples []sample) {
		for _, s := range status() {
			age := time.Duration(0)
			if !s.Oldest.IsZero() {
				age = max(0, time.Since(s.Oldest))
			}
			samples = append(samples, of(shipRecords, s.Records, s.Name), of(shipBytes, s.Bytes, s.Name), of(shipAge, age, s.Name),
				of(shipSent, s.Sent, s.Name), of(shipFailures, s.Failures, s.Name))
			if s.Failing != "" {
				samples = append(samples, of(shipFailing, 1, s.Name, string(s.Failing)))
			}
		}
		return samples
	}))
}
