package main

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Who opens connections and leaves them idle takes no more than the listener's part.
func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(bounded(l, 2)) }()
	defer func() {
		server.Close()
		<-served
	}()
	dial := func() net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	answered := func(conn net.Conn) bool {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return false
		}
		_, err := conn.Read(make([]byte, 1))
		return err == nil
	}
	first, second := dial(), dial()
	if !answered(first) || !answered(second) {
		t.Fatal("the first two are not served")
	}
	if answered(dial()) {
		t.Error("a third one is served")
	}
	first.Close()
	for deadline := time.Now().Add(10 * time.Second); !answered(dial()); {
		if time.Now().After(deadline) {
			t.Fatal("no place became free")
		}
	}
}
