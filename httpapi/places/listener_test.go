package places

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// A listening is a server behind a Listener.
type listening struct {
	*Listener
	t *testing.T
}

func listen(t *testing.T, limits Limits, rank func(netip.Addr) Rank) listening {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := Listen(l, limits, rank)
	server, served := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if c, ok := r.Context().Value(connKey{}).(*Conn); ok && r.Header.Get("Authorization") != "" {
				c.Prove()
			}
		}),
		ReadHeaderTimeout: time.Minute, ConnContext: connContext, ConnState: connState,
	}, make(chan error, 1)
	go func() { served <- server.Serve(bounded) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return listening{bounded, t}
}

type connKey struct{}

func connContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

func connState(conn net.Conn, state http.ConnState) {
	c, _ := conn.(*Conn)
	switch state {
	case http.StateIdle:
		c.Idle()
	case http.StateActive:
		c.Busy()
	default:
	}
}

// dial opens a connection from an address of loopback.
func (l listening) dial(from string) net.Conn {
	l.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(l.t.Context(), "tcp", l.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	return conn
}

// answered sends a request, with a token or without one.
func answered(conn net.Conn, token string) bool {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+token+"\r\n"); err != nil {
		return false
	}
	buf := make([]byte, 1024)
	_, err := conn.Read(buf)
	return err == nil
}

const withToken = "Authorization: x\r\n"

// Who opens connections and leaves them idle takes no more than the listener's part, and
// keeps nobody out: neither others nor the next one of the same address.
func TestIdleConnectionsGoFirst(t *testing.T) {
	t.Parallel()
	l := listen(t, Limits{Total: 32, Each: 8}, nil)
	var idle []net.Conn
	for range 200 {
		idle = append(idle, l.dial("127.0.0.1"))
	}
	for i := range 200 {
		idle = append(idle, l.dial("127.0.1."+string(rune('1'+i%9))))
	}
	for _, from := range []string{"127.0.0.1", "127.0.2.1", "127.0.1.1"} {
		if !answered(l.dial(from), "") {
			t.Errorf("from %s: not served", from)
		}
	}
	if n := l.Count(); n.InUse > 32 || n.Evicted < 300 {
		t.Errorf("count %+v", n)
	}
	if answered(idle[0], "") {
		t.Error("the first idle one is still there")
	}
}

// A connection that has shown a token stays while strangers come, and outlives the idle
// ones of its own address.
func TestAProvedConnectionStays(t *testing.T) {
	t.Parallel()
	l := listen(t, Limits{Total: 32, Each: 8}, nil)
	proved := l.dial("127.0.0.1")
	if !answered(proved, withToken) {
		t.Fatal("not served")
	}
	for i := range 300 {
		l.dial("127.0." + string(rune('0'+i%10)) + ".1")
	}
	if !answered(proved, "") {
		t.Error("it is gone")
	}
}

func TestKnownAddressesAndNodesGetIn(t *testing.T) {
	t.Parallel()
	l := listen(t, Limits{Total: 32, Each: 8}, func(a netip.Addr) Rank {
		return map[string]Rank{"127.0.0.8": Known, "127.0.0.9": Node}[a.String()]
	})
	for i := range 10 {
		for range 10 { // each shows a token, and takes what it can
			conn := l.dial("127.0.1." + string(rune('0'+i)))
			answered(conn, withToken)
		}
	}
	for _, from := range []string{"127.0.0.8", "127.0.0.9", "127.0.0.10"} {
		if !answered(l.dial(from), "") {
			t.Errorf("from %s: not served; %+v", from, l.Count())
		}
	}
}
