// Package faultproxy is a TCP proxy on the loopback interface that fails on demand, for
// tests: in place of the network between two programs.
package faultproxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// A Fault is what is wrong with the network. The zero Fault is nothing.
type Fault struct {
	// Latency delays every part of a stream, in each direction.
	Latency time.Duration
	// Swallow lets nothing through, while connections stand and new ones are taken, as
	// a firewall that drops packets. What was swallowed comes later, as TCP repeats it.
	Swallow bool
	// Refuse closes new connections at once.
	Refuse bool
	// BytesPerSecond slows down what comes back from the target; 0: no limit.
	BytesPerSecond int
}

// A Proxy stands before one address.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	change sync.Cond
	fault  Fault
	closed bool
	pairs  map[*pair]struct{}
	taken  int
}

// A pair is a connection from a client and the one to the target that belongs to it.
type pair struct{ near, far *net.TCPConn }

// Start listens on a free port.
func Start(target string) (*Proxy, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: listener, pairs: make(map[*pair]struct{})}
	p.change.L = &p.mu
	p.running.Go(p.accept)
	return p, nil
}

// Addr is host:port of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set replaces the fault, for the connections that stand too.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	p.change.Broadcast()
}

// Taken counts the connections that clients have opened.
func (p *Proxy) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.each(func(c *pair) {
		for _, conn := range []*net.TCPConn{c.near, c.far} {
			_ = conn.SetLinger(0) // a reset, no orderly end
			_ = conn.Close()
		}
	})
}

// Abandon resets the connections to the target, and leaves those of the clients open:
// the other end has vanished and nobody tells.
func (p *Proxy) Abandon() {
	p.mu.Lock()
	p.fault.Swallow = true
	p.change.Broadcast()
	p.mu.Unlock()
	p.each(func(c *pair) {
		_ = c.far.SetLinger(0)
		_ = c.far.Close()
	})
}

func (p *Proxy) each(do func(*pair)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		do(c)
	}
}

// Close ends everything.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.change.Broadcast()
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(near.(*net.TCPConn)) }) //nolint:forcetypeassert // of a TCP listener
	}
}

func (p *Proxy) serve(near *net.TCPConn) {
	defer near.Close() //nolint:errcheck // nobody is told
	if f, ok := p.ready(); !ok || f.Refuse {
		return
	}
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	c := &pair{near: near, far: far.(*net.TCPConn)} //nolint:forcetypeassert // dialled by TCP
	defer c.far.Close()                             //nolint:errcheck // nobody is told
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	p.taken++
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(c.far, c.near, false) })
	both.Go(func() { p.copy(c.near, c.far, true) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// ready waits while everything is swallowed.
func (p *Proxy) ready() (f Fault, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.fault.Swallow && !p.closed {
		p.change.Wait()
	}
	return p.fault, !p.closed
}

// copy moves a stream until it ends, and then ends the other side of it.
func (p *Proxy) copy(to, from *net.TCPConn, back bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		f, ok := p.ready()
		if !ok {
			return
		}
		if f.Latency > 0 {
			time.Sleep(f.Latency)
		}
		if back && f.BytesPerSecond > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(f.BytesPerSecond))
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				_ = from.Close() // else its peer goes on
				return
			}
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_ = to.CloseWrite()
			return
		}
	}
}
