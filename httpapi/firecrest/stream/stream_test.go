package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"
)

// oneConn is a listener with one connection, of this process alone.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error   { close(l.done); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// between connects both ends in a bubble, where a minute takes no time.
func between(t *testing.T, serve func(conn *websocket.Conn)) *websocket.Conn {
	t.Helper()
	l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		serve(conn)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		l.conns <- there
		return here, nil
	}}
	conn, _, err := websocket.Dial(t.Context(), "ws://bubble/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}}) //nolint:bodyclose // a switch of protocols has none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func TestAPeerThatStopsIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"before the first word": "", "in the file": `{"type": "init", "num_chunks": 1, "file_size": 9}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				conn := between(t, func(conn *websocket.Conn) {
					in, err := Receive(context.Background(), conn, 100)
					if err == nil {
						_, err = io.ReadAll(in)
						in.Close()
					}
					ended <- err
				})
				if first != "" {
					if err := conn.Write(t.Context(), websocket.MessageBinary, []byte(first)); err != nil {
						t.Fatal(err)
					}
				}
				if err := <-ended; !errors.Is(err, errStalled) {
					t.Errorf("got %v, want that nothing moved", err)
				}
			})
		})
	}
	t.Run("who does not read", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 1)
			between(t, func(conn *websocket.Conn) {
				ended <- Send(context.Background(), conn, chunkSize, func(_ context.Context, w io.Writer, _, n int64) (int64, error) {
					return io.CopyN(w, zeros{}, n)
				})
			})
			if err := <-ended; !errors.Is(err, errStalled) {
				t.Errorf("got %v, want that nothing moved", err)
			}
		})
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAFileThatBecomesShorterIsNotSentAsWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		conn := between(t, func(conn *websocket.Conn) {
			ended <- Send(context.Background(), conn, 10, func(_ context.Context, w io.Writer, _, _ int64) (int64, error) {
				n, err := w.Write([]byte("short"))
				return int64(n), err
			})
		})
		_, _, _ = conn.Read(t.Context())
		for {
			kind, data, err := conn.Read(t.Context())
			if err != nil {
				break
			}
			if kind == websocket.MessageText {
				t.Errorf("the file was ended as if it were whole: %s", data)
			}
		}
		if err := <-ended; err == nil {
			t.Error("no error")
		}
	})
}
