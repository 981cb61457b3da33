package places

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A Listener bounds the connections that are open at a time. A connection that has
// shown no good token yields from its first moment, one that has while it is idle.
// Those above the bound are closed at once: who waits in a queue behind idle ones
// learns nothing.
type Listener struct {
	net.Listener
	crowd *Crowd
	rank  func(netip.Addr) Rank
}

// Listen bounds the connections of l. Rank says what is known of an address; nil: of
// none anything.
func Listen(l net.Listener, limits Limits, rank func(netip.Addr) Rank) *Listener {
	if rank == nil {
		rank = func(netip.Addr) Rank { return Stranger }
	}
	return &Listener{Listener: l, crowd: NewCrowd(limits), rank: rank}
}

// Count says how many connections are open.
func (l *Listener) Count() Count { return l.crowd.Count() }

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := addrOf(conn)
		rank := l.rank(addr)
		c := &Conn{Conn: conn}
		c.member = l.crowd.Join(Area(addr), rank, func() { _ = conn.Close() })
		if c.member == nil {
			_ = conn.Close() // it was never served
			continue
		}
		c.leave = sync.OnceFunc(c.member.Leave)
		c.member.Yield()
		return c, nil
	}
}

// addrOf is the peer's address; the zero one if it has none.
func addrOf(conn net.Conn) netip.Addr {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr()
}

// A Conn is a connection of a [Listener].
type Conn struct {
	net.Conn
	member *Member
	leave  func()
	proved atomic.Bool
}

// Prove says that a good token came through the connection.
func (c *Conn) Prove() {
	if c.proved.Load() || !c.proved.CompareAndSwap(false, true) {
		return
	}
	c.member.Hold()
	c.member.Rise(Known)
}

// Idle says that no request is in the connection, Busy that there is one.
func (c *Conn) Idle() {
	if c.proved.Load() {
		c.member.Yield()
	}
}

// Busy is the opposite of Idle.
func (c *Conn) Busy() {
	if c.proved.Load() {
		c.member.Hold()
	}
}

// Close implements [net.Conn].
func (c *Conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
