package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/identity"
	"sallyport/store/audit"
)

func TestATokenIsTakenFromTheOneBearerHeaderOnly(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct {
		name, authorization string
		status              int
		code, challenge     string
	}{
		{"good", "Bearer " + good, 200, "", ""},
		{"other case", "bearer " + good, 200, "", ""},
		{"more blanks", "Bearer   " + good, 200, "", ""},
		{"missing", "", 401, "token_missing", `Bearer realm="sallyport"`},
		{"empty", "Bearer ", 401, "token_missing", `Bearer realm="sallyport"`},
		{"basic", "Basic YTpi", 401, "token_missing", `Bearer realm="sallyport"`},
		{"bad", "Bearer nonsense", 401, "token_invalid", `Bearer realm="sallyport", error="invalid_token", error_description="Token is not valid"`},
		{"two tokens", "Bearer " + good + " " + good, 401, "token_invalid", `Bearer realm="sallyport", error="invalid_token", error_description="Token is not valid"`},
		{"zero identity", "Bearer tok.nobody", 401, "token_invalid", `Bearer realm="sallyport", error="invalid_token", error_description="Token is not valid"`},
		{"expired", "Bearer tok.expired", 401, "token_expired", `Bearer realm="sallyport", error="invalid_token", error_description="Token has expired"`},
		{"scope", "Bearer tok.scope", 403, "scope_missing", `Bearer realm="sallyport", error="insufficient_scope"`},
		{"root", "Bearer tok.root", 403, "login_refused", ""},
		{"outage", "Bearer tok.outage", 503, "issuer_unavailable", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := s.do("GET", "/v1/whoami?access_token="+good, "", "Authorization", c.authorization)
			if c.code != "" {
				a.wantProblem(t, c.status, c.code)
			}
			if got := a.header.Get("WWW-Authenticate"); a.status != c.status || got != c.challenge {
				t.Errorf("status %d, WWW-Authenticate %q", a.status, got)
			}
			if token := strings.TrimPrefix(c.authorization, "Bearer "); token != "" && strings.Contains(fmt.Sprint(a.header, a.body), token) {
				t.Errorf("the token comes back: %v %s", a.header, a.body)
			}
		})
	}
}

func TestTwoAuthorizationHeadersAreNotOneToken(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Authorization"] = []string{"Bearer " + good, "Bearer nonsense"}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestNoLogHasATokenOrAQuery(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.do("GET", "/v1/whoami?access_token=query-secret", "")
	s.do("GET", "/v1/whoami", "", "Authorization", "Bearer header-secret")
	s.do("GET", "/path-secret", "")
	text := s.log.String()
	for _, secret := range []string{good, "query-secret", "header-secret", "path-secret"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log:\n%s", secret, text)
		}
	}
	if strings.Count(text, `"msg":"request"`) < 3 {
		t.Errorf("not one line for each request:\n%s", text)
	}
}

// A client that may wait for "100 Continue" sees the refusal instead, and its
// connection is closed, so that the body is never read.
func TestNoBodyIsAskedForBeforeTheTokenIsVerified(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct{ authorization, want string }{
		{"Bearer nonsense", "HTTP/1.1 401 Unauthorized"},
		{"Bearer " + good, "HTTP/1.1 100 Continue"},
	} {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n", execPath, c.authorization)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != c.want {
			t.Errorf("%s: %q, %v; want %q", c.authorization, line, err, c.want)
		}
		if c.want == "HTTP/1.1 100 Continue" {
			fmt.Fprint(conn, `{"command":"x"}`)
			if rest, err := io.ReadAll(io.LimitReader(conn, 20)); err != nil {
				t.Errorf("no answer after the body: %q, %v", rest, err)
			}
		}
	}
}

func TestABodyWithoutATokenIsNotReadAndItsConnectionIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, nil)
		conn := m.dial()
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n", execPath)
		// Not a byte of the body is sent, and yet there is an answer.
		reader := bufio.NewReader(conn)
		a := readAnswer(t, reader)
		a.wantProblem(t, http.StatusUnauthorized, "token_missing")
		if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("the connection is still open: %v", err)
		}
	})
}

// A body that no handler reads must not hold its connection for ever either.
func TestABodyThatNobodyWantsIsNotAwaitedWithoutEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := inMemory(t, nil)
		conn := m.dial()
		defer conn.Close()
		fmt.Fprint(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		began := time.Now()
		if a := readAnswer(t, conn); a.status != http.StatusOK || time.Since(began) > 30*time.Second {
			t.Errorf("status %d after %s", a.status, time.Since(began))
		}
	})
}

func TestRefusedTokensAreAuditedButNotWithoutBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		trail := &trail{}
		f := refusals{audit: trail}
		refuse := func(n int) {
			for range n {
				f.record(t.Context(), errTokenMissing)
			}
		}
		refuse(maxUnverifiedRefusals + 100)
		if n := len(trail.all()); n != maxUnverifiedRefusals {
			t.Errorf("%d events in one minute, want %d", n, maxUnverifiedRefusals)
		}
		// A flood of tokens that nobody made hides none of somebody's.
		f.record(t.Context(), &identity.RefusalError{Issuer: "idp", Subject: "mallory", Err: identity.ErrNoLogin})
		events := trail.all()[maxUnverifiedRefusals:]
		if len(events) != 1 || events[0].Issuer != "idp" || events[0].Subject != "mallory" || events[0].Detail != nil {
			t.Errorf("the refusal of a known subject: %+v", events)
		}
		time.Sleep(time.Minute)
		refuse(2)
		events = trail.all()[maxUnverifiedRefusals+1:]
		if len(events) != 2 || events[0].Detail["suppressed"] != "100" || events[1].Detail != nil {
			t.Errorf("events after that: %+v", events)
		}
	})
}

func TestARefusedTokenIsAuditedWithItsReason(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.do("GET", "/v1/whoami", "", "Authorization", "Bearer nonsense")
	s.do("GET", "/v1/whoami", "", "Authorization", "Bearer tok.root")
	s.do("GET", "/v1/whoami", "", "Authorization", "Bearer tok.outage") // nobody's fault
	events := s.trail.all()
	if len(events) != 2 {
		t.Fatalf("events %+v", events)
	}
	for i, want := range []string{`token is not valid: signature does not fit key "k1"`, "root is reserved"} {
		if e := events[i]; e.Action != audit.TokenRefused || e.Outcome != audit.Failure || !strings.Contains(e.Reason, want) {
			t.Errorf("event %+v, want reason %q", e, want)
		}
	}
}

func TestATokenIsRefusedAlsoWhenThatCannotBeAudited(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.trail.err = audit.ErrUnavailable
	s.do("GET", "/v1/whoami", "", "Authorization", "Bearer nonsense").wantProblem(t, 401, "token_invalid")
	if !strings.Contains(s.log.String(), "refusal was not recorded") {
		t.Error("the log does not say so")
	}
}
