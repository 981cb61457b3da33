package httpapi

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/identity"
)

// A fortress is a service with TLS and bounds on connections, as "serve" has it.
type fortress struct {
	*service
	addr string
	tls  *tls.Config
}

func fortify(t *testing.T, conns, each int, change func(*Config)) *fortress {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	f := &fortress{service: newService(t, func(cfg *Config) {
		cfg.Logger = nil // a line for each request of an attack
		change(cfg)
	})}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	server, served := f.api.Server(), make(chan error, 1)
	go func() {
		served <- server.Serve(tls.NewListener(f.api.Bound("server.listen", l, conns, each), &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		}))
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	f.url = "https://" + f.addr
	f.tls = &tls.Config{InsecureSkipVerify: true}
	f.client = f.from("127.0.0.1")
	return f
}

// from is a client at an address, which opens a connection for each request. It has a
// configuration of its own, because a transport writes to it.
func (f *fortress) from(ip string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: f.tls.Clone(), ForceAttemptHTTP2: true, DialContext: dialer.DialContext,
	}}
}

// A hoard holds streams of HTTP/2 open whose window is 0, and renews those that end.
type hoard struct {
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	fields  []hpack.HeaderField
	body    bool // a DATA frame, and no end
	next    uint32
	ended   *atomic.Int64
}

// storm attacks with so many connections of so many streams each until the test ends.
// The count is of streams that the service ended.
func (f *fortress) storm(t *testing.T, ip, method, path, token string, conns, streams int) *atomic.Int64 {
	t.Helper()
	var ended atomic.Int64
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	for range conns {
		running.Go(func() {
			for ctx.Err() == nil { // also when the connection is closed
				f.hoard(ctx, ip, method, path, token, streams, &ended)
			}
		})
	}
	return &ended
}

func (f *fortress) hoard(ctx context.Context, ip, method, path, token string, streams int, ended *atomic.Int64) {
	config := f.tls.Clone()
	config.NextProtos = []string{"h2"}
	dialer := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}, Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	h := &hoard{framer: http2.NewFramer(conn, conn), next: 1, body: method == http.MethodPost, ended: ended}
	h.encoder = hpack.NewEncoder(&h.block)
	h.fields = []hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: f.addr}, {Name: ":path", Value: path}}
	if token != "" {
		h.fields = append(h.fields, hpack.HeaderField{Name: "authorization", Value: "Bearer " + token})
	}
	if h.body {
		h.fields = append(h.fields, hpack.HeaderField{Name: "content-type", Value: "application/json"})
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return
	}
	_ = h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for range streams {
		if h.open() != nil {
			return
		}
	}
	for n := 1; h.answer() == nil; n++ {
		if n%20 == 0 {
			time.Sleep(10 * time.Millisecond) // the attack runs on the service's processors
		}
	}
}

func (h *hoard) open() error {
	h.block.Reset()
	for _, field := range h.fields {
		_ = h.encoder.WriteField(field)
	}
	id := h.next
	h.next += 2
	err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: !h.body})
	if h.body && err == nil {
		err = h.framer.WriteData(id, false, []byte(`{"command`))
	}
	return err
}

// answer reads a frame and does what keeps the attack going.
func (h *hoard) answer() error {
	frame, err := h.framer.ReadFrame()
	if err != nil {
		return err
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return h.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return h.framer.WritePing(true, f.Data)
		}
	case *http2.RSTStreamFrame:
		h.ended.Add(1)
		return h.open()
	case *http2.HeadersFrame:
		if f.StreamEnded() {
			h.ended.Add(1)
			return h.open()
		}
	case *http2.DataFrame:
		if f.StreamEnded() {
			h.ended.Add(1)
			return h.open()
		}
	}
	return nil
}

