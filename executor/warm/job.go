package warm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// A Job is the place of one command in a worker. It is an [ssh.Channel], and behaves
// like the channel of a session: the request "exec", whose payload is a
// [Command.Payload], starts the command, and "signal" reaches its process group.
// Close ends the worker.
type Job struct {
	worker   *Worker
	token    token
	requests chan *ssh.Request
	answer   chan error // gets one value when the command has started, or could not

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	state   state
	late    time.Duration
	out     stream
	err     stream
	unread  int // bytes of output that the worker counts as not taken
	taken   int // of those, bytes that were read and are not acknowledged yet
	credit  int // bytes of input that may be sent
}

// The state of a job goes forward only.
type state int

const (
	fresh    state = iota
	asked          // the command was sent
	started        // it runs
	exited         // its process has ended
	refused        // there is no process
	finished       // nothing will come any more
)

var (
	errRequest = errors.New("request is unknown to a warm session")
	errRefused = errors.New("worker could not start a process")
)

// Job returns the place of a command. It may be called only while the worker is idle; of
// a worker that has ended since it was seen so, it is one where nothing can begin.
func (w *Worker) Job() *Job {
	j := &Job{
		worker: w, token: newToken(), requests: make(chan *ssh.Request, 1), answer: make(chan error, 1),
		credit: inputWindow,
	}
	j.changed.L = &j.mu
	j.out.job, j.err.job = j, j
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		j.finish()
		return j
	}
	w.job = j
	return j
}

// Requests brings what the node says of the command's end: "exit-status" or
// "exit-signal" (RFC 4254 §6.10). It is closed when the command and its output have
// ended, or the worker has.
func (j *Job) Requests() <-chan *ssh.Request { return j.requests }

// Late is for how long the command had run when the node said that it was started.
func (j *Job) Late() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.late
}

// SendRequest implements [ssh.Channel].
func (j *Job) SendRequest(name string, _ bool, payload []byte) (bool, error) {
	switch name {
	case "exec":
		return j.exec(payload)
	case "signal":
		var signal struct{ Name string }
		if err := ssh.Unmarshal(payload, &signal); err != nil {
			return false, fmt.Errorf("signal: %w", err)
		}
		j.worker.doubt()
		return true, j.worker.send(j, kindSignal, []byte(signal.Name))
	}
	return false, fmt.Errorf("%w: %q", errRequest, name)
}

func (j *Job) exec(payload []byte) (bool, error) {
	j.mu.Lock()
	before := j.state
	j.state = max(j.state, asked)
	j.mu.Unlock()
	switch before {
	case fresh:
	case finished:
		return false, errGone
	default:
		return false, fmt.Errorf("%w: a second command", errRequest)
	}
	if err := j.worker.send(j, kindCommand, payload); err != nil {
		return false, err
	}
	err := <-j.answer
	if errors.Is(err, errRefused) {
		return false, nil
	}
	return err == nil, err
}

// deliver takes a frame, and says whether it was the last one.
func (j *Job) deliver(f frame) (over bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	running := j.state == started || j.state == exited
	switch {
	case f.kind == kindStarted && j.state == asked:
		late, err := number(f.body)
		j.state, j.late = started, time.Duration(late)*time.Microsecond
		j.answer <- nil
		return false, err
	case f.kind == kindRefused && j.state == asked:
		j.state = refused
		j.answer <- errRefused
		return false, nil
	case f.kind == kindStdout && running:
		return false, j.takeLocked(&j.out, f.body)
	case f.kind == kindStderr && running:
		return false, j.takeLocked(&j.err, f.body)
	case f.kind == kindAck && running:
		n, err := number(f.body)
		if err != nil || int64(n) > int64(inputWindow-j.credit) {
			return false, fmt.Errorf("%w: acknowledges input that was not sent", errFrame)
		}
		j.credit += int(n)
		j.changed.Broadcast()
		return false, nil
	case f.kind == kindExit && j.state == started:
		e, err := parseExit(f.body)
		j.state = exited
		j.requests <- e.request() // has room for it
		return false, err
	case f.kind == kindOver && (j.state == exited || j.state == refused):
		return true, nil
	}
	return false, fmt.Errorf("%w: frame %q", errFrame, f.kind)
}

