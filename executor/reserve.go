package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/executor/pool"
	"sallyport/executor/warm"
	"sallyport/identity"
)

// A session is a channel of the node with the lease that allows it.
type session struct {
	lease    *pool.Lease[*connection]
	channel  ssh.Channel
	requests <-chan *ssh.Request
	place    *ticket       // among those that start something on the node
	opening  time.Duration // how long the node took to open the channel
	job      *warm.Job     // the channel, in a warm session; nil in one of its own
	// giveBack gives the lease back, or the warm session. good says that nothing is
	// wrong with the connection.
	giveBack func(good bool)
	// announced is the record of the start of what the session is for.
	announced *announcement
}

// open opens a session for a caller, on the caller's node or else on another one.
// No command was sent by then, so it may try again. A warm session is one that
// others of the caller's commands had, or will have. announce, if it is not nil, has
// the start recorded meanwhile.
func (e *Executor) open(ctx context.Context, s *system, caller identity.Identity, warm bool, announce announcer) (*session, error) {
	var failures []error
	for _, node := range s.order(caller) {
		opened, err := e.openOn(ctx, s, caller, node, warm, announce)
		if err == nil {
			return opened, nil
		}
		if _, elsewhere := errors.AsType[unreachableError](err); !elsewhere {
			return nil, err
		}
		failures = append(failures, err)
	}
	return nil, noNode(failures)
}

// openOn opens a session on a node. A connection that turns out to be dead is
// replaced once; a node that grants fewer sessions than expected is asked again
// when one has become free; one that has no warm sessions gives one of its own.
func (e *Executor) openOn(ctx context.Context, s *system, caller identity.Identity, node string, warm bool, announce announcer) (*session, error) {
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause, dead, deadline := shortest, false, time.Now().Add(s.waitTimeout)
	for early := true; ; early = false {
		if err := e.pass(ctx, s, caller, node); err != nil {
			return nil, err
		}
		seat, err := e.admit(ctx, s, caller, node, warm)
		if err != nil {
			return nil, err
		}
		opened, err := e.take(ctx, s, seat, warm, announce, early)
		if err == nil {
			return opened, nil
		}
		place := seat.place
		if errors.Is(err, errNoWorker) {
			warm = false
			continue
		}
		if noRoom(err) {
			place.Overloaded()
		}
		place.Leave()
		_, refused := errors.AsType[*ssh.OpenChannelError](err)
		switch {
		case ctx.Err() != nil:
			return nil, gone(ctx)
		case noRoom(err):
			// The pool has learned from it. The pause grows for a node that grants
			// nothing at all.
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("%w: %s opens none: %w", ErrBusy, node, err)
			}
			if err := sleep(ctx, pause); err != nil {
				return nil, err
			}
			pause = min(2*pause, longest)
		case refused || dead:
			return nil, unreachable(node, err)
		default:
			dead = true
		}
	}
}

// take opens a session where there is a seat. Early, which is the rule, the start is
// recorded while the node does, and withdrawn if it does not. One that refuses again and
// again is no reason to fill the audit log.
func (e *Executor) take(ctx context.Context, s *system, at seat, warm bool, announce announcer, early bool) (opened *session, err error) {
	var said *announcement
	if announce != nil && early {
		said = announce(at.conn())
	}
	began := time.Now()
	if at.idle != nil {
		opened = s.share(at.idle, at.place, 0)
	} else if opened, err = e.openChannel(ctx, at.lease); err == nil {
		opened.place, opened.opening = at.place, time.Since(began)
		if warm && s.workers.allow(at.key) {
			opened, err = e.employ(ctx, s, at.key, opened)
		}
	}
	if err != nil {
		said.withdraw(ctx)
		return nil, err
	}
	if announce != nil && said == nil {
		said = announce(at.conn())
	}
	opened.announced = said
	return opened, nil
}

func reserveError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return gone(ctx)
	case errors.Is(err, pool.ErrFull):
		return NewRetryError(fmt.Errorf("%w: %w", ErrBusy, err), time.Second)
	case errors.Is(err, pool.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, pool.ErrRevoked):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, known := range []error{ErrUnavailable, ErrHostKey, ErrLoginRefused, ErrNoCredential, ErrWideCredential, ErrRevoked} {
		if errors.Is(err, known) {
			return err // of the dial
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return gone(ctx)
	}
}

type openResult struct {
	channel  ssh.Channel
	requests <-chan *ssh.Request
	err      error
}

// openChannel opens a session channel, and gives the lease back if it cannot. A
// caller who leaves does not wait for the node's answer; a channel that is opened
// too late is closed again before its lease ends.
func (e *Executor) openChannel(ctx context.Context, lease *pool.Lease[*connection]) (*session, error) {
	results := make(chan openResult)
	e.background.Go(func() {
		channel, requests, err := openSession(lease.Conn())
		select {
		case results <- openResult{channel, requests, err}:
		case <-ctx.Done():
			if err == nil {
				err = channel.Close()
				for range requests { // until the node has closed it too
				}
			}
			endLease(lease, err)
		}
	})
	select {
	case r := <-results:
		if r.err != nil {
			endLease(lease, r.err)
			return nil, r.err
		}
		lease.Granted()
		return &session{lease: lease, channel: r.channel, requests: r.requests, giveBack: giveBack(lease)}, nil
	case <-ctx.Done():
		return nil, gone(ctx)
	}
}

// openSession asks again when the node refuses. sshd counts a session that was
// closed until the end of the same turn of its loop (channels.c,
// channel_garbage_collect), so the first session after another one can be
// refused, although there is room by the time that the refusal comes.
func openSession(c *connection) (channel ssh.Channel, requests <-chan *ssh.Request, err error) {
	const attempts = 3
	for range attempts {
		channel, requests, err = c.OpenChannel("session", nil)
		if !noRoom(err) {
			break
		}
	}
	return channel, requests, err
}

// noRoom says whether a node refused a channel for want of room; sshd gives no
// other reason for MaxSessions (serverloop.c, server_input_channel_open).
func noRoom(err error) bool {
	refusal, ok := errors.AsType[*ssh.OpenChannelError](err)
	return ok && (refusal.Reason == ssh.ConnectionFailed || refusal.Reason == ssh.ResourceShortage)
}

func giveBack(lease *pool.Lease[*connection]) func(bool) {
	return func(good bool) {
		if good {
			lease.Release()
		} else {
			lease.Discard()
		}
	}
}

// endLease gives a lease back, as what came of it demands.
func endLease(lease *pool.Lease[*connection], err error) {
	switch {
	case err == nil:
		lease.Release()
	case noRoom(err):
		lease.Full()
	default:
		lease.Discard()
	}
}
