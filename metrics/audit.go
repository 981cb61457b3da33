package metrics

import (
	"context"
	"errors"
	"time"

	"sallyport/store/audit"
)

// Recorder returns a recorder that counts what next has made durable. The systems
// of events are those of the configuration, since no event names another one.
func (m *Metrics) Recorder(next audit.Recorder) audit.Recorder {
	return recorder{next: next, m: m}
}

type recorder struct {
	next audit.Recorder
	m    *Metrics
}

func (r recorder) Record(ctx context.Context, e audit.Event) error {
	began := time.Now()
	err := r.next.Record(ctx, e)
	if err == nil {
		r.m.records.Observe(time.Since(began).Seconds())
	}
	r.count(e, err)
	return err
}

// RecordLater counts as Record does, but no time: nobody waits.
func (r recorder) RecordLater(ctx context.Context, e audit.Event, done func(error)) {
	audit.RecordLater(ctx, r.next, e, func(err error) {
		r.count(e, err)
		done(err)
	})
}

func (r recorder) count(e audit.Event, err error) {
	switch {
	case errors.Is(err, audit.ErrShare):
		r.m.overShare.Inc()
		return
	case err != nil:
		r.m.unsaved.Inc()
		return
	}
	r.m.events.WithLabelValues(string(e.Action), string(e.Outcome), e.System).Inc()
}
