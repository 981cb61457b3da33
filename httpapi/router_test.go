package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sallyport/executor"
	"sallyport/store/audit"
)

func TestNothingIsRedirectedOrGuessed(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, path := range []string{
		"/", "/v1", "/v1/", "/v1/systems/", "//v1/systems", "/v1//systems", "/v1/./systems", "/v1/x/../systems",
		"/V1/systems", "/v1/systems/daint/", "/v1/systems/daint/exec/", "/v1/systems//exec", "/favicon.ico",
		"/v1/admin/status", "/debug/pprof/", "/metrics", "/v1%2Fsystems",
	} {
		a := s.do("GET", path, "")
		a.wantProblem(t, http.StatusNotFound, "route_unknown")
	}
}

func TestAnotherMethodIsToldWhichAreAllowed(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct{ method, path, allow string }{
		{"GET", execPath, "POST"},
		{"DELETE", "/v1/systems", "GET, HEAD"},
		{"OPTIONS", "/v1/systems/daint", "GET, HEAD"},
		{"BREW", "/livez", "GET, HEAD"},
		{"get", "/livez", "GET, HEAD"},
		{"PUT", "/v1/certificates", "POST"},
		{"POST", "/docs", "GET, HEAD"},
	} {
		a := s.do(c.method, c.path, "")
		p := a.wantProblem(t, http.StatusMethodNotAllowed, "method_not_allowed")
		if got := a.header.Get("Allow"); got != c.allow || strings.Join(p.Allowed, ", ") != c.allow {
			t.Errorf("%s %s: Allow %q, allowed %q", c.method, c.path, got, p.Allowed)
		}
	}
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, path := range []string{"/v1/systems", "/livez", "/v1/ca/revoked-keys", "/docs", "/openapi.json"} {
		get, head := s.do("GET", path, ""), s.do("HEAD", path, "")
		if head.status != http.StatusOK || head.body != "" {
			t.Errorf("%s: HEAD has status %d and %d bytes", path, head.status, len(head.body))
		}
		for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Cache-Control"} {
			if get.header.Get(name) != head.header.Get(name) {
				t.Errorf("%s: %s is %q for GET, %q for HEAD", path, name, get.header.Get(name), head.header.Get(name))
			}
		}
	}
}

// raw sends a request line by line and returns the status line.
func (s *service) raw(t *testing.T, request string) string {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, request)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestRequestsForTheWholeServerAreNotAnsweredBehindOurBack(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	if got := s.raw(t, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "404") {
		t.Errorf("OPTIONS *: %s", got)
	}
	if got := s.raw(t, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("x", 80<<10)+"\r\n\r\n"); !strings.Contains(got, "431") {
		t.Errorf("80 KiB of headers: %s", got)
	}
	token := strings.Repeat("t", 15<<10)
	if got := s.raw(t, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "401") {
		t.Errorf("a token of 15 KiB: %s", got)
	}
}

func TestEveryAnswerIsNamedAndGuarded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	seen := map[string]bool{}
	for _, c := range []struct{ sent, want string }{
		{"abc", "abc"},
		{"6f1c5a9e-1c1e-4d3c-9d53-0f6a9c8f3f53", "6f1c5a9e-1c1e-4d3c-9d53-0f6a9c8f3f53"},
		{strings.Repeat("x", 64), strings.Repeat("x", 64)},
		{strings.Repeat("x", 65), ""},
		{"a b", ""},
		{"ü", ""},
		{"a\"b", ""},
		{"", ""},
	} {
		for _, path := range []string{"/v1/whoami", "/nowhere", "/livez"} {
			a := s.do("GET", path, "", "X-Request-Id", c.sent)
			got, ours := a.header.Get("X-Request-Id"), a.header.Get("Sallyport-Request-Id")
			if _, clean := audit.CleanRequestID(got); !clean || c.want != "" && got != c.want || c.want == "" && got == c.sent {
				t.Errorf("%s with id %q is named %q", path, c.sent, got)
			}
			if len(ours) != 26 || seen[ours] || c.want == "" && got != ours {
				t.Errorf("%s with id %q: our id is %q, the header %q", path, c.sent, ours, got)
			}
			seen[ours] = true
			if a.status == http.StatusNotFound && a.problem(t).RequestID != ours {
				t.Errorf("header %q and document %q", ours, a.problem(t).RequestID)
			}
			for _, name := range []string{"Server", "Set-Cookie", "X-Powered-By", "Strict-Transport-Security"} {
				if a.header.Get(name) != "" {
					t.Errorf("%s has %s: %q", path, name, a.header.Get(name))
				}
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
				"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
			} {
				if a.header.Get(name) != want {
					t.Errorf("%s: %s is %q", path, name, a.header.Get(name))
				}
			}
		}
	}
}

