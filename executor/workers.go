package executor

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/pool"
	"sallyport/executor/warm"
)

// Sessions says which commands of a system share sessions on its nodes.
type Sessions string

// The values of System.Sessions.
const (
	// SessionsMixed has commands that Sallyport itself builds (Command.Own) share warm
	// sessions, and gives every other one a session of its own.
	SessionsMixed Sessions = "mixed"
	// SessionsIsolated gives every command a session of its own.
	SessionsIsolated Sessions = "isolated"
	// SessionsWarm has all commands of a caller share warm sessions.
	SessionsWarm Sessions = "warm"
)

const (
	// maxWorkers is how many warm sessions one key has, if a connection has room for
	// more sessions than that. Commands beyond them have sessions of their own.
	maxWorkers = 4
	// workerIdle is how long a warm session that nobody uses stays.
	workerIdle = 10 * time.Second
	// workerStart is how long one may take to begin.
	workerStart = 10 * time.Second
	// withoutWorker is how long an account is remembered to have no warm sessions on
	// a node.
	withoutWorker = 5 * time.Minute
)

// SessionStats is a snapshot of what warm sessions do. Counters count since New.
type SessionStats struct {
	// Warm is the number of warm sessions that are open.
	Warm int
	// Opened counts them, Failed the attempts that came to nothing, and Discarded
	// those that were ended because of a doubt about them.
	Opened, Failed, Discarded uint64
	// Shared counts commands in warm sessions, Isolated those in their own.
	Shared, Isolated uint64
}

type sessionStats struct {
	warm                                        atomic.Int64
	opened, failed, discarded, shared, isolated atomic.Uint64
}

func (s *sessionStats) snapshot() SessionStats {
	return SessionStats{
		Warm: int(s.warm.Load()), Opened: s.opened.Load(), Failed: s.failed.Load(), Discarded: s.discarded.Load(),
		Shared: s.shared.Load(), Isolated: s.isolated.Load(),
	}
}

// workers are the warm sessions of a system.
type workers struct {
	most, after int
	stats       *sessionStats

	mu   sync.Mutex // guards what follows, and timer and resting of the workers
	all  map[key]*staff
	idle map[key][]*worker  // the last one was used last
	wait map[key]*list.List // of waiters, in order

	swept time.Time // when keys were last dropped
	// without remembers whom no warm session can be had for.
	without *recent[person, key]
}

func newWorkers(s System, stats *sessionStats) *workers {
	return &workers{
		most: min(maxWorkers, s.MaxSessions-1), after: s.WarmAfter, stats: stats,
		all: make(map[key]*staff), idle: make(map[key][]*worker), wait: make(map[key]*list.List), without: newRecent(withoutWorker, key.person),
	}
}

// A staff is the warm sessions of one key, and what it did without.
type staff struct {
	workers int
	without int       // commands that would have shared a session, since one was begun
	last    time.Time // of them
}

// A worker is a warm session, with the lease of its connection for as long as it lives.
type worker struct {
	*warm.Worker
	key    key
	lease  *pool.Lease[*connection]
	closed chan struct{} // closed when the node has closed the channel

	resting bool
	timer   *time.Timer
}

// take returns a warm session of k that nobody uses, or nil.
func (ws *workers) take(k key) *worker {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for list := ws.idle[k]; len(list) > 0; list = ws.idle[k] {
		w := list[len(list)-1]
		ws.wakeLocked(w)
		if w.Idle() && w.lease.Serving() {
			return w
		}
		w.discard()
	}
	return nil
}

// wakeLocked takes w out of those that nobody uses.
func (ws *workers) wakeLocked(w *worker) {
	if !w.resting {
		return
	}
	w.resting = false
	w.timer.Stop()
	list := ws.idle[w.key]
	for i, other := range list {
		if other == w {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(ws.idle, w.key)
	} else {
		ws.idle[w.key] = list
	}
}

// A waiter is somebody who waits for room on a connection, where warm sessions may
// have it all.
type waiter struct {
	shares bool // a warm session is as good
	given  *worker
	stop   func() // ends the wait
}

// await tells that a caller waits until ctx ends or the function that it returns is
// called, which returns the warm session that the caller was given, or nil.
func (ws *workers) await(ctx context.Context, k key, shares bool) (waiting context.Context, done func() *worker) {
	waiting, cancel := context.WithCancel(ctx)
	w := &waiter{shares: shares, stop: cancel}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.wait[k] == nil {
		ws.wait[k] = list.New()
	}
	place := ws.wait[k].PushBack(w)
	return waiting, func() *worker {
		cancel()
		ws.mu.Lock()
		defer ws.mu.Unlock()
		ws.removeLocked(k, place)
		return w.given
	}
}

func (ws *workers) removeLocked(k key, place *list.Element) {
	if l := ws.wait[k]; l != nil {
		l.Remove(place) // does nothing the second time
		if l.Len() == 0 {
			delete(ws.wait, k)
		}
	}
}

// handLocked gives w to the first who waits, or ends it if that one needs another
// session. It says whether anybody waits.
func (ws *workers) handLocked(w *worker) bool {
	waiting := ws.wait[w.key]
	if waiting == nil {
		return false
	}
	first := waiting.Front()
	next := first.Value.(*waiter) //nolint:forcetypeassert // the list holds nothing else
	if !next.shares {
		w.discard()
		return true
	}
	ws.removeLocked(w.key, first)
	next.given = w
	next.stop()
	return true
}

// put gives a warm session back for the next command, for a while.
func (ws *workers) put(w *worker) {
	if !w.Idle() || !w.lease.Serving() {
		w.discard()
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.handLocked(w) {
		return
	}
	w.resting = true
	ws.idle[w.key] = append(ws.idle[w.key], w)
	if w.timer == nil {
		w.timer = time.AfterFunc(workerIdle, func() { ws.expire(w) })
	} else {
		w.timer.Reset(workerIdle)
	}
}

func (ws *workers) expire(w *worker) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.resting {
		ws.wakeLocked(w)
		w.discard()
	}
}

// spare ends a warm session of k that nobody uses: somebody needs its place on the
// connection.
func (ws *workers) spare(k key) {
	if w := ws.take(k); w != nil {
		w.discard()
	}
}

// allow counts one more warm session of k, if there may be one and enough commands did
// without: to begin one costs a node as much as some twenty sessions of their own, so it
// has to be worth it. A second one is worth it later, since it has less to do.
func (ws *workers) allow(k key) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.most <= 0 || ws.without.last(k) != nil {
		return false
	}
	now, st := time.Now(), ws.all[k]
	if st == nil {
		ws.forgetLocked(now)
		st = &staff{}
		ws.all[k] = st
	}
	if now.Sub(st.last) > workerIdle {
		st.without = 0
	}
	st.last = now
	if st.without < ws.after<<(2*st.workers) || st.workers >= ws.most {
		st.without++
		return false
	}
	st.without = 0
	st.workers++
	return true
}

