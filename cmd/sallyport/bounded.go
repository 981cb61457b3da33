package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// maxSideConns bounds the connections to metrics.listen, where a few scrapers have one each,
// and to firecrest.streamer.listen, where each lives for one short answer.
const maxSideConns = 64

// maxPublicConns bounds the connections to server.listen: idle ones must not take the
// files that login nodes, the audit log and administrators need.
func maxPublicConns() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		files.Cur = 1024
	}
	const most = 1 << 20
	return int(min(files.Cur, most)) / 4 * 3
}

// A boundedListener has no more than so many connections open at a time. Those above
// are closed at once: who waits in a queue behind idle ones learns nothing.
type boundedListener struct {
	net.Listener
	places chan struct{}
}

// listenBeside opens the address of an option for a server beside the public one.
func listenBeside(ctx context.Context, option, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	return bounded(l, maxSideConns), nil
}

func bounded(l net.Listener, most int) net.Listener {
	return &boundedListener{Listener: l, places: make(chan struct{}, most)}
}

// Accept implements [net.Listener].
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &boundedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			_ = conn.Close() // it was never served
		}
	}
}

type boundedConn struct {
	net.Conn
	leave func()
}

// Close implements [net.Conn].
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
