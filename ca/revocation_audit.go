package ca

import (
	"fmt"
	"strconv"
	"strings"

	"sallyport/store/audit"
)

// maxReasonBytes bounds what an administrator may give as a reason.
const maxReasonBytes = 256

// check refuses a reason that would not be one line of the audit log.
func (a Actor) check() error {
	if len(a.Reason) > maxReasonBytes || strings.ContainsFunc(a.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return &RequestError{CodeRevocation, "reason", fmt.Sprintf("is not one line of at most %d bytes", maxReasonBytes)}
	}
	return nil
}

// event is the record of an act on a revocation.
func (r Revocation) event(act string, actor Actor, outcome audit.Outcome) audit.Event {
	e := audit.Event{
		Action: audit.AdminAct, Outcome: outcome,
		Detail: map[string]string{"act": act, "uid": strconv.Itoa(actor.UID), "revoked_" + string(r.Kind): r.Value},
	}
	if actor.Reason != "" {
		e.Detail["act_reason"] = actor.Reason
	}
	return e
}
