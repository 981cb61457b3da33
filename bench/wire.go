package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A caller is one HTTP client with one keep-alive connection that sends the same
// request again and again. It writes prepared bytes, as load generators do:
// net/http's client would cost as much as the service that it measures.
type caller struct {
	address string
	request []byte
	status  int    // that is expected
	want    []byte // what the body has to hold

	conn   net.Conn
	reader *bufio.Reader
	body   bytes.Buffer
}

// newCaller posts JSON.
func newCaller(address, token, path, body string, status int, want string) *caller {
	return newRequest(address, token, http.MethodPost, path, "application/json", body, status, want)
}

func newRequest(address, token, method, path, media, body string, status int, want string) *caller {
	c := &caller{address: address, status: status, want: []byte(want)}
	c.request = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", method, path, address, token)
	if body != "" {
		c.request = fmt.Appendf(c.request, "Content-Type: %s\r\nContent-Length: %d\r\n", media, len(body))
	}
	c.request = append(append(c.request, "\r\n"...), body...)
	return c
}

// call sends the request and checks the answer.
func (c *caller) call(ctx context.Context) error {
	if c.conn == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", c.address)
		if err != nil {
			return err
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
	}
	err := c.exchange()
	if err != nil {
		c.close()
	}
	return err
}

func (c *caller) exchange() error {
	if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.reader, nil) //nolint:bodyclose // there is nothing to release; ReadAll takes it off the connection
	if err != nil {
		return err
	}
	c.body.Reset()
	if _, err := c.body.ReadFrom(answer.Body); err != nil {
		return err
	}
	body := c.body.Bytes()
	if answer.StatusCode != c.status || !bytes.Contains(body, c.want) {
		return fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(body[:min(len(body), 500)]))
	}
	return nil
}

func (c *caller) close() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is lost with it
		c.conn = nil
	}
}
