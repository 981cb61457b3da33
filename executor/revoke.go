package executor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/identity"
)

const (
	// endWait is how long nodes may take to end revoked commands before their
	// connections are closed: sshd ends no command with its connection.
	endWait = 500 * time.Millisecond
	// endPause is the time between two looks at how far that is.
	endPause = 5 * time.Millisecond
)

// A Session says who is connected by what, for [Executor.CloseWhere].
type Session struct {
	// System and Node say where. Node is empty for a command that waits for a
	// connection.
	System, Node string
	// Issuer is the URL of the identity provider.
	Issuer, Subject, Login string
	// Account is that on the node. It is empty, as is what follows, for a command that
	// waits for a connection.
	Account string
	// Key is the fingerprint of the plain key that opened the connection; there is none
	// if certificates did.
	Key string
	// Certificates opened the connection: that for the node, and that for the jump
	// host if there is one.
	Certificates []*ssh.Certificate
}

// A liveRun is a call of Run under way.
type liveRun struct {
	system string
	caller identity.Identity
	conn   atomic.Pointer[connection] // nil: it waits for one
	end    context.CancelCauseFunc
}

// track lets CloseWhere find r until the function that it returns is called.
func (e *Executor) track(r *liveRun) (untrack func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live[r] = struct{}{}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.live, r)
	}
}

func (r *liveRun) session() Session {
	s := Session{System: r.system, Issuer: r.caller.Issuer(), Subject: r.caller.Subject(), Login: r.caller.Login()}
	if c := r.conn.Load(); c != nil {
		s.Node, s.Account, s.Key, s.Certificates = c.node, c.user, c.key, c.certificates
	}
	return s
}

// CloseWhere ends every connection that matches, and returns how many there were
// after the last one is closed. Their commands get TERM and KILL at once, and their
// Run returns ErrRevoked; a node that has not ended them within half a second is
// not waited for. Commands that match while they wait for a connection are refused
// likewise, and a connection that was being made during the call is closed if it
// matches. One that is made later is not: whoever revokes must see to it first that
// there is no credential for it. match must be quick, and safe for concurrent use.
func (e *Executor) CloseWhere(match func(Session) bool) int {
	matches := func(system string) func(key, *connection) bool {
		return func(k key, c *connection) bool {
			return match(Session{
				System: system, Node: k.node, Issuer: k.issuer, Subject: k.subject, Login: k.login,
				Account: c.user, Key: c.key, Certificates: c.certificates,
			})
		}
	}
	found := 0
	for name, s := range e.systems {
		found += s.pool.DrainConns(matches(name))
	}
	patience := time.NewTimer(endWait)
	defer patience.Stop()
	for waiting := true; waiting; {
		e.endRuns(match)
		left := 0
		for name, s := range e.systems {
			left += s.pool.Conns(matches(name))
		}
		if left == 0 {
			break
		}
		pause := time.NewTimer(endPause)
		select {
		case <-pause.C:
		case <-patience.C:
			waiting = false
		}
		pause.Stop()
	}
	var closing sync.WaitGroup
	for name, s := range e.systems {
		closing.Go(func() { s.pool.CloseConns(matches(name)) })
	}
	closing.Wait()
	return found
}

// endRuns has the calls of Run that match end.
func (e *Executor) endRuns(match func(Session) bool) {
	e.mu.Lock()
	live := make([]*liveRun, 0, len(e.live))
	for r := range e.live {
		live = append(live, r)
	}
	e.mu.Unlock()
	for _, r := range live {
		if match(r.session()) {
			r.end(ErrRevoked)
		}
	}
}
