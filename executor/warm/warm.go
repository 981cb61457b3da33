// Package warm runs commands one after the other in one SSH session: a worker on the
// node, sent as a script over the session's standard input, starts each as a fresh
// process. It spares the node the fork of sshd, the login shell and the channel.
//
// Guarantees. A worker runs one command at a time. Each has pipes, a process group and
// an unguessable token of its own, and every frame about it bears the token, so no byte
// that one command or what it left behind writes can reach another one. Its end is
// reported when nobody has its output open any more, as sshd does. A worker that was
// sent a signal, that was given up, or that said anything unexpected takes no further
// command ([Worker.Idle]). When its channel ends a worker ends what runs, TERM and two
// seconds later KILL, and itself.
//
// Threats. The node and the commands on it are not trusted: what comes from the channel
// is bounded by windows and parsed strictly. A command can write into its worker's
// descriptors (/proc), trace it or kill it, because both are the same user's: it then
// spoils the sessions of its own user, who may run anything anyway.
//
// Caveats. The node needs a python3 of version 3.6 or later in the user's PATH. The
// files that a login shell reads at its start are read once for a worker, not for each
// command; see docs/decisions.
package warm

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed" // the worker
	"errors"
	"fmt"
	"io"
	"sync"
)

//go:embed worker.py
var script string

// ErrNoWorker says that the channel became no worker: there is no python3 that can run
// it, or the login shell says or reads something at its start. No command was started.
var ErrNoWorker = errors.New("no warm session can be had")

// errGone is the error of who uses a worker that is no more.
var errGone = errors.New("warm session has ended")

// preamble gives the script what it is to greet with.
const preamble = "NONCE = bytes.fromhex('%x')\n"

// Line is the command line that begins a worker. The script follows on standard input:
// it would be too much for a command line, and quotes in it mean different things to
// different shells.
func Line() string { return line(script) }

func line(script string) string {
	size := len(fmt.Sprintf(preamble, token{})) + len(script)
	return fmt.Sprintf(`exec python3 -I -S -c 'exec(open(0,"rb",closefd=False).read(%d))' sallyport-worker`, size)
}

// A Worker is the other side's end of a warm session. It is safe for concurrent use.
type Worker struct {
	channel io.ReadWriteCloser
	ready   chan struct{} // closed when the worker has greeted
	gone    chan struct{} // closed when it can be heard no more

	writing sync.Mutex // held while a frame is written; a frozen peer blocks it
	buffer  []byte     // of frames, guarded by writing

	mu      sync.Mutex // guards what follows
	job     *Job
	doubted bool
	ended   bool // nobody will finish a job any more
}

// Start makes a worker of a channel on which [Line] was started. spawn runs a function
// that ends when the channel does. If Start fails it has closed the channel; the error
// wraps ErrNoWorker, or is that of ctx.
func Start(ctx context.Context, channel io.ReadWriteCloser, spawn func(func())) (*Worker, error) {
	return start(ctx, channel, spawn, script)
}

func start(ctx context.Context, channel io.ReadWriteCloser, spawn func(func()), script string) (*Worker, error) {
	w := &Worker{channel: channel, ready: make(chan struct{}), gone: make(chan struct{})}
	nonce := newToken()
	spawn(func() { w.listen(nonce) })
	spawn(func() { _, _ = io.WriteString(channel, fmt.Sprintf(preamble, nonce)+script) }) // blocks if the peer is frozen
	var err error
	select {
	case <-w.ready:
		return w, nil
	case <-w.gone:
		err = ErrNoWorker
	case <-ctx.Done():
		err = ctx.Err()
	}
	spawn(w.Close)
	return nil, err
}

func newToken() token {
	var t token
	_, _ = rand.Read(t[:]) // never fails (crypto/rand)
	return t
}

// Close ends the worker, and what runs in it.
func (w *Worker) Close() {
	w.mu.Lock()
	w.doubted = true
	w.mu.Unlock()
	_ = w.channel.Close() // fails if it is closed, which is as good
}

// Done is closed when the worker has ended.
func (w *Worker) Done() <-chan struct{} { return w.gone }

// Idle says whether the worker can run a command: none runs, and nothing that happened
// raises a doubt.
func (w *Worker) Idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.gone:
		return false
	default:
		return w.job == nil && !w.doubted
	}
}

// listen takes what the worker says until it breaks the protocol or ends.
func (w *Worker) listen(nonce token) {
	const lookahead = 4 << 10
	r := bufio.NewReaderSize(w.channel, lookahead)
	var buffer []byte
	if f, err := readFrame(r, &buffer); err == nil && f.kind == kindHello && f.token == nonce {
		close(w.ready)
		for err == nil {
			if f, err = readFrame(r, &buffer); err == nil {
				err = w.deliver(f)
			}
		}
	}
	close(w.gone)
	w.Close()
	w.mu.Lock()
	job := w.job
	w.job, w.ended = nil, true
	w.mu.Unlock()
	if job != nil {
		job.finish()
	}
}

// deliver gives a frame to the command that it belongs to.
func (w *Worker) deliver(f frame) error {
	w.mu.Lock()
	job := w.job
	w.mu.Unlock()
	if job == nil || job.token != f.token {
		return fmt.Errorf("%w: frame of a command that does not run", errFrame)
	}
	over, err := job.deliver(f)
	if err == nil && over {
		w.mu.Lock()
		w.job = nil
		w.mu.Unlock()
		job.finish()
	}
	return err
}

// send writes a frame for job, if that still runs.
func (w *Worker) send(job *Job, kind byte, body []byte) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	current := w.job == job
	w.mu.Unlock()
	if !current {
		return errGone
	}
	w.buffer = appendFrame(w.buffer[:0], kind, job.token, body)
	_, err := w.channel.Write(w.buffer)
	return err
}

// doubt has the worker take no further command.
func (w *Worker) doubt() {
	w.mu.Lock()
	w.doubted = true
	w.mu.Unlock()
}
