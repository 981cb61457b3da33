package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/sftp"
	"sallyport/identity"
)

const (
	// fileIdle is how long an SFTP channel that nobody uses stays, and with it its
	// session on the connection.
	fileIdle = 5 * time.Second
	// fileTimeout is how long a node may answer no SFTP request.
	fileTimeout = 30 * time.Second
	// withoutSFTP is how long a node, or an account, is remembered to have no SFTP.
	withoutSFTP = 5 * time.Minute
)

// fileStats counts what file operations do.
type fileStats struct {
	channels                                            atomic.Int64
	opened, operations, failed, commands, read, written atomic.Uint64
}

// FileStats is a snapshot of what file operations do. Counters count since New.
type FileStats struct {
	// Channels is the number of SFTP channels that are open.
	Channels int
	// Opened counts SFTP channels.
	Opened uint64
	// Operations counts calls, Failed those that returned an error, and Commands
	// those that were commands because there is no SFTP.
	Operations, Failed, Commands uint64
	// Read and Written count bytes of files.
	Read, Written uint64
}

func (s *fileStats) snapshot() FileStats {
	return FileStats{
		Channels: int(s.channels.Load()), Opened: s.opened.Load(), Operations: s.operations.Load(), Failed: s.failed.Load(),
		Commands: s.commands.Load(), Read: s.read.Load(), Written: s.written.Load(),
	}
}

// channels are the SFTP channels of a system: at most one for a key takes users.
type channels struct {
	mu   sync.Mutex // guards open, and users, idle and timer of the channels
	open map[key]*filesChannel

	// refusing remembers nodes without the subsystem, odd accounts where something
	// else answers in its place.
	refusing *recent[string, string]
	odd      *recent[person, key]
}

func newChannels() *channels {
	return &channels{
		open: make(map[key]*filesChannel), refusing: newRecent(withoutSFTP, func(node string) string { return node }), odd: newRecent(withoutSFTP, key.person),
	}
}

// A filesChannel is an SFTP channel that the calls of one key share. It has one lease
// of its connection, from when it is opened until it is closed: a short while after
// its last user, at once when the connection takes no new sessions.
type filesChannel struct {
	key  key
	node string

	ready chan struct{} // closed when it is open or has failed, and the following are set
	err   error
	*session
	conn   *connection
	closed chan struct{} // closed when the node has closed the channel too
	client *sftp.Client

	folders resolvedFolders

	users int
	idle  time.Time // since when it has no users
	timer *time.Timer
}

// shareChannel returns the channel of a caller, with one user more, on the caller's
// node or else on another one. The error is errNoSFTP when its node has none.
func (e *Executor) shareChannel(ctx context.Context, s *system, caller identity.Identity) (*filesChannel, error) {
	var failures []error
	for _, node := range s.order(caller) {
		k := keyOf(caller, node)
		if s.files.refusing.last(node) != nil || s.files.odd.last(k) != nil {
			return nil, errNoSFTP
		}
		ch := s.files.share(k, func(ch *filesChannel) { e.startChannel(ctx, s, caller, ch) })
		select {
		case <-ch.ready:
		case <-ctx.Done():
			s.files.release(ch)
			return nil, gone(ctx)
		}
		if ch.err == nil {
			return ch, nil
		}
		s.files.release(ch)
		if _, elsewhere := errors.AsType[unreachableError](ch.err); !elsewhere {
			return nil, ch.err
		}
		failures = append(failures, ch.err)
	}
	return nil, noNode(failures)
}

// share adds a user to the channel of k, which start is to open if there is none.
func (c *channels) share(k key, start func(*filesChannel)) *filesChannel {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.open[k]
	if ch == nil || !ch.takesUsers() {
		ch = &filesChannel{key: k, node: k.node, ready: make(chan struct{})}
		c.open[k] = ch
		start(ch)
	}
	ch.users++
	return ch
}

// takesUsers says whether a channel is being opened, or is open on a connection that
// takes new sessions.
func (ch *filesChannel) takesUsers() bool {
	if !done(ch.ready) {
		return true
	}
	return ch.err == nil && !done(ch.client.Done()) && ch.lease.Serving()
}

// release takes a user away. The last one leaves a channel that takes users to the
// next one for a while.
func (c *channels) release(ch *filesChannel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch.users--
	if ch.users > 0 || !done(ch.ready) || ch.err != nil {
		return
	}
	if c.open[ch.key] != ch || !ch.takesUsers() {
		c.forgetLocked(ch)
		ch.client.Close()
		return
	}
	c.restLocked(ch)
}