// forgetLocked drops the keys that have no warm session and need none: there are never
// more than were in use within a moment.
func (ws *workers) forgetLocked(now time.Time) {
	if now.Sub(ws.swept) < workerIdle {
		return
	}
	ws.swept = now
	for k, st := range ws.all {
		if st.workers == 0 && now.Sub(st.last) > workerIdle {
			delete(ws.all, k)
		}
	}
}

// leave is the end of allow.
func (ws *workers) leave(k key) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.all[k].workers--
}

// share makes a session for one command of a warm session that is idle.
func (s *system) share(w *worker, place *ticket, opening time.Duration) *session {
	job := w.Job()
	return &session{
		lease: w.lease, channel: job, requests: job.Requests(), place: place, opening: opening,
		job: job, giveBack: func(good bool) {
			switch {
			case !good:
				w.lease.Discard()
				fallthrough
			case !w.Idle():
				s.workers.stats.discarded.Add(1)
				w.discard()
			default:
				s.workers.put(w)
			}
		},
	}
}

// discard ends a warm session and what runs in it. It does not wait.
func (w *worker) discard() { go w.Close() } // blocks if the peer is frozen, until the connection is closed

// errNoWorker says that an account has no warm sessions.
var errNoWorker = errors.New("no warm session could be begun")

// employ makes a warm session of one that was just opened. If it cannot, it ends
// the session, and gives its place back.
func (e *Executor) employ(ctx context.Context, s *system, k key, opened *session) (*session, error) {
	w := &worker{key: k, lease: opened.lease, closed: make(chan struct{})}
	e.background.Go(func() {
		defer close(w.closed)
		for r := range opened.requests {
			_ = r.Reply(false, nil) // does nothing unless asked for
		}
	})
	began, cancel := context.WithTimeout(ctx, workerStart)
	defer cancel()
	var err error
	if w.Worker, err = e.startWorker(began, opened); err == nil {
		e.sessionStats.opened.Add(1)
		e.sessionStats.warm.Add(1)
		e.background.Go(func() { e.retire(s, w) })
		return s.share(w, opened.place, opened.opening), nil
	}
	e.sessionStats.failed.Add(1)
	s.workers.leave(k)
	e.background.Go(func() { _ = opened.channel.Close() }) // blocks if the peer is frozen
	if within(closeWait, w.closed) {
		opened.lease.Release()
	} else {
		opened.lease.Discard()
	}
	opened.place.Leave()
	if ctx.Err() != nil {
		return nil, gone(ctx)
	}
	if opened.lease.Conn().ended.Err() == nil { // else it says nothing about the account
		s.workers.without.note(k, err)
	}
	return nil, fmt.Errorf("%w: %w", errNoWorker, err)
}

// startWorker starts a worker in a session.
func (e *Executor) startWorker(ctx context.Context, opened *session) (*warm.Worker, error) {
	reply := make(chan error, 1)
	e.background.Go(func() {
		ok, err := opened.channel.SendRequest("exec", true, ssh.Marshal(struct{ Line string }{warm.Line()}))
		if err == nil && !ok {
			err = errRefused
		}
		reply <- err
	})
	select {
	case err := <-reply:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.background.Go(func() { _, _ = io.Copy(io.Discard, opened.channel.Stderr()) })
	return warm.Start(ctx, opened.channel, e.background.Go)
}

// retire waits for the end of a warm session, however it comes, and gives its lease
// back.
func (e *Executor) retire(s *system, w *worker) {
	<-w.closed
	s.workers.mu.Lock()
	s.workers.wakeLocked(w)
	s.workers.mu.Unlock()
	s.workers.leave(w.key)
	w.lease.Release()
	e.sessionStats.warm.Add(-1)
}

// warm says whether a command may run in a warm session.
func (s *system) warm(c Command) bool {
	return s.Sessions == SessionsWarm || s.Sessions == SessionsMixed && c.Own
}

// countSession counts a command.
func (e *Executor) countSession(s *session) {
	if s.job == nil {
		e.sessionStats.isolated.Add(1)
	} else {
		e.sessionStats.shared.Add(1)
	}
}
