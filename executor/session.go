package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// killWait is how long the node may take to report the end after KILL.
	killWait = 3 * time.Second
	// closeWait is how long it may take to close a channel.
	closeWait = 3 * time.Second
)

var (
	errTimeout = errors.New("time is over")
	errOutput  = errors.New("output of the command could not be passed on")
	errInput   = errors.New("input of the command could not be read")
	// errRefused says that the node did not take the command.
	errRefused = errors.New("login node refused to start the command")
)

// maxExitCode is the greatest status of a POSIX process (wait(2)).
const maxExitCode = 255

// signalName allows the names of RFC 4254 §6.10 and local ones: sshd says
// "SIG@openssh.com" of XCPU, BUS and others (session.c, sig2name).
var signalName = regexp.MustCompile(`\A[A-Za-z0-9@.-]{1,32}\z`)

// An ending is what the node reported about the end of a command (RFC 4254
// §6.10).
type ending struct {
	code   int
	signal string
}

// A process is a command that was sent to a node.
type process struct {
	*session
	executor       *Executor
	input          *input // nil: none was given
	stdout, stderr *sink
	failed         chan error // gets the first error of each of the caller's streams

	exited    chan struct{} // closed when ending is set
	ending    ending
	closed    chan struct{} // closed when the channel is
	streaming bool
	drained   chan struct{} // closed when both streams are at their end; only if streaming
}

func (e *Executor) newProcess(s *session, c Command, prep prepared) *process {
	failed := make(chan error, 3)
	p := &process{
		session: s, executor: e, failed: failed, input: prep.input,
		stdout: newSink(c.Stdout, prep.maxOutput, failed), stderr: newSink(c.Stderr, prep.maxOutput, failed),
		exited: make(chan struct{}), closed: make(chan struct{}), drained: make(chan struct{}),
	}
	e.background.Go(p.watch)
	return p
}

// watch handles the node's requests on the channel until it is closed. A report
// that no honest node sends counts as none: it goes to clients and audit records.
func (p *process) watch() {
	defer close(p.closed)
	known := false
	for r := range p.requests {
		var e ending
		switch r.Type {
		case "exit-status":
			var status struct{ Code uint32 }
			if ssh.Unmarshal(r.Payload, &status) != nil || status.Code > maxExitCode {
				break
			}
			e, known = ending{code: int(status.Code)}, true
		case "exit-signal":
			var signal struct {
				Name       string
				CoreDumped bool
				Message    string
				Language   string
			}
			if ssh.Unmarshal(r.Payload, &signal) != nil || !signalName.MatchString(signal.Name) {
				break
			}
			e, known = ending{code: -1, signal: signal.Name}, true
		}
		if known && !done(p.exited) {
			p.ending = e
			close(p.exited)
		}
		_ = r.Reply(false, nil) // does nothing unless asked for
	}
}

// ended says whether the end of the command is known. What a node reports about a
// command that it has not accepted is no end: its output was not taken.
func (p *process) ended() bool { return p.streaming && done(p.exited) }

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// start sends the command. The error is nil, errRefused, or that of a connection
// which was lost while the command may have started.
func (p *process) start(prep prepared) <-chan error {
	reply := make(chan error, 1)
	var payload []byte
	if p.job != nil {
		payload = prep.shared.Payload()
	} else {
		payload = ssh.Marshal(struct{ Line string }{prep.line})
	}
	p.executor.background.Go(func() {
		ok, err := p.channel.SendRequest("exec", true, payload)
		if err == nil && !ok {
			err = errRefused
		}
		reply <- err
	})
	return reply
}

// stream moves the streams until they end.
func (p *process) stream(prep prepared) {
	p.streaming = true
	e := p.executor
	stdin := prep.stdin
	switch {
	case p.job != nil && prep.input == nil:
		stdin = nil // which the worker was told
	case p.job != nil:
		stdin = prep.input // it was told the environment
	case prep.input == nil && len(prep.env) == 0:
		stdin = nil
		e.background.Go(func() { _ = p.channel.CloseWrite() }) // blocks if the peer is frozen
	}
	if stdin != nil {
		// Ends with the reader, or with the channel at the next write; nobody can make
		// a Read return, so nobody waits for it.
		go p.feed(stdin)
	}
	outDone := make(chan struct{})
	e.background.Go(func() {
		p.stdout.drain(p.channel, &e.buffers)
		close(outDone)
	})
	e.background.Go(func() {
		p.stderr.drain(p.channel.Stderr(), &e.buffers)
		<-outDone
		close(p.drained)
	})
}

// feed gives the command its input and always its end, unless the input fails: a
// command must not take half of it for the whole.
func (p *process) feed(stdin io.Reader) {
	buffer := p.executor.buffers.get()
	defer p.executor.buffers.put(buffer)
	for {
		n, err := stdin.Read(*buffer)
		if n > 0 {
			if _, gone := p.channel.Write((*buffer)[:n]); gone != nil {
				return // the channel is closed
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = p.channel.CloseWrite() // fails if the channel is closed, which is as good
			return
		case err != nil:
			p.failed <- fmt.Errorf("%w: %w", errInput, err)
			return
		}
	}
}

// run sees the command through. It returns why the command has to be ended, or
// nil when the node has closed the channel and the streams were taken.
func (p *process) run(ctx context.Context, prep prepared, started func()) error {
	timer := time.NewTimer(prep.timeout)
	defer timer.Stop()
	began := time.Now()
	select {
	case err := <-p.start(prep):
		if err != nil {
			return err
		}
		took := p.opening + time.Since(began)
		if p.job != nil {
			took -= p.job.Late()
		}
		p.place.Accepted(took)
	case <-timer.C:
		return errTimeout
	case <-ctx.Done():
		return gone(ctx)
	}
	started()
	p.stream(prep)
	select {
	case <-p.closed:
	case <-timer.C:
		return errTimeout
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return gone(ctx)
	}
	// The command has ended; what is left is to pass its output on.
	select {
	case <-p.drained:
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return gone(ctx)
	}
	select { // a stream that has failed is at its end, too
	case err := <-p.failed:
		return err
	default:
		return nil
	}
}

// terminate ends the command and its channel: TERM, KILL after grace, close. sshd
// sends a signal to the process group of the command (session.c, killpg), so it
// reaches what the command started, unless that left the group. Closing the
// channel alone would end nothing.
func (p *process) terminate(grace time.Duration) {
	p.signal(ssh.SIGTERM)
	if within(grace, p.closed) {
		return
	}
	p.signal(ssh.SIGKILL)
	if within(killWait, p.closed) {
		return
	}
	p.shut()
}

// shut closes the channel.
func (p *process) shut() {
	p.executor.background.Go(func() { _ = p.channel.Close() }) // blocks if the peer is frozen
	within(closeWait, p.closed)
}

func (p *process) signal(name ssh.Signal) {
	p.executor.background.Go(func() { // blocks if the peer is frozen
		_, _ = p.channel.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{string(name)}))
	})
}

// within waits for c, not longer than d, and says whether it was closed.
func within(d time.Duration, c <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// release gives the session back and the caller's writers free. started says
// whether the command may run or have run.
func (p *process) release(started bool) {
	p.place.Leave()
	closed := done(p.closed)
	// Else the peer is frozen, or it still counts the session of a process that
	// survived: either way the connection is not as good as it seems.
	p.giveBack(closed && (done(p.exited) || !started))
	if closed && p.streaming {
		<-p.drained
	}
	p.stdout.stop()
	p.stderr.stop()
}