// restLocked begins the time after which a channel without users is closed.
func (c *channels) restLocked(ch *filesChannel) {
	ch.idle = time.Now()
	if ch.timer == nil {
		ch.timer = time.AfterFunc(fileIdle, func() { c.expire(ch) })
		return
	}
	ch.timer.Reset(fileIdle)
}

// expire closes a channel that nobody has used for a while.
func (c *channels) expire(ch *filesChannel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.users == 0 && time.Since(ch.idle) >= fileIdle {
		c.forgetLocked(ch)
		ch.client.Close()
	}
}

func (c *channels) forgetLocked(ch *filesChannel) {
	if c.open[ch.key] == ch {
		delete(c.open, ch.key)
	}
	if ch.timer != nil {
		ch.timer.Stop()
	}
}

// startChannel opens ch in the background, whoever may leave meanwhile.
func (e *Executor) startChannel(ctx context.Context, s *system, caller identity.Identity, ch *filesChannel) {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(e.running, func() { end(ErrClosed) }) //nolint:contextcheck // Close ends every channel, whatever its context
	live := &liveRun{system: s.Name, caller: caller, end: end}
	untrack := e.track(live)
	e.background.Go(func() {
		defer untrack()
		defer end(nil)
		defer stop()
		client, err := e.openFiles(life, s, live, ch)
		s.files.mu.Lock()
		ch.err = err
		ch.client = client
		if err != nil {
			s.files.forgetLocked(ch)
		} else if ch.users == 0 {
			s.files.restLocked(ch)
		}
		close(ch.ready)
		s.files.mu.Unlock()
		if err != nil {
			return
		}
		e.fileStats.opened.Add(1)
		e.fileStats.channels.Add(1)
		defer e.fileStats.channels.Add(-1)
		select {
		case <-client.Done():
		case <-life.Done():
			client.End(gone(life))
		}
		s.files.mu.Lock()
		s.files.forgetLocked(ch)
		s.files.mu.Unlock()
		ch.shut(e)
	})
}

// openFiles opens a session and the subsystem in it.
func (e *Executor) openFiles(ctx context.Context, s *system, live *liveRun, ch *filesChannel) (*sftp.Client, error) {
	opened, err := e.openOn(ctx, s, live.caller, ch.node, false, nil)
	if err != nil {
		return nil, err
	}
	ch.session, ch.conn = opened, opened.lease.Conn()
	live.conn.Store(ch.conn)
	closed, exited := make(chan struct{}), make(chan struct{})
	e.background.Go(func() {
		defer close(closed)
		for r := range opened.requests {
			if r.Type == "exit-status" && !done(exited) {
				close(exited)
			}
			_ = r.Reply(false, nil) // does nothing unless asked for
		}
	})
	e.background.Go(func() { _, _ = io.Copy(io.Discard, opened.channel.Stderr()) })
	ch.closed = closed
	client, err := e.subsystem(ctx, opened)
	opened.place.Leave() // the channel stays; it has started
	if err == nil {
		return client, nil
	}
	ch.shut(e) // and so the node has said whether a program has ended
	switch {
	case errors.Is(err, errNoSFTP):
		s.files.refusing.note(ch.node, err)
	case errors.Is(err, sftp.ErrProtocol), errors.Is(err, sftp.ErrClosed) && done(exited):
		// The shell of the account says something at its start, or there is no
		// program behind the subsystem.
		s.files.odd.note(ch.key, err)
		err = errNoSFTP
	case ctx.Err() != nil:
		err = gone(ctx)
	default:
		err = unreachable(ch.node, err)
	}
	return nil, err
}

// subsystem starts SFTP in a session.
func (e *Executor) subsystem(ctx context.Context, s *session) (*sftp.Client, error) {
	reply := make(chan error, 1)
	e.background.Go(func() {
		ok, err := s.channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
		if err == nil && !ok {
			err = errNoSFTP
		}
		reply <- err
	})
	timer := time.NewTimer(fileTimeout)
	defer timer.Stop()
	select {
	case err := <-reply:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, fmt.Errorf("start of SFTP: %w", sftp.ErrFrozen)
	}
	return sftp.New(ctx, s.channel, sftp.Options{Timeout: fileTimeout, Go: e.background.Go})
}

// shut closes the channel and gives the lease back. A node that does not close it too
// may count it for ever.
func (ch *filesChannel) shut(e *Executor) {
	e.background.Go(func() { _ = ch.channel.Close() }) // blocks if the peer is frozen
	if within(closeWait, ch.closed) {
		ch.lease.Release()
	} else {
		ch.lease.Discard()
	}
}
