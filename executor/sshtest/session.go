package sshtest

import (
	"context"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// A Session is one command or subsystem to run, as [Config.Exec] gets it.
type Session struct {
	// Login says who runs it.
	Login Login
	// Command is the line of the exec request, or the certificate's
	// force-command; then Original is the line that was asked for.
	Command, Original string
	// Stdin ends when the client says so; Stdout and Stderr must not be written
	// after Exec returned.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Signals delivers the names of signals without "SIG" (RFC 4254 §6.9). Those
	// that are not fetched are dropped after 16. As in sshd, a forced command gets
	// none.
	Signals <-chan string
	// ExitStatusNow tells the client the exit code while the streams stay open, as
	// sshd does for a command that leaves a child behind. Exec's own exit code is
	// then ignored.
	ExitStatusNow func(code uint32)
}

// Exit is how a command ended (RFC 4254 §6.10).
type Exit struct {
	Code uint32
	// Signal is the name without "SIG" of the signal that ended the command; ""
	// sends Code.
	Signal string
	// Missing closes the channel without a word about the end, as when sshd itself
	// is killed.
	Missing bool
}

// exitSignal is the payload of RFC 4254 §6.10.
type exitSignal struct {
	Name       string
	CoreDumped bool
	Message    string
	Language   string
}

// session handles one session channel to its end.
func (c *connection) session(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request) {
	// Room is made before the client can learn that the session is over.
	give := sync.OnceFunc(c.give)
	defer give()
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan string, 16)
	var wg sync.WaitGroup
	forced := c.conn.Permissions.CriticalOptions[forceCommand]
	started := false
	for r := range requests {
		switch {
		case r.Type == "exec" && !started && c.server.cfg.Exec != nil:
			started = true
			if !c.server.cfg.NoExecReply {
				_ = r.Reply(true, nil)
			}
			var line struct{ Command string }
			if ssh.Unmarshal(r.Payload, &line) != nil {
				_ = channel.Close()
				continue
			}
			wg.Go(func() {
				c.exec(ctx, channel, c.server.cfg.Exec, line.Command, forced, signals)
				give()
				_ = channel.Close()
			})
		case r.Type == "subsystem" && !started && c.server.cfg.Subsystem != nil:
			started = true
			_ = r.Reply(true, nil)
			var subsystem struct{ Name string }
			if ssh.Unmarshal(r.Payload, &subsystem) != nil {
				_ = channel.Close()
				continue
			}
			wg.Go(func() {
				c.exec(ctx, channel, c.server.cfg.Subsystem, subsystem.Name, "", signals)
				give()
				_ = channel.Close()
			})
		case r.Type == "signal" && forced == "":
			var signal struct{ Name string }
			if ssh.Unmarshal(r.Payload, &signal) == nil {
				select {
				case signals <- signal.Name:
				default:
				}
			}
			_ = r.Reply(true, nil)
		default:
			_ = r.Reply(false, nil) // env, pty-req, shell, …
		}
	}
	cancel() // the channel is closed
	wg.Wait()
}

func (c *connection) exec(ctx context.Context, channel ssh.Channel, run func(context.Context, *Session) Exit, command, forced string, signals <-chan string) {
	c.server.noteExec(1)
	defer c.server.noteExec(-1)
	var once sync.Once
	status := func(code uint32) {
		once.Do(func() {
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{code}))
		})
	}
	s := &Session{
		Login: c.login, Command: command,
		Stdin: channel, Stdout: channel, Stderr: channel.Stderr(),
		Signals: signals, ExitStatusNow: status,
	}
	if forced != "" {
		s.Command, s.Original = forced, command
	}
	exit := run(ctx, s)
	_ = channel.CloseWrite()
	switch {
	case exit.Missing:
	case exit.Signal != "":
		once.Do(func() {
			_, _ = channel.SendRequest("exit-signal", false, ssh.Marshal(exitSignal{Name: exit.Signal}))
		})
	default:
		status(exit.Code)
	}
}
