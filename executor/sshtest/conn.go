package sshtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how much one direction of a Pipe holds before Write blocks.
const pipeBuffer = 256 << 10

// Pipe returns both ends of an in-memory connection. Unlike net.Pipe it buffers,
// because both sides of SSH begin by writing (RFC 4253 §4.2), and it blocks only
// in sync.Cond, so that a testing/synctest bubble sees its goroutines as idle.
// Deadlines are not supported.
func Pipe(client, server net.Addr) (atClient, atServer net.Conn) {
	up, down := newStream(), newStream()
	return &pipeConn{in: down, out: up, local: client, remote: server},
		&pipeConn{in: up, out: down, local: server, remote: client}
}

type pipeConn struct {
	in, out       *stream
	local, remote net.Addr
}

func (c *pipeConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *pipeConn) LocalAddr() net.Addr         { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions. What was written before can still be read.
func (c *pipeConn) Close() error {
	c.out.close()
	c.in.abandon()
	return nil
}

func (c *pipeConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *pipeConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *pipeConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// A stream is one direction of a pipe.
type stream struct {
	mu        sync.Mutex // guards what follows
	changed   *sync.Cond
	data      []byte
	closed    bool // by the writer: reads end with EOF after data
	abandoned bool // by the reader: writes fail
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.data) == 0 && !s.closed && !s.abandoned {
		s.changed.Wait()
	}
	switch {
	case s.abandoned:
		return 0, net.ErrClosed
	case len(s.data) == 0:
		return 0, io.EOF
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	s.changed.Broadcast()
	return n, nil
}

func (s *stream) write(p []byte) (written int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		for len(s.data) >= pipeBuffer && !s.closed && !s.abandoned {
			s.changed.Wait()
		}
		switch {
		case s.closed:
			return written, net.ErrClosed
		case s.abandoned:
			return written, io.ErrClosedPipe
		}
		n := min(len(p), pipeBuffer-len(s.data))
		s.data = append(s.data, p[:n]...)
		p = p[n:]
		written += n
		s.changed.Broadcast()
	}
	return written, nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

func (s *stream) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandoned = true
	s.data = nil
	s.changed.Broadcast()
}

// A gate holds up whoever passes while it is shut.
type gate struct {
	mu      sync.Mutex // guards closed
	closed  bool
	changed *sync.Cond
}

func newGate() *gate {
	g := &gate{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

func (g *gate) shut() { g.set(true) }
func (g *gate) open() { g.set(false) }

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
	g.changed.Broadcast()
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.closed {
		g.changed.Wait()
	}
}

// gatedConn is the server's end of a connection that can be frozen.
type gatedConn struct {
	net.Conn
	gate *gate
}

// Read passes the gate after reading too: a read that was under way when the
// gate shut must not deliver.
func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.gate.pass()
	return n, err
}

func (c *gatedConn) Write(p []byte) (int, error) {
	c.gate.pass()
	return c.Conn.Write(p)
}
