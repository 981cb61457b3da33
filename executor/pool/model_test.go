package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sallyport/executor/pool"
)

// A model is a pool, the nodes behind it, and what its callers hold and wait for.
type model struct {
	cfg     config
	pool    *pool.Pool[string, *fakeConn]
	nodes   map[string]*fakeNode // by group
	keys    []string
	pending []*attempt
	held    []*attempt
}

// An attempt is one call of Reserve.
type attempt struct {
	key    string
	cancel context.CancelFunc
	gone   bool // cancelled
	done   <-chan outcome
	lease  *lease
}

// A step is one random operation: pick chooses among what it may act on.
type step struct {
	op   string
	pick int
	d    time.Duration
}

var steps = []string{
	"reserve", "reserve", "reserve", "reserve", "burst", "cancel", "release", "release", "release", "release all",
	"discard", "full", "granted", "break", "freeze", "refuse dials", "slow dials", "short lifetime", "sleep", "sleep",
	"sleep", "close where",
}

func TestRandomUseKeepsTheBooks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := config{
			MaxSessions:      rapid.IntRange(1, 4).Draw(rt, "MaxSessions"),
			MaxConnsPerKey:   rapid.IntRange(1, 3).Draw(rt, "MaxConnsPerKey"),
			MaxConns:         rapid.IntRange(1, 6).Draw(rt, "MaxConns"),
			MaxWaiters:       rapid.IntRange(1, 30).Draw(rt, "MaxWaiters"),
			MaxDialsPerGroup: rapid.IntRange(1, 3).Draw(rt, "MaxDialsPerGroup"),
			SessionGrace:     time.Duration(rapid.IntRange(0, 100).Draw(rt, "SessionGrace")) * time.Second,
			Group:            func(k string) string { return k[:1] },
			Probe:            probe,
		}
		script := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				op:   rapid.SampledFrom(steps).Draw(rt, "op"),
				pick: rapid.IntRange(0, 1<<16).Draw(rt, "pick"),
				d:    time.Duration(rapid.IntRange(0, 90_000).Draw(rt, "ms")) * time.Millisecond,
			}
		}), 1, 60).Draw(rt, "script")
		var err error
		synctest.Test(t, func(*testing.T) { err = play(cfg, script) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// play runs the script, and then lets everything come to its end.
func play(cfg config, script []step) error {
	p, err := pool.New(cfg)
	if err != nil {
		return err
	}
	m := &model{
		cfg: cfg, pool: p, keys: []string{"x1", "x2", "x3", "y1", "y2"},
		nodes: map[string]*fakeNode{"x": newNode(), "y": newNode()},
	}
	err = m.play(script)
	for _, a := range append(m.pending, m.held...) {
		a.cancel()
	}
	return errors.Join(err, p.Close())
}

func (m *model) play(script []step) error {
	for i, s := range script {
		err := m.do(s)
		synctest.Wait()
		if err = errors.Join(err, m.check()); err != nil {
			return fmt.Errorf("step %d, %s: %w", i, s.op, err)
		}
	}
	for _, n := range m.nodes {
		n.set(func(n *fakeNode) { n.refuse, n.latency = 0, time.Millisecond })
	}
	for len(m.held)+len(m.pending) > 0 { // nobody waits for ever
		for _, a := range m.held {
			a.lease.Release()
			a.cancel()
		}
		m.held = nil
		time.Sleep(time.Second)
		synctest.Wait()
		if err := m.check(); err != nil {
			return fmt.Errorf("at the end: %w", err)
		}
	}
	time.Sleep(time.Hour)
	synctest.Wait()
	s := m.pool.Stats()
	if keys, _ := m.pool.Keys(); keys != 0 || s.Open+s.Leases+s.Waiting+s.Dialing != 0 {
		return fmt.Errorf("%d keys are left, stats %+v", keys, s)
	}
	return nil
}

// do performs a step, as far as there is something to act on.
func (m *model) do(s step) error {
	node := m.nodes[[]string{"x", "y"}[s.pick%2]]
	var a *attempt
	if len(m.held) > 0 {
		a = m.held[s.pick%len(m.held)]
	}
	switch s.op {
	case "reserve":
		m.reserve(s.pick)
	case "burst":
		for range s.pick % 12 {
			m.reserve(s.pick)
		}
	case "cancel":
		if len(m.pending) > 0 {
			a := m.pending[s.pick%len(m.pending)]
			a.gone = true
			a.cancel()
		}
	case "release", "discard", "full":
		if a != nil {
			m.end(a, s.op)
		}
	case "release all":
		for len(m.held) > 0 {
			m.end(m.held[0], "release")
		}
	case "granted":
		if a != nil {
			a.lease.Granted()
		}
	case "break":
		if a != nil {
			a.lease.Conn().end()
		}
	case "freeze":
		if a != nil {
			a.lease.Conn().freeze()
		}
	case "refuse dials":
		node.set(func(n *fakeNode) { n.refuse = s.pick % 4 })
	case "slow dials":
		node.set(func(n *fakeNode) { n.latency, n.closing = s.d/4, s.d/10 })
	case "short lifetime":
		node.set(func(n *fakeNode) { n.lifetime = s.d })
	case "sleep":
		time.Sleep(s.d)
	case "close where":
		m.pool.CloseWhere(func(k string) bool { return k == m.keys[s.pick%len(m.keys)] })
	default:
		return fmt.Errorf("no such step")
	}
	return nil
}

func (m *model) reserve(pick int) {
	key := m.keys[pick%len(m.keys)]
	node := m.nodes[m.cfg.Group(key)]
	ctx, cancel := context.WithCancel(context.Background())
	done := later(ctx, m.pool, key, func(ctx context.Context) (pool.Dialed[*fakeConn], error) {
		made, err := node.dial(ctx)
		if err == nil {
			made.Conn.key = key
		}
		return made, err
	})
	m.pending = append(m.pending, &attempt{key: key, cancel: cancel, done: done})
	synctest.Wait() // the order of arrival is that of pending
}

func (m *model) end(a *attempt, how string) {
	switch how {
	case "release":
		a.lease.Release()
	case "discard":
		a.lease.Discard()
	case "full":
		a.lease.Full()
	}
	a.cancel()
	m.held = remove(m.held, a)
}

func remove(from []*attempt, a *attempt) []*attempt {
	var rest []*attempt
	for _, o := range from {
		if o != a {
			rest = append(rest, o)
		}
	}
	return rest
}

// check collects what was granted and compares the pool with the model.
func (m *model) check() error {
	waiting := map[string]bool{}
	for _, a := range m.pending {
		select {
		case o := <-a.done:
			m.pending = remove(m.pending, a)
			if err := m.arrived(a, o, waiting[a.key]); err != nil {
				return err
			}
		default:
			waiting[a.key] = true
		}
	}
	perConn := map[*fakeConn]int{}
	for _, a := range m.held {
		c := a.lease.Conn()
		if perConn[c]++; perConn[c] > m.cfg.MaxSessions {
			return fmt.Errorf("%d leases on a connection", perConn[c])
		}
		if !c.notAfter.IsZero() && time.Since(c.notAfter) > m.cfg.SessionGrace+c.closing && !c.closed() {
			return fmt.Errorf("a connection outlives its credential by %s", time.Since(c.notAfter))
		}
	}
	var open int
	for name, n := range m.nodes {
		n.set(func(n *fakeNode) { open += n.open })
		if most := n.mostDials(); most > m.cfg.MaxDialsPerGroup {
			return fmt.Errorf("group %s: %d dials at once", name, most)
		}
	}
	s := m.pool.Stats()
	if open > m.cfg.MaxConns || s.Leases != len(m.held) || s.Waiting != len(m.pending) {
		return fmt.Errorf("%d open, %d held, %d pending, stats %+v", open, len(m.held), len(m.pending), s)
	}
	return m.pool.Check()
}

// arrived judges the outcome of one Reserve.
func (m *model) arrived(a *attempt, o outcome, olderWaits bool) error {
	switch {
	case o.err == nil:
		c := o.lease.Conn()
		if c.key != a.key {
			return fmt.Errorf("key %s got a connection of %s", a.key, c.key)
		}
		if !c.notAfter.IsZero() && !o.at.Before(c.notAfter) {
			return fmt.Errorf("lease %s after the credential expired", o.at.Sub(c.notAfter))
		}
		if olderWaits {
			return fmt.Errorf("key %s: a younger caller was served first", a.key)
		}
		a.lease = o.lease
		m.held = append(m.held, a)
		return nil
	case errors.Is(o.err, context.Canceled):
		if !a.gone {
			return fmt.Errorf("a caller that did not leave was told so")
		}
		return nil
	case errors.Is(o.err, errDial), errors.Is(o.err, pool.ErrFull), errors.Is(o.err, pool.ErrRevoked),
		errors.Is(o.err, context.DeadlineExceeded), strings.Contains(o.err.Error(), "has expired"):
		return nil
	}
	return fmt.Errorf("unexpected error: %w", o.err)
}
