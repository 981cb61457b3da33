package httpapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// dial opens a connection from an address of loopback, without TLS; nil if it cannot.
func (f *fortress) dial(ctx context.Context, from string) net.Conn {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		return nil
	}
	return conn
}

// Connections that send nothing, half a handshake of TLS or half a header took all that
// there are, from one address or from many.
func TestConnectionsThatShowNoTokenKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(ctx context.Context, f *fortress, conn net.Conn) net.Conn{
		"nothing is sent": func(_ context.Context, _ *fortress, conn net.Conn) net.Conn { return conn },
		"half a hello": func(_ context.Context, _ *fortress, conn net.Conn) net.Conn {
			_, _ = conn.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}) // a record of 512 bytes begins
			return conn
		},
		"half a header": func(ctx context.Context, f *fortress, conn net.Conn) net.Conn {
			secure := tls.Client(conn, f.tls)
			if secure.HandshakeContext(ctx) == nil {
				_, _ = io.WriteString(secure, "GET /docs HTTP/1.1\r\nHost:")
			}
			return secure
		},
		"idle after a request": func(ctx context.Context, f *fortress, conn net.Conn) net.Conn {
			secure := tls.Client(conn, f.tls)
			if secure.HandshakeContext(ctx) == nil {
				_, _ = io.WriteString(secure, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			}
			return secure
		},
	} {
		for _, addresses := range []int{1, 200} {
			t.Run(fmt.Sprintf("%s from %d", name, addresses), func(t *testing.T) { // one after the other
				f := fortify(t, 128, 32, func(*Config) {})
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				defer running.Wait()
				defer stop()
				for part := range 4 {
					running.Go(func() {
						held := make([]net.Conn, 128) // 512 in all; the oldest is renewed
						for i := 0; ctx.Err() == nil; i = (i + 1) % len(held) {
							if held[i] != nil {
								held[i].Close()
							}
							if conn := f.dial(ctx, fmt.Sprintf("127.0.1.%d", 1+(part*128+i)%addresses)); conn != nil {
								held[i] = begin(ctx, f, conn)
							}
							time.Sleep(10 * time.Millisecond) // on the same processors
						}
						for _, conn := range held {
							if conn != nil {
								conn.Close()
							}
						}
					})
				}
				full := f.api.places().Connections["server.listen"]
				for ; full.Evicted < 512; full = f.api.places().Connections["server.listen"] {
					time.Sleep(time.Millisecond)
				}
				f.holds(t, "127.0.1.1") // the attacker's own address
				f.holds(t, "127.0.0.2")
				if full.InUse > full.Limit {
					t.Errorf("connections %+v", full)
				}
			})
		}
	}
}

// secure opens a connection of HTTP/2 that has said hello.
func (f *fortress) secure(t *testing.T) (*tls.Conn, *http2.Framer, *bufio.Writer) {
	t.Helper()
	config := f.tls.Clone()
	config.NextProtos = []string{"h2"}
	conn := tls.Client(f.dial(t.Context(), "127.0.0.1"), config)
	t.Cleanup(func() { conn.Close() })
	out := bufio.NewWriterSize(conn, 16<<10)
	if _, err := io.WriteString(out, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(out, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return conn, framer, out
}

// What net/http does about clients that keep it busy with frames: each of these ends the
// connection, after so many frames at most, and nobody else notices.
func TestAFloodOfFramesEndsItsConnection(t *testing.T) {
	t.Parallel()
	var get strings.Builder
	encoder := hpack.NewEncoder(&get)
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/docs"}} {
		_ = encoder.WriteField(field)
	}
	open := func(f *http2.Framer, id uint32, end bool) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(get.String()), EndHeaders: end, EndStream: true})
	}
	for _, c := range []struct {
		name  string
		reads bool
		most  int
		send  func(f *http2.Framer, n int) error
	}{
		{"pings whose answers nobody reads", false, 3_000_000, func(f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) }},
		{"a header without end", true, 1000, func(f *http2.Framer, n int) error {
			if n == 0 {
				return open(f, 1, false)
			}
			return f.WriteContinuation(1, false, make([]byte, 16<<10))
		}},
		{"streams that are reset whose answers nobody reads", false, 1_000_000, func(f *http2.Framer, n int) error {
			id := uint32(1 + 2*n)
			if err := open(f, id, true); err != nil {
				return err
			}
			return f.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other
			f := fortify(t, 256, 64, func(*Config) {})
			conn, framer, out := f.secure(t)
			if c.reads {
				go io.Copy(io.Discard, conn)
			}
			n := 0
			for ; n < c.most; n++ {
				if c.send(framer, n) != nil {
					break
				}
			}
			if n == c.most && out.Flush() == nil {
				t.Errorf("the connection lives after %d frames", n)
			}
			f.holds(t, "127.0.0.1")
		})
	}
}

// Streams that are reset at once, again and again, run no more handlers than a
// connection may have (CVE-2023-44487).
func TestARapidResetKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	f := fortify(t, 256, 64, func(*Config) {})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for range 5 {
		running.Go(func() {
			for ctx.Err() == nil {
				f.resets(ctx)
			}
		})
	}
	f.holds(t, "127.0.0.1")
	f.holds(t, "127.0.0.2")
}

