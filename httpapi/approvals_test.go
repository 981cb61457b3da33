package httpapi

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/ca/approval"
	"sallyport/policy"
	"sallyport/store/bolt"
)

// noApprovals is a service where nothing waits.
type noApprovals struct{}

func (noApprovals) Approve(context.Context, approval.Person, string) (approval.Proposal, error) {
	return approval.Proposal{}, approval.ErrUnknown
}

func (noApprovals) Reject(context.Context, approval.Person, string) (approval.Proposal, error) {
	return approval.Proposal{}, approval.ErrUnknown
}

func (noApprovals) List(context.Context) ([]approval.Proposal, error) {
	return []approval.Proposal{}, nil
}

// administrators are the logins that may approve.
func administrators(t testing.TB, logins ...string) *policy.Policy {
	t.Helper()
	p, err := policy.New(policy.Config{Rules: []policy.Rule{{Name: "administrators", Users: logins}}, Operations: Operations()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// proposed makes a service where root has proposed to end a CA key.
func proposed(t *testing.T, logins ...string) (s *service, gate *approval.Gate, request approval.Request, id string) {
	t.Helper()
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s = start(t, func(c *Config) {
		if gate, err = approval.New(approval.Config{Store: db, Audit: c.Audit, Acts: []string{approval.Compromise}}); err != nil {
			t.Fatal(err)
		}
		c.Approvals, c.Approvers = gate, administrators(t, logins...)
	})
	request = approval.Request{Acts: []string{approval.Compromise}, Text: "compromise of a key", Key: "key", Reason: "ticket 4711"}
	held, ok := errors.AsType[*approval.HeldError](gate.Pass(t.Context(), request))
	if !ok {
		t.Fatal("the act is not held")
	}
	return s, gate, request, held.Proposal.ID
}

func TestAnAdministratorApprovesByToken(t *testing.T) {
	t.Parallel()
	s, gate, request, id := proposed(t, "alice")
	if a := s.do("GET", "/v1/approvals", ""); a.status != http.StatusOK || !strings.Contains(a.body, id) {
		t.Errorf("the list is %d %s", a.status, a.body)
	}
	if a := s.do("POST", "/v1/approvals/"+id+"/approve", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"login":"alice"`) {
		t.Errorf("the approval is %d %s", a.status, a.body)
	}
	if err := gate.Pass(t.Context(), request); err != nil {
		t.Error(err)
	}
	s.do("POST", "/v1/approvals/"+id+"/approve", "").wantProblem(t, http.StatusNotFound, "proposal_unknown")
	s.do("POST", "/v1/approvals/"+id+"/reject", "").wantProblem(t, http.StatusNotFound, "proposal_unknown")
}

func TestNobodyElseApproves(t *testing.T) {
	t.Parallel()
	s, gate, request, id := proposed(t, "bob")
	for _, path := range []string{"/approve", "/reject"} {
		s.do("POST", "/v1/approvals/"+id+path, "").wantProblem(t, http.StatusForbidden, "policy_denied")
		s.do("POST", "/v1/approvals/"+id+path, "", "Authorization", "").wantProblem(t, http.StatusUnauthorized, "token_missing")
	}
	s.do("GET", "/v1/approvals", "").wantProblem(t, http.StatusForbidden, "policy_denied")
	if err := gate.Pass(t.Context(), request); !errors.Is(err, approval.ErrHeld) {
		t.Errorf("got %v", err)
	}
}