// holds has a caller and a node ask again and again, and wants every answer.
func (f *fortress) holds(t *testing.T, ip string) {
	t.Helper()
	client := f.from(ip)
	for range 5 {
		for _, c := range []struct{ method, path, token, body string }{
			{"GET", "/v1/whoami", good, ""},
			{"POST", execPath, good, `{"command":"x"}`},
			{"GET", "/v1/ca/manifest", "", ""},
			{"GET", "/v1/ca/manifest.sig", "", ""},
			{"GET", "/v1/ca/revoked-keys", "", ""},
			{"GET", "/v1/ca/trusted-user-ca-keys", "", ""},
		} {
			r, err := http.NewRequestWithContext(t.Context(), c.method, f.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			if c.body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s from %s: %v; places %+v", c.path, ip, err, f.api.places())
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%s from %s: %d, %v; places %+v", c.path, ip, resp.StatusCode, err, f.api.places())
			}
		}
	}
}

// Five connections of 220 streams that take nothing have kept everybody out: callers,
// and the nodes that learn of revocations. Each line is one way to have the service wait.
func TestStrangersWhoDoNotReadKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, method, path, token string }{
		{"docs", "GET", "/docs", ""},
		{"openapi", "GET", "/openapi.json", ""},
		{"readyz", "GET", "/readyz", ""},
		{"the list that nodes fetch", "GET", "/v1/ca/revoked-keys", ""},
		{"the manifest", "GET", "/v1/ca/manifest", ""},
		{"unknown paths", "GET", "/nothing/here", ""},
		{"no token", "GET", "/v1/systems", ""},
		{"a forged token", "GET", "/v1/whoami", "forged"},
		{"a slow body without a token", "POST", execPath, ""},
		{"a slow body with a forged token", "POST", execPath, "forged"},
		{"a slow body with a place for its token", "POST", "/demoCA/sign", ""},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: each has the machine to itself
			f := fortify(t, 1000, 250, func(cfg *Config) { cfg.Certificates = largeList{cfg.Certificates, make([]byte, 1<<20)} })
			ended := f.storm(t, "127.0.0.1", c.method, c.path, c.token, 5, 220)
			for ended.Load() < 1100 { // all are refused, or evicted, or answered, once at least
				time.Sleep(time.Millisecond)
			}
			f.holds(t, "127.0.0.1") // the attacker's own address
			f.holds(t, "127.0.0.2") // one that nobody has seen
			if n := f.api.places().Public; n.InUse > n.Limit {
				t.Errorf("places %+v", n)
			}
		})
	}
}

// largeList is a CA with many revocations.
type largeList struct {
	CertificateAuthority
	list []byte
}

func (c largeList) RevocationList() []byte { return c.list }

// Tokens that wait for an issuer's keys are bounded, and no caller waits behind them.
func TestForgedTokensThatWaitForKeysKeepNobodyOut(t *testing.T) {
	t.Parallel()
	f := fortify(t, 1000, 250, func(cfg *Config) { cfg.Tokens = &slowTokens{TokenVerifier: cfg.Tokens} })
	f.storm(t, "127.0.0.1", "GET", "/v1/whoami", "forged", 5, 220)
	for f.api.places().Verifying.Evicted < 1000 {
		time.Sleep(time.Millisecond)
	}
	f.holds(t, "127.0.0.1")
	f.holds(t, "127.0.0.2")
	// The address has become a known one meanwhile, which has four times as many.
	if n := f.api.places().Verifying; n.InUse > 5*maxVerifyingPerAddress || n.Strangers > maxVerifyingPerAddress {
		t.Errorf("places %+v", n)
	}
	if load := f.api.Load(); load.InFlight != 0 {
		t.Errorf("%d requests have a caller's place", load.InFlight)
	}
}

// slowTokens wait for keys that never come, but for the good token.
type slowTokens struct{ TokenVerifier }

func (s *slowTokens) VerifyPresented(ctx context.Context, p identity.Presentation) (identity.Identity, error) {
	if p.Token == good {
		return s.TokenVerifier.VerifyPresented(ctx, p)
	}
	<-ctx.Done()
	return identity.Identity{}, errors.Join(identity.ErrUnavailable, ctx.Err())
}
