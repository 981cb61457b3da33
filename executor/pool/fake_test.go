package pool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sallyport/executor/pool"
)

// A fakeNode dials fakeConns. Its settings may be changed between dials.
type fakeNode struct {
	mu       sync.Mutex
	latency  time.Duration // of a dial
	lifetime time.Duration // of the credential; 0 means for ever
	err      error         // of every dial from now on
	refuse   int           // this many dials fail, then no more
	conns    []*fakeConn   // all that were dialled
	started  int           // dials
	dialing  int
	mostDial int // most dials at once
	open     int
	mostOpen int // most connections at once, those being dialled included
}

func newNode() *fakeNode { return &fakeNode{latency: 50 * time.Millisecond} }

var errDial = errors.New("dial failed")

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
	if n.refuse > 0 && err == nil {
		n.refuse--
		err = errDial
	}
	if n.err != nil && err == nil {
		err = n.err
	}
	if err != nil {
		n.open--
		return pool.Dialed[*fakeConn]{}, err
	}
	c := &fakeConn{node: n, id: len(n.conns), gone: make(chan struct{})}
	n.conns = append(n.conns, c)
	made := pool.Dialed[*fakeConn]{Conn: c}
	if n.lifetime != 0 {
		made.NotAfter = time.Now().Add(n.lifetime)
	}
	return made, nil
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

// A fakeConn is closed by Close or by breaking.
type fakeConn struct {
	node     *fakeNode
	id       int
	once     sync.Once
	gone     chan struct{}
	closing  time.Duration // how long Close takes
	sessions int           // guarded by node.mu
}

func (c *fakeConn) Close() error {
	time.Sleep(c.closing)
	c.end()
	return nil
}

// end ends the connection, as the peer would.
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

type config = pool.Config[string, *fakeConn]

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