func TestTheSourceAddressIsThePeersUnlessATrustedProxySaysOtherwise(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	s := newService(t, func(c *Config) { c.TrustedProxies = proxies })
	for _, c := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"},
		{"192.0.2.1:5", "198.51.100.9", "192.0.2.1"}, // anyone can write that
		{"10.0.0.1:5", "", "10.0.0.1"},
		{"10.0.0.1:5", "198.51.100.9", "198.51.100.9"},
		{"10.0.0.1:5", "1.1.1.1, 198.51.100.9", "198.51.100.9"}, // the client wrote the first
		{"10.0.0.1:5", "198.51.100.9, 10.9.9.9", "198.51.100.9"},
		{"10.0.0.1:5", "10.7.7.7,10.9.9.9", "10.7.7.7"},
		{"10.0.0.1:5", "1.1.1.1, nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "198.51.100.9:443", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:5", "2001:db8::1%eth0", "2001:db8::1"},
		{"[fd00::1]:5", "2001:db8::1", "2001:db8::1"},
		{"@", "198.51.100.9", ""},
		{"", "", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = c.peer
		for part := range strings.SplitSeq(c.forwarded, ", ") { // as one header or several
			r.Header.Add("X-Forwarded-For", part)
		}
		if got := addressText(s.api.clientAddr(r)); got != c.want {
			t.Errorf("peer %q, forwarded %q: %q, want %q", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestRequestsAboveTheBoundAreRefusedNotQueued(t *testing.T) {
	t.Parallel()
	running, finish := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *Config) {
		c.MaxInFlight = 1
		c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) {
			close(running)
			<-finish
			return executor.Result{Start: started}, nil
		}}
	})
	first := make(chan answer)
	go func() { first <- s.do("POST", execPath, `{"command":"x"}`) }()
	<-running
	a := s.do("GET", "/v1/whoami", "")
	a.wantProblem(t, http.StatusServiceUnavailable, "overloaded")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	if a := s.do("GET", "/livez", ""); a.status != http.StatusOK {
		t.Errorf("a full service is not dead: %d", a.status)
	}
	close(finish)
	if a := <-first; a.status != http.StatusOK {
		t.Errorf("the first request got %d", a.status)
	}
	if a := s.do("GET", "/v1/whoami", ""); a.status != http.StatusOK {
		t.Errorf("after that: %d", a.status)
	}
}

func TestAPanicIsAProblemAndALogLine(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Commands = fakeRunner{func(context.Context, executor.Command) (executor.Result, error) { panic("a secret mistake") }}
	})
	a := s.do("POST", execPath, `{"command":"x"}`)
	a.wantProblem(t, http.StatusInternalServerError, "internal")
	if strings.Contains(a.body, "secret") || !strings.Contains(s.log.String(), "a secret mistake") {
		t.Errorf("answer %s", a.body)
	}
	if a := s.do("GET", "/v1/whoami", ""); a.status != http.StatusOK {
		t.Errorf("after a panic: %d", a.status)
	}
}

func TestMediaTypesAreNegotiated(t *testing.T) {
	t.Parallel()
	offers := []string{mediaJSON, mediaNDJSON, mediaSSE}
	for _, c := range []struct {
		accept []string
		want   string // "" is 406
	}{
		{nil, mediaJSON},
		{[]string{"*/*"}, mediaJSON},
		{[]string{"application/*"}, mediaJSON},
		{[]string{"text/*"}, mediaSSE},
		{[]string{"text/event-stream"}, mediaSSE},
		{[]string{"application/x-ndjson, application/json;q=0.5"}, mediaNDJSON},
		{[]string{"application/json;q=0.5", "text/event-stream;q=0.7"}, mediaSSE},
		{[]string{"*/*;q=0.1, application/json;q=0"}, mediaNDJSON},
		{[]string{"APPLICATION/X-NDJSON"}, mediaNDJSON},
		{[]string{"application/json;q=x, text/event-stream;q=0.1"}, mediaSSE},
		{[]string{"text/html"}, ""},
		{[]string{"*/*;q=0"}, ""},
		{[]string{"application/json;q=NaN"}, ""},
		{[]string{"nonsense"}, ""},
		{[]string{""}, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Accept"] = c.accept
		got, err := negotiate(r, offers...)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("Accept %q: %q, %v; want %q", c.accept, got, err, c.want)
		}
	}
}

func TestWhatCannotBeReadOrAnsweredIsSaidBeforehand(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	p := s.do("POST", execPath, `{"command":"x"}`, "Accept", "text/html").wantProblem(t, 406, "not_acceptable")
	if !slices.Equal(p.Allowed, []string{mediaJSON, mediaNDJSON, mediaSSE}) {
		t.Errorf("allowed %q", p.Allowed)
	}
	for _, path := range []string{"/v1/systems", "/v1/systems/daint", "/v1/whoami", "/v1/ca/revoked-keys", "/docs"} {
		s.do("GET", path, "", "Accept", "image/png").wantProblem(t, 406, "not_acceptable")
	}
	for _, headers := range [][]string{
		{"Content-Type", "text/plain"},
		{"Content-Type", ""},
		{"Content-Type", "application/json; charset=latin1"},
		{"Content-Type", "application/x-www-form-urlencoded"},
		{"Content-Encoding", "gzip"},
	} {
		s.do("POST", execPath, `{"command":"x"}`, headers...).wantProblem(t, 415, "media_type_unsupported")
	}
	if a := s.do("POST", execPath, `{"command":"x"}`, "Content-Type", "Application/JSON; Charset=UTF-8"); a.status != 200 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

func TestABodyAboveTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.MaxExecBody, c.MaxCertificateBody = 1000, 500 })
	big := `{"command":"` + strings.Repeat("x", 1000) + `"}`
	for _, path := range []string{execPath, "/v1/certificates"} {
		a := s.do("POST", path, big)
		a.wantProblem(t, http.StatusRequestEntityTooLarge, "body_too_large")
		s.do("POST", path, big, "Authorization", "").wantProblem(t, 401, "token_missing")
	}
	// Without Content-Length the limit is found while reading.
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(big), big)
	if got := s.raw(t, "POST "+execPath+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+good+
		"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks); !strings.Contains(got, "413") {
		t.Errorf("chunked: %s", got)
	}
}
