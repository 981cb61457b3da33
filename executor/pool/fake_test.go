package pool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sallyport/executor/pool"
)

type (
	config = pool.Config[string, *fakeConn]
	lease  = pool.Lease[*fakeConn]
)

var errDial = errors.New("dial failed")

// A fakeNode dials fakeConns, and counts. Its settings may change between dials.
type fakeNode struct {
	mu sync.Mutex

	latency  time.Duration // of a dial
	lifetime time.Duration // of the credential; 0 means for ever
	closing  time.Duration // how long Close takes
	closeErr error         // of Close
	err      error         // of every dial from now on
	refuse   int           // this many dials fail, then no more
	sessions int           // per connection; 0 means any number

	conns    []*fakeConn // all that were dialled
	started  int         // dials
	dialing  int
	mostDial int // most dials at once
	open     int // connections and dials
	mostOpen int
}

func newNode() *fakeNode { return &fakeNode{latency: 50 * time.Millisecond} }

func (n *fakeNode) dial(ctx context.Context) (pool.Dialed[*fakeConn], error) {
	n.mu.Lock()
	n.started++
	n.dialing++
	n.open++
	n.mostDial, n.mostOpen = max(n.mostDial, n.dialing), max(n.mostOpen, n.open)
	latency := n.latency
	n.mu.Unlock()

	var err error
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		err = ctx.Err()
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialing--
	if err == nil {
		err = n.err
	}
	if err == nil && n.refuse > 0 {
		n.refuse--
		err = errDial
	}
	if err != nil {
		n.open--
		return pool.Dialed[*fakeConn]{}, err
	}
	return n.connectLocked(), nil
}

func (n *fakeNode) connectLocked() pool.Dialed[*fakeConn] {
	c := &fakeConn{node: n, id: len(n.conns), gone: make(chan struct{}), closing: n.closing, closeErr: n.closeErr}
	made := pool.Dialed[*fakeConn]{Conn: c}
	if n.lifetime != 0 {
		c.notAfter = time.Now().Add(n.lifetime)
		made.NotAfter = c.notAfter
	}
	n.conns = append(n.conns, c)
	return made
}

// set changes settings.
func (n *fakeNode) set(f func(*fakeNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

func (n *fakeNode) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.started
}

func (n *fakeNode) mostDials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mostDial
}

// A fakeConn ends by Close or by the peer.
type fakeConn struct {
	node     *fakeNode
	id       int
	key      string // set by tests that need it
	notAfter time.Time
	closing  time.Duration
	closeErr error
	once     sync.Once
	gone     chan struct{}

	// Guarded by node.mu.
	opened int // sessions now
	frozen bool
}

func (c *fakeConn) Close() error {
	time.Sleep(c.closing)
	c.end()
	return c.closeErr
}

// end ends the connection as its peer would.
func (c *fakeConn) end() {
	c.once.Do(func() {
		c.node.mu.Lock()
		c.node.open--
		c.node.mu.Unlock()
		close(c.gone)
	})
}

func (c *fakeConn) Wait() error {
	<-c.gone
	return errors.New("connection is closed")
}

func (c *fakeConn) closed() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// openSession is what the node's sshd does: it counts to MaxSessions.
func (c *fakeConn) openSession() bool {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	if c.node.sessions != 0 && c.opened >= c.node.sessions {
		return false
	}
	c.opened++
	return true
}

func (c *fakeConn) closeSession() {
	c.node.mu.Lock()
	defer c.node.mu.Unlock()
	c.opened--
}

// freeze makes a peer that answers no more.
func (c *fakeConn) freeze() { c.node.set(func(*fakeNode) { c.frozen = true }) }

// probe is a Config.Probe: a frozen peer answers when the connection is closed.
func probe(_ context.Context, c *fakeConn) error {
	c.node.mu.Lock()
	frozen := c.frozen
	c.node.mu.Unlock()
	if frozen {
		<-c.gone
	}
	if c.closed() {
		return errors.New("connection is closed")
	}
	return nil
}

// newPool returns a pool that is closed at the end of the test, in its bubble.
func newPool(t *testing.T, cfg config) *pool.Pool[string, *fakeConn] {
	t.Helper()
	p, err := pool.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

// reserve returns a lease or fails the test.
func reserve(t *testing.T, p *pool.Pool[string, *fakeConn], key string, n *fakeNode) *lease {
	t.Helper()
	l, err := p.Reserve(t.Context(), key, n.dial)
	if err != nil {
		t.Fatalf("Reserve %q: %v", key, err)
	}
	return l
}

// reserveN returns n leases of the key.
func reserveN(t *testing.T, p *pool.Pool[string, *fakeConn], key string, n *fakeNode, count int) []*lease {
	t.Helper()
	var leases []*lease
	for range count {
		leases = append(leases, reserve(t, p, key, n))
	}
	return leases
}

// An outcome is what a Reserve in the background came to.
type outcome struct {
	lease *lease
	err   error
	at    time.Time
}

// later reserves in the background. The channel has room for the outcome.
func later(ctx context.Context, p *pool.Pool[string, *fakeConn], key string, dial pool.Dial[*fakeConn]) <-chan outcome {
	ch := make(chan outcome, 1)
	go func() {
		l, err := p.Reserve(ctx, key, dial)
		ch <- outcome{l, err, time.Now()}
	}()
	return ch
}
