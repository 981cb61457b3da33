package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Bind sees to it that every person who was revoked is one of an issuer of the
// configuration. Acts of older versions name the issuer by its alias, others by a URL
// that it had before: they are written anew under the URL of today. An error names each
// act that is nobody's; it would have no effect, in silence, which must not be.
func (r *Register) Bind(ctx context.Context) error {
	var errs []error
	for _, a := range r.Index().Standing(time.Now()) {
		if a.Kind != Subject {
			continue
		}
		value, err := r.issuers.person(a.Value)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("a revocation stands of subject %q, whose issuer is not configured, so that it would have no effect; "+
				"put the issuer's former name, %q, into former_names of its [[issuers]] table, or lift it: sallyport revoke --lift --subject '%s'",
				a.Value, nameOf(a.Value), a.Value))
		case value != a.Value:
			errs = append(errs, r.rename(ctx, a, value))
		}
	}
	return errors.Join(errs...)
}

// nameOf is the name of the issuer in an act of a person.
func nameOf(value string) string {
	separator := ":"
	if isURL(value) {
		separator = "#"
	}
	name, _, _ := strings.Cut(value, separator)
	return name
}

// rename writes an act anew under the name that its person has today, and only then
// takes the former one away.
func (r *Register) rename(ctx context.Context, a Act, value string) error {
	next := a
	next.Value = value
	r.log.WarnContext(ctx, "a revocation is of the person that the configuration names today; make sure that it is the same one",
		slog.String("before", a.Value), slog.String("now", value))
	return r.Recorded(ctx, "revoke.rename", Actor{UID: a.UID, Reason: a.Reason}, next, func(ctx context.Context, detail map[string]string) error {
		detail["before"] = a.Value
		if err := r.Put(ctx, next); err != nil {
			return err
		}
		return r.Drop(ctx, a)
	})
}
