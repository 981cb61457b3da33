package ship

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/logreceiver"
	"sallyport/store/audit"
)

// A receiver that ends without close_notify, as one on the way could in its name,
// confirms nothing unless the configuration says so.
func TestABareEndConfirmsNothing(t *testing.T) {
	t.Parallel()
	receiver := realReceiver(t, logreceiver.GnuTLS)
	strict, err := Syslog(SyslogConfig{
		Name: "strict", Address: receiver.Address, TLS: TLSConfig{CA: receiver.CA}, Facility: 13, MaxMessage: 8192,
	})
	if err != nil {
		t.Fatal(err)
	}
	log, s := shippers(t, Config{Targets: []Target{strict}})
	if err := log.Record(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	if st := shipUntil(t, s, func(st Status) bool { return st.Failures > 0 }); st.Failing != Unconfirmed || st.Records != 1 {
		t.Errorf("status %+v", st)
	}
}

// shipUntil runs the shippers until the status of the first is as wanted.
func shipUntil(t *testing.T, s *Shippers, wanted func(Status) bool) Status {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	defer func() {
		stop()
		<-done
	}()
	limit := time.After(time.Minute)
	for {
		if st := s.Status()[0]; wanted(st) {
			return st
		}
		select {
		case <-limit:
			t.Fatalf("status %+v", s.Status()[0])
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// An event that is larger than a message goes in parts, of which the record can be made.
func TestALargeEventGoesInParts(t *testing.T) {
	t.Parallel()
	receiver := realReceiver(t, logreceiver.OpenSSL)
	to, err := target("ossl", receiver.Address, receiver.CA)
	if err != nil {
		t.Fatal(err)
	}
	log, s := shippers(t, Config{Targets: []Target{to}})
	large := audit.Event{Action: audit.ExecStart, Reason: strings.Repeat("ä€😀", 450), Detail: map[string]string{}}
	for i := range audit.MaxDetails {
		large.Detail[fmt.Sprintf("d%d", i)] = strings.Repeat("\x01é", audit.MaxFieldBytes/3)
	}
	for range 2 {
		if err := log.Record(t.Context(), large); err != nil {
			t.Fatal(err)
		}
	}
	shipUntil(t, s, func(st Status) bool { return st.Records == 0 })
	lines, err := receiver.Lines()
	if err != nil {
		t.Fatal(err)
	}
	joined := map[string]string{}
	for _, line := range lines {
		head, text, _ := strings.Cut(line, "]")
		var sequence, hash string
		var part, parts int
		head = strings.ReplaceAll(head, `"`, " ")
		if _, err := fmt.Sscanf(head, "[sallyport@32473 sequence= %s hash= %s part= %d/%d", &sequence, &hash, &part, &parts); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if parts < 4 {
			t.Errorf("%d parts", parts)
		}
		joined[sequence] += text
	}
	want := recorded(t, s.cfg.Dir)
	for i, line := range want {
		if joined[fmt.Sprint(i+1)] != line {
			t.Errorf("event %d was joined to %.200q…, want %.200q…", i+1, joined[fmt.Sprint(i+1)], line)
		}
	}
}

func TestMessagesAreThoseOfRFC5424(t *testing.T) {
	t.Parallel()
	f := format{facility: 13, process: 7, host: "host name", most: 8192}
	line := audit.Line{Mark: audit.Mark{Sequence: 3, Hash: strings.Repeat("a", 64)}, Time: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)}
	line.Text = []byte(`{"event.action":"token.refused","event.outcome":"failure"}`)
	want := `<108>1 2026-01-02T03:04:05.000000Z hostname sallyport 7 token.refused [sallyport@32473 sequence="3" hash="` +
		line.Hash + `"] ` + string(line.Text)
	if got := string(f.appendFrames(nil, line)); got != fmt.Sprintf("%d %s", len(want), want) {
		t.Errorf("got %q", got)
	}
}

// The receiver must be who its certificate says, and not an older TLS than 1.2.
func TestReceiversAreVerified(t *testing.T) {
	t.Parallel()
	receiver := realReceiver(t, logreceiver.OpenSSL)
	for name, cfg := range map[string]SyslogConfig{
		"of an unknown CA": {Address: receiver.Address},
		"of another name":  {Address: receiver.Address, TLS: TLSConfig{CA: receiver.CA, ServerName: "siem.example.org"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Name, cfg.Facility, cfg.MaxMessage = "bad", 13, 8192
			to, err := Syslog(cfg)
			if err != nil {
				t.Fatal(err)
			}
			log, s := shippers(t, Config{Targets: []Target{to}})
			if err := log.Record(t.Context(), event); err != nil {
				t.Fatal(err)
			}
			if st := shipUntil(t, s, func(st Status) bool { return st.Failures > 0 }); st.Failing != Insecure || st.Sent != 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestPlainTextGoesToLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"192.0.2.1:514", "siem.example.org:514", "127.0.0.1.example.org:514", "0.0.0.0:514"} {
		if _, err := Syslog(SyslogConfig{Name: "n", Address: address, Plain: true, MaxMessage: 8192}); err == nil {
			t.Errorf("plain TCP to %q was taken", address)
		}
	}
	for _, url := range []string{"http://192.0.2.1/v1/logs", "http://localhost.example.org/v1/logs", "ftp://127.0.0.1/", "https://a:b@c/", "://"} {
		if _, err := OTLP(OTLPConfig{Name: "n", URL: url}); err == nil {
			t.Errorf("OTLP to %q was taken", url)
		}
	}
}

// What OTLP receivers may answer: only a full 200 moves the cursor.
func TestOTLPAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, records int)
		want   Kind
	}{
		"a part was refused": {func(w http.ResponseWriter, _ int) {
			fmt.Fprint(w, `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}`)
		}, Rejected},
		"not OTLP":    {func(w http.ResponseWriter, _ int) { fmt.Fprint(w, `<html>`) }, Rejected},
		"a redirect":  {func(w http.ResponseWriter, _ int) { w.Header().Set("Location", "/x"); w.WriteHeader(307) }, Rejected},
		"no token":    {func(w http.ResponseWriter, _ int) { w.WriteHeader(401) }, Rejected},
		"overloaded":  {func(w http.ResponseWriter, _ int) { w.Header().Set("Retry-After", "1"); w.WriteHeader(503) }, Unreachable},
		"an accepted": {func(w http.ResponseWriter, _ int) { w.WriteHeader(202) }, Rejected},
		"empty":       {func(http.ResponseWriter, int) {}, ""},
		"nothing refused": {func(w http.ResponseWriter, _ int) {
			fmt.Fprint(w, `{"partialSuccess":{"rejectedLogRecords":"0"}}`)
		}, ""},
		"only small batches": {func(w http.ResponseWriter, records int) {
			if records > 3 {
				w.WriteHeader(413)
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := otlpServer(t, func(w http.ResponseWriter, r *http.Request) { test.answer(w, countRecords(t, r)) })
			log, s := shippers(t, Config{Targets: []Target{to}})
			for range 20 {
				if err := log.Record(t.Context(), event); err != nil {
					t.Fatal(err)
				}
			}
			st := shipUntil(t, s, func(st Status) bool { return st.Failures > 0 || st.Records == 0 })
			if st.Failing != test.want || (test.want == "") != (st.Shipped == 20) {
				t.Errorf("status %+v, want kind %q", st, test.want)
			}
		})
	}
}

func otlpServer(t *testing.T, handle http.HandlerFunc) Target {
	t.Helper()
	server := httptest.NewTLSServer(handle)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	to, err := OTLP(OTLPConfig{Name: "there", URL: server.URL + "/v1/logs", TLS: TLSConfig{CA: ca}, TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func countRecords(t *testing.T, r *http.Request) int {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0
	}
	if got := r.Header.Get("Authorization"); got != "Bearer secret" {
		t.Errorf("Authorization %q", got)
	}
	var got logsRequest
	if err := json.Unmarshal(body, &got); err != nil {
		t.Errorf("the request is %q: %v", body, err)
		return 0
	}
	return len(got.ResourceLogs[0].ScopeLogs[0].LogRecords)
}

// A receiver that wants a certificate of ours gets it.
func TestOurCertificateIsShown(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, private := write("cert", "CERTIFICATE", pair.Certificate[0]), write("key", "PRIVATE KEY", key)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	shown := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		secure := c.(*tls.Conn)
		_ = secure.Handshake()
		shown <- len(secure.ConnectionState().PeerCertificates)
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	to, err := Syslog(SyslogConfig{
		Name: "there", Address: "127.0.0.1:" + port, Facility: 13, MaxMessage: 8192, TLS: TLSConfig{CA: cert, Certificate: cert, Key: private},
	})
	if err != nil {
		t.Fatal(err)
	}
	link, err := to.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer link.close()
	if n := <-shown; n != 1 {
		t.Errorf("%d certificates were shown", n)
	}
}
