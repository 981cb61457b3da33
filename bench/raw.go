package main

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// prepareRaw is x/crypto/ssh alone: connections that stand, one session for each
// command, nothing checked or recorded. Client i is user i modulo users, as through
// HTTP. A connection carries fewer sessions than MaxSessions, and a session that
// is refused is asked for again: sshd counts one that has ended for a moment longer.
func prepareRaw(ctx context.Context, s *site, _ *service, clients int) (op, func(), error) {
	return prepareRawOf(ctx, s, clients, command)
}

func prepareRawOf(ctx context.Context, s *site, clients int, command string) (op, func(), error) {
	const most = sessionsPerConnection - 3
	perUser := (clients + users - 1) / users
	connections := (perUser + most - 1) / most
	pool := make([][]*ssh.Client, min(users, clients))
	done := func() {
		for _, user := range pool {
			for _, c := range user {
				if c != nil {
					_ = c.Close() // the node's end is closed with it
				}
			}
		}
	}
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for user := range pool {
		pool[user] = make([]*ssh.Client, connections)
		for i := range pool[user] {
			group.Go(func() (err error) {
				pool[user][i], err = s.dial(user)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		done()
		return nil, nil, err
	}
	return func(_ context.Context, client int) error {
		mine := pool[client%users]
		return runOnce(mine[client/users%len(mine)], command)
	}, done, nil
}

// runOnce runs the command in a session of its own.
func runOnce(c *ssh.Client, command string) error {
	const attempts = 10
	var session *ssh.Session
	var err error
	for range attempts {
		session, err = c.NewSession()
		if _, refused := errors.AsType[*ssh.OpenChannelError](err); !refused {
			break
		}
	}
	if err != nil {
		return err
	}
	return session.Run(command)
}

// prepareRawLogin is a login, a command and a logout.
func prepareRawLogin(_ context.Context, s *site, _ *service, _ int) (op, func(), error) {
	return func(context.Context, int) error {
		c, err := s.dial(0)
		if err != nil {
			return err
		}
		return errors.Join(runOnce(c, command), c.Close())
	}, func() {}, nil
}

// prepareLogin is the first command of somebody who was never there: a token to be
// verified, a certificate to be issued, a connection to be made.
func prepareLogin(_ context.Context, s *site, v *service, _ int) (op, func(), error) {
	var next atomic.Int64
	next.Store(users)
	return func(ctx context.Context, _ int) error {
		c, err := s.newcomer(int(next.Add(1)), v)
		if err != nil {
			return err
		}
		defer c.close()
		return c.call(ctx)
	}, func() {}, nil
}

// newcomer is a caller with a token that the service has not seen.
func (s *site) newcomer(person int, v *service) (*caller, error) {
	token, err := s.token(person)
	if err != nil {
		return nil, err
	}
	return newCaller(v.address, token, "/v1/systems/node/exec", `{"argv": ["`+command+`"]}`, 200, `"exit_code":0,`), nil
}
