package ca

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sallyport/ca/approval"
	"sallyport/ca/revocation"
)

// An Approver returns nil if an act may be done now; see [approval.Gate].
type Approver interface {
	Pass(ctx context.Context, r approval.Request) error
}

// approve asks for a second person where one is needed. The approval is for this key and
// this generation of the ring: after another step it means nothing.
func (a *Authority) approve(ctx context.Context, v *ringView, act Act, c change) error {
	if a.approvals == nil {
		return nil
	}
	r := approval.Request{By: approval.Person{UID: act.Actor.UID}, Reason: clipDetail(act.Actor.Reason)}
	if slices.Contains(approval.Acts(), act.Step) { // the names are the same
		r.Acts = append(r.Acts, act.Step)
	}
	except := slices.Sorted(slices.Values(act.Except))
	r.Text = strings.TrimSpace(fmt.Sprintf("%s of CA key %s", act.Step, c.key))
	if len(except) > 0 {
		r.Acts = append(r.Acts, approval.Except)
		r.Text += " without proof about " + clipDetail(strings.Join(except, ", "))
	}
	if len(r.Acts) == 0 {
		return nil
	}
	r.Key = fmt.Sprintf("%s %s %d %q", act.Step, c.key, v.Generation, except)
	return a.approvals.Pass(ctx, r)
}

// ApproveLift asks for a second person, where one is needed, for the end of a revocation;
// a process without an authority asks too.
// The approval is for the act that stands now: one that is made again since is another.
func ApproveLift(ctx context.Context, approvals Approver, actor Actor, r revocation.Act, standing *revocation.Index) error {
	if approvals == nil {
		return nil
	}
	r = standing.Of(r)
	return approvals.Pass(ctx, approval.Request{
		Acts: []string{approval.Lift}, Text: fmt.Sprintf("end of the revocation of %s %s", r.Kind, clip(r.Value)), Key: fmt.Sprintf("%s %s %d", r.Kind, r.Value, r.At.UnixNano()),
		Reason: clipDetail(actor.Reason), By: approval.Person{UID: actor.UID},
	})
}
