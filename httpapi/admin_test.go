package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/ca"
	"sallyport/executor"
)

// serveAdmin serves the admin routes on a Unix socket and returns a service whose
// requests go there.
func serveAdmin(t *testing.T, change func(*Config)) *service {
	t.Helper()
	s := newService(t, change)
	path := filepath.Join(t.TempDir(), "admin.sock") // at most 107 bytes long
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := s.api.AdminServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	s.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	s.url = "http://admin"
	return s
}

func TestTheAdminSocketIsForRootAndTheDaemon(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, nil)
	if a := s.do("GET", "/livez", "", "Authorization", ""); a.status != http.StatusOK {
		t.Errorf("own user: %d %s", a.status, a.body)
	}
	for _, c := range []struct {
		name string
		peer any
		want int
	}{
		{"root", peer{uid: 0}, 200},
		{"the daemon's user", peer{uid: os.Geteuid()}, 200},
		{"another user", peer{uid: os.Geteuid() + 12345}, 403},
		{"nobody knows", peer{err: errors.New("no answer from the kernel")}, 403},
		{"no socket", nil, 403},
	} {
		r, err := http.NewRequestWithContext(context.WithValue(t.Context(), peerKey{}, c.peer), "GET", "/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		w := &memoryWriter{header: http.Header{}}
		s.api.Admin().ServeHTTP(w, r)
		if w.status != c.want {
			t.Errorf("%s: %d, want %d", c.name, w.status, c.want)
		}
	}
}

// memoryWriter keeps the status.
type memoryWriter struct {
	header http.Header
	status int
}

func (w *memoryWriter) Header() http.Header         { return w.header }
func (w *memoryWriter) WriteHeader(status int)      { w.status = status }
func (w *memoryWriter) Write(p []byte) (int, error) { return len(p), nil }

func TestTheAdminRoutesRefuseATCPConnection(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := s.api.AdminServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Close()
		<-served
	}()
	s.url = "http://" + l.Addr().String()
	for _, path := range []string{"/livez", "/v1/admin/status", "/debug/pprof/heap", "/nowhere"} {
		s.do("GET", path, "").wantProblem(t, http.StatusForbidden, "peer_refused")
	}
}

func TestReadinessIsAllChecksAndNoDrain(t *testing.T) {
	t.Parallel()
	var keys error
	checks := func(c *Config) {
		c.Checks = []Check{
			{"store", func(context.Context) error { return nil }},
			{"identity", func(context.Context) error { return keys }},
		}
	}
	public := start(t, checks)
	if a := public.do("GET", "/readyz", "", "Authorization", ""); a.status != 200 || a.body != "{\"status\":\"ok\"}\n" {
		t.Errorf("ready: %d %s", a.status, a.body)
	}
	keys = errors.New("secret.example: no keys yet")
	a := public.do("GET", "/readyz?verbose", "")
	a.wantProblem(t, 503, "not_ready")
	if strings.Contains(a.body, "secret") || strings.Contains(a.body, "identity") {
		t.Errorf("the public answer says why: %s", a.body)
	}
	admin := serveAdmin(t, checks)
	golden(t, "readyz-verbose.golden", admin.do("GET", "/readyz?verbose", "").body)
	if a := admin.do("GET", "/readyz", ""); a.status != 503 || a.body != "{\"status\":\"not_ready\"}\n" {
		t.Errorf("not ready, admin: %d %s", a.status, a.body)
	}
	keys = nil
	public.api.Drain()
	public.do("GET", "/readyz", "").wantProblem(t, 503, "not_ready")
	if a := public.do("GET", "/livez", ""); a.status != 200 {
		t.Errorf("a draining process is alive: %d", a.status)
	}
	if a := public.do("GET", "/v1/whoami", ""); a.status != 200 {
		t.Errorf("a draining service still serves: %d", a.status)
	}
}

func TestAStuckCheckIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Checks = []Check{{"stuck", func(ctx context.Context) error {
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > checkTimeout {
				return nil
			}
			return errors.New("there is a deadline, as there must be")
		}}}
	})
	s.do("GET", "/readyz", "").wantProblem(t, 503, "not_ready")
}

func TestTheStatusHasWhatAnOperatorAsksFor(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, func(c *Config) {
		c.Version = "1.2.3"
		c.Status = map[string]func() any{"pool": func() any { return map[string]int{"open": 7} }}
	})
	var got statusAnswer
	a := s.do("GET", "/v1/admin/status", "")
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	if got.Version != "1.2.3" || !got.Ready || got.Draining || got.MaxInFlight != 1024 || got.StartedAt.IsZero() {
		t.Errorf("status %s", a.body)
	}
	if !strings.Contains(a.body, `"pool":{"open":7}`) {
		t.Errorf("no pool in %s", a.body)
	}
}

