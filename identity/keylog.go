package identity

import (
	"context"
	"log/slog"
	"slices"
)

// logOutcome warns once per outage, not once per attempt.
func (k *keyring) logOutcome(ctx context.Context, before, err error) {
	switch {
	case err == nil && before != nil:
		k.logger.LogAttrs(ctx, slog.LevelInfo, "keys can be fetched again")
	case err == nil || ctx.Err() != nil:
	case before == nil:
		k.logger.LogAttrs(ctx, slog.LevelWarn, "keys cannot be fetched", slog.String("error", err.Error()))
	default:
		k.logger.LogAttrs(ctx, slog.LevelDebug, "keys still cannot be fetched", slog.String("error", err.Error()))
	}
}

// report logs what changed. A set that shares no key with the one before is
// what an attack on the issuer would look like, so it is a warning.
func (k *keyring) report(ctx context.Context, old *snapshot, set *keySet) {
	for _, err := range set.refused {
		k.logger.LogAttrs(ctx, slog.LevelWarn, "key refused", slog.String("reason", err.Error()))
	}
	attrs := []slog.Attr{slog.Int("keys", len(set.keys))}
	switch {
	case len(set.keys) == 0:
		k.logger.LogAttrs(ctx, slog.LevelWarn, "issuer has no usable key", attrs...)
	case old != nil && len(old.set.keys) > 0 && !set.overlaps(old.set):
		k.logger.LogAttrs(ctx, slog.LevelWarn, "all keys of the issuer were replaced at once", attrs...)
	default:
		k.logger.LogAttrs(ctx, slog.LevelInfo, "keys loaded", attrs...)
	}
}

func (s *keySet) overlaps(other *keySet) bool {
	return slices.ContainsFunc(s.keys, func(a key) bool {
		return slices.ContainsFunc(other.keys, func(b key) bool { return a.thumb == b.thumb })
	})
}
