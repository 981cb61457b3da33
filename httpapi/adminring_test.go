package httpapi

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/ca"
	"sallyport/ca/revocation"
	"sallyport/executor"
	"sallyport/identity"
	"sallyport/identity/identitytest"
	"sallyport/store/audit"
)

// openSessions are what is connected, for a test to have closed.
type openSessions struct{ list []executor.Session }

func (o *openSessions) CloseWhere(match func(executor.Session) bool) int {
	before := len(o.list)
	o.list = slices.DeleteFunc(o.list, match)
	return before - len(o.list)
}

// administered is a service with a real CA on its admin socket.
func administered(t *testing.T, sessions SessionCloser) (*service, *ca.Authority) {
	t.Helper()
	var authority *ca.Authority
	s := serveAdmin(t, func(c *Config) {
		authority, _, _ = newAuthority(t, c.Audit)
		c.Certificates, c.Ledger, c.Ring, c.Revocations, c.Sessions = authority, authority, authority, authority, sessions
	})
	return s, authority
}

// issueTo has the authority certify a fresh key.
func issueTo(t *testing.T, authority *ca.Authority, who identity.Identity) (*ssh.Certificate, error) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return authority.Issue(t.Context(), ca.Request{Caller: who, Profile: ca.ProfileUser, PublicKey: key})
}

func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); a.status != http.StatusOK || err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v
}

func TestAStepThatIsRefusedSaysWhyAndChangesNothing(t *testing.T) {
	t.Parallel()
	s, authority := administered(t, nil)
	before := decode[ca.RingStatus](t, s.do("GET", "/v1/admin/ca", ""))
	if len(before.Keys) != 1 || before.Keys[0].State != ca.KeyActive || before.Keys[0].Fingerprint != authority.Fingerprint() {
		t.Errorf("the ring is %+v", before)
	}
	for path, c := range map[string]struct{ body, want string }{
		"publish":    {`{}`, "no key is staged; see 'sallyport ca status'"},
		"activate":   {`{}`, "no key is pending"},
		"retire":     {`{"except":["*"],"reason":"x"}`, "no key is retiring"},
		"rollback":   {`{"generation":77}`, "another administrator"},
		"abandon":    {`{"key":"` + authority.Fingerprint() + `"}`, "only a key that does not sign is abandoned"},
		"compromise": {`{"key":"` + authority.Fingerprint() + `"}`, "without a reason; give --reason"},
		"stage":      {`{}`, "no folder for further keys"},
		"probe":      {``, "nodes cannot be probed; set ca.rotation.probe_login"},
	} {
		p := s.do("POST", "/v1/admin/ca/"+path, c.body).wantProblem(t, http.StatusConflict, "step_refused")
		if !strings.Contains(p.Detail, c.want) {
			t.Errorf("%s: %q lacks %q", path, p.Detail, c.want)
		}
	}
	if after := decode[ca.RingStatus](t, s.do("GET", "/v1/admin/ca", "")); after.Generation != before.Generation {
		t.Errorf("generation %d became %d", before.Generation, after.Generation)
	}
}