func TestTheLedgerIsListedAndSearched(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rows := fakeLedger{
		{Serial: 1, Login: "alice", ValidBefore: now.Add(time.Hour)},
		{Serial: 2, Login: "bob", ValidBefore: now.Add(time.Hour)},
		{}, // damaged
		{Serial: 4, Login: "alice", ValidBefore: now.Add(-time.Hour)},
	}
	s := serveAdmin(t, func(c *Config) { c.Ledger = rows })
	for query, want := range map[string]struct {
		serials []uint64
		more    bool
	}{
		"":                    {[]uint64{1, 2, 4}, false},
		"?limit=3":            {[]uint64{1, 2, 4}, false},
		"?limit=2":            {[]uint64{1, 2}, true},
		"?login=alice":        {[]uint64{1, 4}, false},
		"?login=alice&valid":  {[]uint64{1}, false},
		"?login=nobody":       {nil, false},
		"?valid&limit=1":      {[]uint64{1}, true},
		"?login=bob&limit=10": {[]uint64{2}, false},
	} {
		var got ledgerAnswer
		a := s.do("GET", "/v1/admin/certificates"+query, "")
		if err := json.Unmarshal([]byte(a.body), &got); err != nil {
			t.Fatalf("%q: %d %s", query, a.status, a.body)
		}
		var serials []uint64
		for _, row := range got.Certificates {
			serials = append(serials, row.Serial)
		}
		if !slices.Equal(serials, want.serials) || got.More != want.more || !got.More && got.Damaged != 1 {
			t.Errorf("%q: serials %d, more %v, damaged %d", query, serials, got.More, got.Damaged)
		}
	}
	for _, limit := range []string{"0", "-1", "x", "10001", "1e3"} {
		s.do("GET", "/v1/admin/certificates?limit="+limit, "").wantProblem(t, 422, "field_invalid")
	}
	if a := s.do("GET", "/v1/admin/certificates/2", ""); a.status != 200 || !strings.Contains(a.body, `"serial":"2"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.do("GET", "/v1/admin/certificates/3", "").wantProblem(t, 404, "serial_unknown")
	s.do("GET", "/v1/admin/certificates/x", "").wantProblem(t, 422, "field_invalid")
}

func TestALedgerThatCannotBeReadIsNotAnEmptyOne(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, func(c *Config) {
		authority, db, _ := newAuthority(t, c.Audit)
		db.Close()
		c.Ledger = authority
	})
	s.do("GET", "/v1/admin/certificates", "").wantProblem(t, 503, "ca_unavailable")
}

func TestProfilesAreOnTheAdminSocket(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, nil)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap"} {
		if a := s.do("GET", path, ""); a.status != 200 || a.body == "" {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

func TestOnlyRoutesWithADependencyAreServed(t *testing.T) {
	t.Parallel()
	const executorPath, caPath = "/v1/systems", "/v1/ca/revoked-keys"
	for _, c := range []struct {
		name            string
		change          func(*Config)
		executor, certs bool
	}{
		{"both", nil, true, true},
		{"ca only", func(c *Config) { c.Commands = nil }, false, true},
		{"executor only", func(c *Config) { c.Certificates, c.Compat = nil, Compat{} }, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, c.change)
			document, page := s.do("GET", "/openapi.json", "").body, s.do("GET", "/docs", "").body
			for path, served := range map[string]bool{executorPath: c.executor, caPath: c.certs, "/v1/whoami": true} {
				a := s.do("GET", path, "")
				if (a.status == 200) != served {
					t.Errorf("%s: %d", path, a.status)
				}
				if strings.Contains(document, `"`+path+`"`) != served {
					t.Errorf("%s in the document: %v", path, !served)
				}
				if strings.Contains(page, "<code>"+path+"</code>") != served {
					t.Errorf("%s in the page: %v", path, !served)
				}
			}
			if a := s.do("POST", execPath, `{"command":"x"}`); (a.status == 200) != c.executor {
				t.Errorf("exec: %d", a.status)
			}
		})
	}
}

func TestAllMistakesOfAConfigurationAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{MaxInFlight: -1, WriteTimeout: -1, Checks: []Check{{}}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"tokens", "audit", "neither commands nor certificates", "max in flight", "write timeout", "checks"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

var (
	_ CertificateAuthority = (*ca.Authority)(nil)
	_ CertificateLedger    = (*ca.Authority)(nil)
	_ CommandRunner        = (*executor.Executor)(nil)
)
