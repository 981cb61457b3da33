package faultproxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sallyport/internal/faultproxy"
)

// echo is a server that sends back what it gets, and the proxy before it.
func echo(t *testing.T) *faultproxy.Proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	p, err := faultproxy.Start(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		_ = listener.Close()
		wg.Wait()
	})
	return p
}

type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, p *faultproxy.Proxy) *client {
	t.Helper()
	c, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{c, bufio.NewReader(c)}
}

func (c *client) ask(text string, patience time.Duration) (string, error) {
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return c.r.ReadString('\n')
}

func TestFaults(t *testing.T) {
	t.Parallel()
	p := echo(t)
	c := dial(t, p)
	if got, err := c.ask("a", 5*time.Second); got != "a\n" {
		t.Fatalf("%q, %v", got, err)
	}
	p.Set(faultproxy.Fault{Latency: 50 * time.Millisecond})
	began := time.Now()
	if got, err := c.ask("b", 5*time.Second); got != "b\n" || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%q after %v, %v", got, time.Since(began), err)
	}
	p.Set(faultproxy.Fault{Swallow: true})
	if got, err := c.ask("c", 100*time.Millisecond); err == nil {
		t.Errorf("through the hole came %q", got)
	}
	p.Set(faultproxy.Fault{})
	if got, err := c.ask("d", 5*time.Second); got != "c\n" {
		t.Errorf("%q, %v", got, err)
	}
	p.Set(faultproxy.Fault{Refuse: true})
	if _, err := dial(t, p).ask("e", 5*time.Second); err == nil {
		t.Error("a new connection was served")
	}
	p.Set(faultproxy.Fault{})
	p.Cut()
	if _, err := c.ask("f", 5*time.Second); err == nil {
		t.Error("the connection stands")
	}
	c = dial(t, p)
	if got, err := c.ask("g", 5*time.Second); got != "g\n" {
		t.Fatalf("%q, %v", got, err)
	}
	p.Abandon()
	if _, err := c.ask("h", 100*time.Millisecond); err == nil {
		t.Error("somebody answered")
	}
	if n := p.Taken(); n != 2 {
		t.Errorf("%d connections were taken", n)
	}
}