func (j *Job) takeLocked(s *stream, body []byte) error {
	if j.unread += len(body); j.unread > window {
		return fmt.Errorf("%w: more output than was asked for", errFrame)
	}
	_, _ = s.data.Write(body) // never fails
	j.changed.Broadcast()
	return nil
}

// finish ends what waits for the worker.
func (j *Job) finish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state == asked {
		j.answer <- errGone
	}
	j.state = finished
	j.changed.Broadcast()
	close(j.requests)
}

// Write gives the command input. It waits until the worker has room for it.
func (j *Job) Write(p []byte) (n int, err error) {
	for n < len(p) {
		size := j.room(min(inputChunk, len(p)-n))
		if size == 0 {
			return n, io.EOF
		}
		if err := j.worker.send(j, kindInput, p[n:n+size]); err != nil {
			return n, err
		}
		n += size
	}
	return n, nil
}

// room takes up to most bytes of the credit; 0 says that there will be none.
func (j *Job) room(most int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.credit == 0 && j.state != finished {
		j.changed.Wait()
	}
	if j.state == finished {
		return 0
	}
	most = min(most, j.credit)
	j.credit -= most
	return most
}

// CloseWrite ends the input.
func (j *Job) CloseWrite() error { return j.worker.send(j, kindEnd, nil) }

// Close ends the worker.
func (j *Job) Close() error {
	j.worker.Close()
	return nil
}

// Read reads what the command writes to standard output.
func (j *Job) Read(p []byte) (int, error) { return j.out.Read(p) }

// Stderr is what it writes to standard error. It cannot be written to.
func (j *Job) Stderr() io.ReadWriter { return &j.err }

// A stream is output that was not read yet; guarded by the mutex of its job.
type stream struct {
	job  *Job
	data bytes.Buffer
}

// Read implements [io.Reader].
func (s *stream) Read(p []byte) (int, error) {
	j := s.job
	j.mu.Lock()
	for s.data.Len() == 0 && j.state != finished {
		j.changed.Wait()
	}
	n, err := s.data.Read(p)
	if err != nil {
		j.mu.Unlock()
		return 0, io.EOF
	}
	var taken int
	if j.taken += n; j.taken >= window/2 && j.state != finished {
		taken, j.taken = j.taken, 0
		j.unread -= taken
	}
	j.mu.Unlock()
	if taken > 0 {
		_ = j.worker.send(j, kindAck, binary.BigEndian.AppendUint32(nil, uint32(taken)))
	}
	return n, nil
}

// Write implements [io.Writer] and fails.
func (s *stream) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// request is the exit as a request of SSH. Numbers are those of Linux; sshd calls a
// signal that RFC 4254 does not know SIG@openssh.com (session.c, sig2name).
func (e exit) request() *ssh.Request {
	if !e.killed {
		return &ssh.Request{Type: "exit-status", Payload: ssh.Marshal(struct{ Code uint32 }{e.status})}
	}
	name := "SIG@openssh.com"
	switch e.status {
	case 1:
		name = "HUP"
	case 2:
		name = "INT"
	case 3:
		name = "QUIT"
	case 4:
		name = "ILL"
	case 6:
		name = "ABRT"
	case 8:
		name = "FPE"
	case 9:
		name = "KILL"
	case 10:
		name = "USR1"
	case 11:
		name = "SEGV"
	case 12:
		name = "USR2"
	case 13:
		name = "PIPE"
	case 14:
		name = "ALRM"
	case 15:
		name = "TERM"
	}
	return &ssh.Request{Type: "exit-signal", Payload: ssh.Marshal(struct {
		Name       string
		CoreDumped bool
		Message    string
		Language   string
	}{Name: name})}
}