func (f *fortress) resets(ctx context.Context) {
	config := f.tls.Clone()
	config.NextProtos = []string{"h2"}
	raw := f.dial(ctx, "127.0.0.1")
	if raw == nil {
		return
	}
	conn := tls.Client(raw, config)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go io.Copy(io.Discard, conn)
	h := &hoard{framer: http2.NewFramer(conn, conn), next: 1}
	h.encoder = hpack.NewEncoder(&h.block)
	h.fields = []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: f.addr}, {Name: ":path", Value: "/docs"}}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return
	}
	_ = h.framer.WriteSettings()
	for n := range 100_000 {
		if h.open() != nil || h.framer.WriteRSTStream(h.next-2, http2.ErrCodeCancel) != nil {
			return
		}
		if n%1000 == 0 {
			time.Sleep(10 * time.Millisecond) // on the same processors
		}
	}
}

// Behind a trusted proxy places count by the client that it names, and a client that
// names itself is not believed.
func TestPlacesCountByTheAddressOfTheClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		proxies []netip.Prefix
		clients int
	}{
		{"a trusted proxy", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 3},
		{"anybody else", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(cfg *Config) { cfg.TrustedProxies, cfg.MaxAnonymousPerAddress = c.proxies, 2 })
			for i := range 9 {
				d := net.Dialer{}
				conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, "POST /demoCA/sign HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 2001:db8:0:%d::%d\r\nContent-Length: 100\r\n\r\n{", i%3, i)
			}
			for n := s.api.places().Public; int(n.Evicted)+n.InUse != 9; n = s.api.places().Public {
				time.Sleep(time.Millisecond)
			}
			if n := s.api.places().Public; n.InUse != 2*c.clients || n.Addresses != c.clients {
				t.Errorf("places %+v, want those of %d clients", n, c.clients)
			}
		})
	}
}

// However many ask, the checks are made once a second, and nobody who waits for them has
// a place that somebody else needs.
func TestReadinessIsAskedFourTimesASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := newService(t, func(c *Config) {
			c.ReadyFor = 250 * time.Millisecond
			c.Checks = []Check{{"agent", func(ctx context.Context) error {
				asked++
				select {
				case <-time.After(500 * time.Millisecond):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}}
		})
		begun := time.Now()
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				rec := httptest.NewRecorder()
				s.api.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
				if rec.Code != http.StatusOK && rec.Code != http.StatusServiceUnavailable {
					t.Errorf("answer %d", rec.Code)
				}
			})
		}
		all.Wait()
		if asked != 1 || time.Since(begun) > time.Second {
			t.Errorf("asked %d times in %v", asked, time.Since(begun))
		}
		for range 100 { // in 10 seconds
			time.Sleep(100 * time.Millisecond)
			rec := httptest.NewRecorder()
			s.api.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		}
		if asked > 40 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// What nodes fetch costs the same however large it is: no copy and no hash of it.
func TestTheFilesOfNodesCostNothingThatGrows(t *testing.T) { // alone: it counts the allocations of the process
	allocated := func(size int, path, tag string) (allocs, bytes float64) {
		s := newService(t, func(c *Config) {
			c.Logger = nil
			c.Certificates = largeList{c.Certificates, make([]byte, size)}
		})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("If-None-Match", tag)
		ask := func() { s.api.Handler().ServeHTTP(&blackHole{h: make(http.Header)}, r) }
		ask()
		const times = 200
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		allocs = testing.AllocsPerRun(times, ask)
		runtime.ReadMemStats(&after)
		return allocs, float64(after.TotalAlloc-before.TotalAlloc) / (times + 1)
	}
	for _, path := range []string{"/v1/ca/revoked-keys", "/v1/ca/manifest", "/readyz"} {
		for _, tag := range []string{"", "*"} {
			few, little := allocated(1000, path, tag)
			many, much := allocated(4<<20, path, tag)
			t.Logf("%s, If-None-Match %q: %v allocations, %v bytes", path, tag, many, much)
			const pieces = 4 << 20 / maxWrite // each is noted when it waits for the client
			if many > few+pieces+2 || much > little+pieces*64 || much > 10_000 {
				t.Errorf("%s: %v allocations of %v bytes for a small list, %v of %v for a large one", path, few, little, many, much)
			}
		}
	}
}

// blackHole takes an answer and keeps nothing.
type blackHole struct{ h http.Header }

func (b *blackHole) Header() http.Header         { return b.h }
func (b *blackHole) Write(p []byte) (int, error) { return len(p), nil }
func (b *blackHole) WriteHeader(int)             {}

// With these it is as a connection, so that no error is made for each deadline.

func (b *blackHole) SetWriteDeadline(time.Time) error { return nil }
func (b *blackHole) SetReadDeadline(time.Time) error  { return nil }
func (b *blackHole) FlushError() error                { return nil }

// A drain shows at once, a check that begins to fail within 250 ms, a mended one at once.
func TestReadinessIsFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken error
		s := newService(t, func(c *Config) {
			c.ReadyFor = 250 * time.Millisecond
			c.Checks = []Check{{"agent", func(context.Context) error { return broken }}}
		})
		want := func(status int, when string) {
			rec := httptest.NewRecorder()
			s.api.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
			if rec.Code != status {
				t.Errorf("%s: %d, want %d", when, rec.Code, status)
			}
		}
		want(http.StatusOK, "all is well")
		broken = errors.New("the agent is locked")
		time.Sleep(250 * time.Millisecond)
		want(http.StatusServiceUnavailable, "the agent is locked")
		broken = nil
		want(http.StatusOK, "the agent is unlocked")
		s.api.Drain()
		want(http.StatusServiceUnavailable, "it drains")
	})
}
