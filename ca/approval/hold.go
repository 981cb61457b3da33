package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/store"
	"sallyport/store/audit"
)

const (
	holdKey = "approval-hold"
	actsKey = "approval-acts"
)

// Hold makes what follows wait for a second person, whenever that comes: see [Gate.Release],
// whose configuration decides. It is for an act after which the process that did it is
// gone, such as a restore. The error is a [*HeldError] if the act takes two people by the
// configuration of this gate, too.
func (g *Gate) Hold(ctx context.Context, r Request) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode hold: %w", err)
	}
	e, err := g.store.Get(ctx, holdKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("hold: %w", err)
	}
	if _, err := g.store.Put(ctx, store.Entry{Key: holdKey, Value: text, Revision: e.Revision}); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	return g.Pass(ctx, r)
}

// Release returns nil if nothing is held, or if a second person has approved what was: then
// it is over. Else the error is a [*HeldError].
func (g *Gate) Release(ctx context.Context) error {
	e, err := g.store.Get(ctx, holdKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	var r Request
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return fmt.Errorf("hold is damaged: %w", err)
	}
	if err := g.Pass(ctx, r); err != nil {
		return err
	}
	if err := g.store.Delete(ctx, e); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	return nil
}

// Announce records a change of what is held since the last time, so that nobody turns the
// second person off in silence.
func (g *Gate) Announce(ctx context.Context) error {
	now := strings.Join(slices.Sorted(slices.Values(g.acts)), ",")
	e, err := g.store.Get(ctx, actsKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("acts that are held: %w", err)
	}
	if string(e.Value) == now {
		return nil
	}
	if err := g.audit.Record(ctx, audit.Event{
		Action: audit.AdminAct, Outcome: audit.Success,
		Detail: map[string]string{"act": "approval.acts", "from": string(e.Value), "to": now},
	}); err != nil {
		return err
	}
	if _, err := g.store.Put(ctx, store.Entry{Key: actsKey, Value: []byte(now), Revision: e.Revision}); err != nil {
		return fmt.Errorf("acts that are held: %w", err)
	}
	return nil
}
