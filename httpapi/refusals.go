package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/httpapi/places"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"
)

// The refused tokens and denied calls that are recorded, per minute. Each record costs an fsync and
// half a kilobyte for ever, and anyone can send bad tokens: 120 a minute are 90 MB
// a day. Tokens of the issuers' own making are recorded apart, so that a flood of
// the others cannot hide them.
const (
	maxUnverifiedRefusals = 120
	maxVerifiedRefusals   = 1200
)

// refusals records refused tokens; above the bounds it counts them instead, and
// the next record of the kind carries the count.
type refusals struct {
	audit audit.Recorder
	log   *slog.Logger

	mu                                    sync.Mutex // guards what follows
	unverified, verified, denied, revoked quota
}

// A quota is what was recorded of one kind in the current minute. One person, or one
// network without a person, has a quarter of it, so that nobody can hide what others try.
type quota struct {
	minute               time.Time
	recorded, suppressed int
	each                 map[string]int // no more than were recorded
}

// refusalParts is the number of parts that a quota has.
const refusalParts = 4

func (f *refusals) record(ctx context.Context, cause error) {
	e := audit.Event{Action: audit.TokenRefused, Outcome: audit.Failure, Reason: oneLine(cause.Error())}
	refusal, verified := errors.AsType[*identity.RefusalError](cause)
	if verified {
		e.Issuer, e.Subject = refusal.Issuer, refusal.Subject
	}
	q, most := &f.unverified, maxUnverifiedRefusals
	if verified {
		q, most = &f.verified, maxVerifiedRefusals
	}
	f.write(ctx, e, q, most)
}

// recordDenied records a call that the policy denies.
func (f *refusals) recordDenied(ctx context.Context, caller identity.Identity, act policy.Act, cause error) {
	detail := caller.TokenDetail()
	detail["operation"] = act.Operation
	if len(act.Paths) > 0 {
		detail["path"] = oneLine(act.Paths[0].Real)
	}
	f.write(ctx, audit.Event{
		Action: audit.CallDenied, Outcome: audit.Failure, Reason: oneLine(cause.Error()),
		Issuer: caller.Alias(), Subject: caller.Subject(), Login: caller.Login(), System: act.System,
		Detail: detail,
	}, &f.denied, maxVerifiedRefusals)
}

// write records an event unless too many of its kind were recorded in the minute.
func (f *refusals) write(ctx context.Context, e audit.Event, q *quota, most int) {
	whose := e.Issuer + "\x00" + e.Subject
	if e.Issuer == "" {
		whose = areaOf(audit.RequestFrom(ctx).SourceIP)
	}
	suppressed, ok := f.admit(q, whose, most, time.Now())
	if !ok {
		return
	}
	if suppressed > 0 {
		if e.Detail == nil {
			e.Detail = make(map[string]string)
		}
		e.Detail["suppressed"] = strconv.Itoa(suppressed)
	}
	// What is refused stays refused whether or not this can be recorded, and the record
	// must not depend on whether the client waits for it.
	err := f.audit.Record(context.WithoutCancel(ctx), e)
	if errors.Is(err, audit.ErrShare) {
		f.mu.Lock()
		q.suppressed += suppressed + 1
		f.mu.Unlock()
		return
	}
	if err != nil {
		f.log.LogAttrs(ctx, slog.LevelError, "refusal was not recorded",
			slog.String("request_id", audit.RequestFrom(ctx).ID), slog.Any("error", err))
	}
}

// areaOf is the network of an address that counts as one client.
func areaOf(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	return places.Area(a).String()
}

// admit says whether to record now, and how many were left out before.
func (f *refusals) admit(q *quota, whose string, most int, now time.Time) (suppressed int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(q.minute) {
		q.minute, q.recorded, q.each = minute, 0, make(map[string]int)
	}
	if q.recorded >= most || whose != "" && q.each[whose] >= most/refusalParts {
		q.suppressed++
		return 0, false
	}
	q.recorded++
	q.each[whose]++
	suppressed, q.suppressed = q.suppressed, 0
	return suppressed, true
}

// oneLine bounds an internal reason for the audit log.
func oneLine(s string) string {
	s = strings.ReplaceAll(s, "\n", ": ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