func TestABadBodyOfAStepIsNoStep(t *testing.T) {
	t.Parallel()
	s, _ := administered(t, nil)
	for body, field := range map[string]string{
		`{"key":7}`: "key", `{"except":"*"}`: "except", `{"dry_run":"yes"}`: "dry_run", `{"generation":-1}`: "generation",
		`{"allow_file_key":1}`: "allow_file_key", `{"actor":{"uid":0}}`: "actor",
	} {
		if p := s.do("POST", "/v1/admin/ca/publish", body).wantProblem(t, http.StatusUnprocessableEntity, "field_invalid"); p.Field != field {
			t.Errorf("%s: the field is %q", body, p.Field)
		}
	}
	for _, body := range []string{`{`, `[]`, `{"key":"a","key":"b"}`} {
		if a := s.do("POST", "/v1/admin/ca/publish", body); a.status != http.StatusBadRequest && a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if n := len(s.trail.all()); n != 0 {
		t.Errorf("%d records of acts that never were", n)
	}
}

func TestACompromisedKeyClosesWhatItOpened(t *testing.T) {
	t.Parallel()
	sessions := &openSessions{make([]executor.Session, 3)}
	s, authority := administered(t, sessions)
	for i := range 2 { // the third has no certificate
		cert, err := issueTo(t, authority, identitytest.Identity(t, "alice", time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		sessions.list[i].Certificates = []*ssh.Certificate{cert}
	}
	body := `{"key":"` + authority.Fingerprint() + `","reason":"stolen"`
	if dry := decode[ca.RingStatus](t, s.do("POST", "/v1/admin/ca/compromise", body+`,"dry_run":true}`)); dry.Closed != 0 {
		t.Errorf("the dry run closed %d connections", dry.Closed)
	}
	done := decode[ca.RingStatus](t, s.do("POST", "/v1/admin/ca/compromise", body+`}`))
	if done.Closed != 2 || done.Keys[0].State != ca.KeyCompromised {
		t.Errorf("got %+v", done)
	}
	events := s.trail.all()
	if last := events[len(events)-1]; last.Action != audit.AdminAct || last.Detail["uid"] != strconv.Itoa(os.Geteuid()) || last.Detail["act_reason"] != "stolen" {
		t.Errorf("the audit log has %+v", last)
	}
}

func TestSomebodyIsRevokedAndLifted(t *testing.T) {
	t.Parallel()
	alice := identitytest.Identity(t, "alice", time.Hour)
	sessions := &openSessions{[]executor.Session{
		{Issuer: alice.Issuer(), Subject: alice.Subject(), Login: "alice"}, {Issuer: alice.Issuer(), Subject: "sub-bob", Login: "bob"},
	}}
	s, authority := administered(t, sessions)
	if _, err := issueTo(t, authority, alice); err != nil {
		t.Fatal(err)
	}
	const body, revocations = `{"kind":"user","value":"alice","reason":"lost laptop"}`, "/v1/admin/revocations"
	done := decode[revokedAnswer](t, s.do("POST", revocations, body))
	if done.Certificates != 1 || done.Connections != 1 || len(sessions.list) != 1 || done.CutMS <= 0 || done.ListVersion == 0 {
		t.Errorf("revoked: %+v", done)
	}
	if _, err := issueTo(t, authority, alice); err == nil {
		t.Error("alice got a certificate")
	}
	type list struct{ Revocations []revocation.Act }
	standing := decode[list](t, s.do("GET", revocations, "")).Revocations
	if !slices.ContainsFunc(standing, func(r revocation.Act) bool {
		return r.Kind == revocation.User && r.Value == "alice" && r.Reason == "lost laptop" && r.UID == os.Geteuid()
	}) {
		t.Errorf("what stands is %+v", standing)
	}
	decode[revocation.Done](t, s.do("POST", revocations+"/lift", body))
	if _, err := issueTo(t, authority, alice); err != nil {
		t.Errorf("after the lift: %v", err)
	}
	s.do("POST", revocations+"/lift", body).wantProblem(t, http.StatusNotFound, "not_revoked")
}

func TestABadRevocationRevokesNobody(t *testing.T) {
	t.Parallel()
	s, authority := administered(t, nil)
	for body, code := range map[string]string{
		`{}`: "revocation_not_allowed", `{"kind":"everybody","value":"x"}`: "revocation_not_allowed", `{"kind":"serial","value":"0"}`: "revocation_not_allowed",
		`{"kind":"user","value":""}`: "revocation_not_allowed", `{"kind":"key","value":"` + authority.Fingerprint() + `"}`: "revocation_not_allowed",
		`{"kind":"user","value":7}`: "field_invalid", `{"kind":"user","value":"alice","uid":0}`: "field_invalid",
	} {
		s.do("POST", "/v1/admin/revocations", body).wantProblem(t, http.StatusUnprocessableEntity, code)
	}
	if a := s.do("GET", "/v1/admin/revocations", ""); a.body != "{\"revocations\":[]}\n" {
		t.Errorf("what stands is %s", a.body)
	}
}
