package metrics

import (
	"time"

	"sallyport/store/audit"
	"sallyport/store/audit/ship"
)

var (
	shipRecords  = gauge("audit_unshipped_records", "Audit events that a receiver is not known to have.", "destination")
	shipBytes    = gauge("audit_unshipped_bytes", "Bytes of these events.", "destination")
	shipAge      = gauge("audit_unshipped_oldest_seconds", "Age of the first of these events; 0 when there is none.", "destination")
	shipSent     = counter("audit_shipped_records_total", "Audit events sent to a receiver, repeats included.", "destination")
	shipFailures = counter("audit_ship_failures_total", "Breaks and refusals of a receiver.", "destination")
	signUnsigned = gauge("audit_unsigned_events", "Audit events since the last checkpoint, or since the start.")
	signedAt     = gauge("audit_signed_timestamp_seconds", "When the last checkpoint was signed; 0: not since the start.")
	signFailures = counter("audit_sign_failures_total", "Checkpoints that could not be signed or recorded.")

	archived        = counter("audit_archived_files_total", "Audit files moved to the archive.")
	archiveFailures = counter("audit_archive_failures_total", "Attempts to archive that failed.")

	shipFailing = gauge("audit_ship_failing", "1 while a receiver gets nothing, by the kind of the last error.", "destination", "kind")
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

// Signing adds how far the audit log is signed.
func (m *Metrics) Signing(status func() audit.SignerStatus) {
	m.registry.MustRegister(snapshot(func() []sample {
		s := status()
		return []sample{of(signUnsigned, s.Unsigned), of(signedAt, unix(s.Signed.Time)), of(signFailures, s.Failures)}
	}))
}

// Archiving adds what became of old audit files.
func (m *Metrics) Archiving(counts func() (moved, failures uint64)) {
	m.registry.MustRegister(snapshot(func() []sample {
		moved, failures := counts()
		return []sample{of(archived, moved), of(archiveFailures, failures)}
	}))
}
