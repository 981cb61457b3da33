package sshtest

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
)

// serve handles one connection to its end.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	defer func() { _ = raw.Close() }() // the transport may have closed it before
	conn, channels, requests, err := ssh.NewServerConn(raw, s.serverConfig())
	if err != nil {
		return // the client knows why; sshd would only log it
	}
	login, _ := conn.Permissions.ExtraData[loginKey{}].(Login)
	s.noteLogin(login)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { ssh.DiscardRequests(requests) }) // answers keepalive@openssh.com as sshd does
	c := &connection{server: s, conn: conn, login: login}
	for channel := range channels {
		switch channel.ChannelType() {
		case "session":
			c.openSession(ctx, &wg, channel)
		case "direct-tcpip":
			wg.Go(func() { c.forward(ctx, channel) })
		default:
			_ = channel.Reject(ssh.UnknownChannelType, "unknown channel type")
		}
	}
	cancel()
	wg.Wait()
}

// A connection is one client after its login.
type connection struct {
	server *Server
	conn   *ssh.ServerConn
	login  Login

	mu       sync.Mutex // guards sessions
	sessions int
}

// take counts a session, unless there are too many.
func (c *connection) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions >= c.server.cfg.MaxSessions {
		return false
	}
	c.sessions++
	return true
}

func (c *connection) give() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions--
}

// openSession decides in the order of arrival, so that a session which was just
// closed makes room for the next one.
func (c *connection) openSession(ctx context.Context, wg *sync.WaitGroup, nc ssh.NewChannel) {
	if !c.take() {
		// The reason and the words of sshd (serverloop.c, server_input_channel_open).
		_ = nc.Reject(ssh.ConnectionFailed, "open failed")
		return
	}
	channel, requests, err := nc.Accept()
	if err != nil {
		c.give()
		return
	}
	wg.Go(func() { c.session(ctx, channel, requests) })
}

// directTCPIP is the payload of RFC 4254 §7.2.
type directTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

func (c *connection) forward(ctx context.Context, nc ssh.NewChannel) {
	var target directTCPIP
	if c.server.cfg.Forward == nil || ssh.Unmarshal(nc.ExtraData(), &target) != nil {
		_ = nc.Reject(ssh.Prohibited, "open failed")
		return
	}
	address := net.JoinHostPort(target.Host, strconv.FormatUint(uint64(target.Port), 10))
	out, err := c.server.cfg.Forward(ctx, address)
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "connect failed")
		return
	}
	defer func() { _ = out.Close() }()
	channel, requests, err := nc.Accept()
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { ssh.DiscardRequests(requests) })
	wg.Go(func() {
		_, _ = io.Copy(out, channel)
		_ = out.Close()
	})
	_, _ = io.Copy(channel, out)
	_ = channel.Close()
	wg.Wait()
}
