package main

import (
	"fmt"
	"strings"
	"time"

	"sallyport/ca/approval"
	"sallyport/ca/revocation"
	"sallyport/policy"
	"sallyport/store"
	"sallyport/store/audit"
)

// ApprovalSection configures acts that take two people.
type ApprovalSection struct {
	// Acts of administrators that are done only after another person has approved
	// them: steps of a CA key, "except" for a step with --except, "lift" for
	// revoke --lift, "restore" for serving from a restored data folder. Empty means none.
	Acts []string `key:"acts" check:"activate|retire|rollback|compromise|except|lift|restore" example:"compromise"`
	// How long a proposal waits for its approval, and an approval for its act.
	Within time.Duration `key:"within" default:"15m" check:"1m..24h"`
	// Groups (policy.groups_claim) whose members approve by their token. Without any,
	// only another account does, by the admin socket: root or the service's own.
	AdminGroups []string `key:"admin_groups" example:"sallyport-admins"`
}

// checkApproval finds groups that nobody is in, and groups of people who would have
// nothing to approve.
func (d *decoder) checkApproval(s ApprovalSection) {
	for _, group := range s.AdminGroups {
		if group == "" || strings.TrimSpace(group) != group {
			d.fail("approval.admin_groups", "%q must be the name of a group, without spaces around it", group)
		}
	}
	if len(s.AdminGroups) > 0 && len(s.Acts) == 0 {
		d.warn("approval.admin_groups", "has no effect: approval.acts names no act that takes two people")
	}
}

// newGate opens the gate of a data folder. An approval of somebody whose access was
// revoked since counts no more, if refused knows of that.
func newGate(f File, db store.Store, log audit.Recorder, refused func(approval.Person) bool) (*approval.Gate, error) {
	return approval.New(approval.Config{Store: db, Audit: log, Acts: f.Approval.Acts, Within: f.Approval.Within, Refused: refused})
}

// refused says whether the access of somebody with a token was revoked.
func (p *parts) refused(by approval.Person) bool {
	return by.Subject != "" && p.revoked != nil &&
		p.revoked.Refuse(revocation.Use{Issuer: by.Issuer, Subject: by.Subject, Accounts: []string{by.Login}}) != nil
}

// approvers is the role of administrators: a policy of one rule, and nil without groups.
func approvers(f File) (*policy.Policy, error) {
	if len(f.Approval.AdminGroups) == 0 {
		return nil, nil //nolint:nilnil // nobody approves by a token
	}
	p, err := policy.New(policy.Config{
		Rules:       []policy.Rule{{Name: "approval.admin_groups", Groups: f.Approval.AdminGroups}},
		GroupsClaim: f.Policy.GroupsClaim, Operations: operations(),
	})
	if err != nil {
		return nil, fmt.Errorf("approval.admin_groups: %w", err)
	}
	return p, nil
}
