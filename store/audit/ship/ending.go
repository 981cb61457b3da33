package ship

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// ending is a connection whose end is looked at closely.
type ending struct {
	net.Conn
	raw    net.Conn
	secure *tls.Conn // nil: plain TCP
	end    error     // of raw's reads; of await's goroutine until ended is closed
	notice bool      // the peer sent a close_notify
	ended  chan struct{}
}

// watched notes how reading the bytes below TLS has ended: crypto/tls reports a bare end
// between two TLS records as io.EOF, as it does a close_notify.
type watched struct {
	net.Conn
	end *error
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		*w.end = err
	}
	return n, err
}

// await reads until the peer ends. What a receiver sends is nothing to us.
func (c *ending) await() {
	defer close(c.ended)
	b := make([]byte, 512)
	for {
		if _, err := c.Read(b); err != nil {
			if c.secure == nil {
				c.end = err
			}
			c.notice = c.secure != nil && errors.Is(err, io.EOF) && c.end == nil
			break
		}
	}
	for c.end == nil { // behind a close_notify comes the end of TCP, or a reset
		if err := c.raw.SetReadDeadline(time.Now().Add(endTime)); err != nil {
			c.end = err
			return
		}
		_, c.end = c.raw.Read(b)
	}
}

// finish ends our side and returns nil if the peer's answer says that it has read all.
func (c *ending) finish(anyEnd bool) error {
	defer c.close()
	if isClosed(c.ended) {
		return fail(Broken, "the receiver ended the connection")
	}
	if c.secure != nil {
		if err := c.secure.CloseWrite(); err != nil {
			return fail(Broken, "%w", err)
		}
	}
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return fail(Broken, "%w", err)
		}
	}
	select {
	case <-c.ended:
	case <-time.After(endTime):
		return fail(Unconfirmed, "the receiver does not answer the end of the connection")
	}
	if !errors.Is(c.end, io.EOF) {
		return fail(Broken, "%w", c.end)
	}
	if !c.notice && !anyEnd {
		return fail(Unconfirmed, "the receiver ended without a TLS close_notify (RFC 5425 section 4.4)")
	}
	return nil
}

// close ends the connection and await.
func (c *ending) close() {
	_ = c.raw.Close()
	<-c.ended
}
