package ship

import (
	"context"
	"fmt"

	"sallyport/store/audit"
)

// Reserve is how far acts of administrators may go beyond [Config.MaxBacklog].
const Reserve = 64 << 20

// Recorder returns a recorder that refuses the records of acts, and so the acts, while
// a destination is further behind than the configuration allows. Nothing that was done
// goes without its record: the ends of acts are always taken, and acts of
// administrators have a reserve, so that they can revoke what must be revoked.
func (s *Shippers) Recorder(next audit.Recorder) audit.Recorder {
	if !s.cfg.Refuse || len(s.dests) == 0 {
		return next
	}
	return gate{s, next}
}

type gate struct {
	ship *Shippers
	next audit.Recorder
}

func (g gate) Record(ctx context.Context, e audit.Event) error {
	if err := g.ship.refusal(e.Action); err != nil {
		return err
	}
	return g.next.Record(ctx, e)
}

func (g gate) RecordLater(ctx context.Context, e audit.Event, done func(error)) {
	if err := g.ship.refusal(e.Action); err != nil {
		done(err)
		return
	}
	audit.RecordLater(ctx, g.next, e, done)
}

// Ready says whether acts can be recorded.
func (s *Shippers) Ready() error {
	if !s.cfg.Refuse {
		return nil
	}
	return s.refusal(audit.ExecStart)
}

// refusal says why an act must wait, nil if it need not.
func (s *Shippers) refusal(a audit.Action) error {
	most := s.cfg.MaxBacklog
	switch a {
	case audit.ExecEnd, audit.FileEnd, audit.CertificateIssued, audit.Checkpointed:
		return nil
	case audit.AdminAct:
		most += Reserve
	default:
	}
	for _, d := range s.dests {
		if behind := d.backlog(); behind > most {
			return fmt.Errorf("%w: %d bytes are not shipped to %q yet, more than %d", audit.ErrUnavailable, behind, d.target.Name, most)
		}
	}
	return nil
}
