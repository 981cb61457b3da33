package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sallyport/httpapi/contract"
)

// memory is a listener whose connections are net.Pipes: unbuffered, with
// deadlines, and at home in a synctest bubble.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { close(m.closed); return nil }
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (m *memory) dial() net.Conn {
	near, far := net.Pipe()
	m.conns <- far
	return near
}

// inMemory serves an API within a bubble; the contract is checked there too.
func inMemory(t *testing.T, change func(*Config)) *memory {
	t.Helper()
	s := newService(t, change)
	m := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := s.api.Server()
	server.Handler = contract.Check(t, s.api.Handler())
	served := make(chan error, 1)
	go func() { served <- server.Serve(m) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return m
}

// post writes the head and body of a request to a connection of its own.
func (m *memory) post(t *testing.T, path, accept, body string) net.Conn {
	t.Helper()
	conn := m.dial()
	t.Cleanup(func() { conn.Close() })
	m.write(t, conn, path, accept, len(body), body)
	return conn
}

func (m *memory) write(t *testing.T, conn net.Conn, path, accept string, length int, body string) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: memory\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n%s",
		path, good, accept, length, body)
	if err != nil {
		t.Errorf("writing a request: %v", err)
	}
}

// get reads an answer to its end.
func readAnswer(t *testing.T, conn io.Reader) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), "POST", "/", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatalf("reading an answer: %v", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading a body: %v after %q", err, data)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}
