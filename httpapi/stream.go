package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport/executor"
	"sallyport/identity"
	"sallyport/store/audit"
)

// The events of a stream.
const (
	eventStart     = "start"
	eventStdout    = "stdout"
	eventStderr    = "stderr"
	eventExit      = "exit"
	eventError     = "error"
	eventHeartbeat = "heartbeat"
)

type startFrame struct {
	Event             string  `json:"event"`
	ID                string  `json:"id"`
	RequestID         string  `json:"request_id"`
	System            string  `json:"system"`
	Node              string  `json:"node"`
	User              string  `json:"user"`
	CertificateSerial *string `json:"certificate_serial"`
}

// An outputFrame has Data, or DataBase64 when the bytes are not UTF-8.
type outputFrame struct {
	Event      string  `json:"event"`
	Data       *string `json:"data,omitempty"`
	DataBase64 *string `json:"data_base64,omitempty"`
}

type exitFrame struct {
	Event      string  `json:"event"`
	ExitCode   *int    `json:"exit_code"`
	Signal     *string `json:"signal"`
	TimedOut   bool    `json:"timed_out"`
	DurationMS int64   `json:"duration_ms"`
}

type errorFrame struct {
	Event string `json:"event"`
	problem
}

type heartbeatFrame struct {
	Event string `json:"event"`
}

// A stream sends frames as they happen. One goroutine owns the writer and the
// heartbeats; everyone else hands it frames and waits until they are written, so
// that a slow client slows the command instead of filling memory.
type stream struct {
	w         http.ResponseWriter
	sse       bool
	heartbeat time.Duration
	gone      context.CancelCauseFunc // called when the client cannot be written to

	frames chan sending
	stop   chan struct{} // closed by close
	owner  sync.WaitGroup
}

type sending struct {
	frame  []byte
	result chan<- error
}

// stream runs a command whose output is sent while it runs. Until the command
// has started, errors are ordinary answers; from then on they are frames.
func (a *API) stream(w http.ResponseWriter, r *http.Request, media string, caller identity.Identity, system string, cmd executor.Command) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := &stream{
		w: w, sse: media == mediaSSE, heartbeat: a.cfg.Heartbeat, gone: cancel,
		frames: make(chan sending), stop: make(chan struct{}),
	}
	defer s.close()
	id, started := audit.RequestFrom(ctx).ID, false
	cmd.Started = func(start executor.Start) {
		started = true
		s.open(media)
		// A client that is gone shows at the next frame as well.
		_ = s.send(eventStart, startFrame{
			Event: eventStart, ID: start.ID, RequestID: id, System: start.System, Node: start.Node,
			User: start.User, CertificateSerial: serialOf(start.CertificateSerial),
		})
	}
	stdout, stderr := s.output(eventStdout), s.output(eventStderr)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	result, err := a.cfg.Commands.Run(ctx, caller, system, cmd)
	if !started {
		if err == nil {
			err = errInternal // a runner that keeps its contract calls Started
		}
		return err
	}
	stdout.finish()
	stderr.finish()
	if err != nil {
		// What would have been the answer is the last frame.
		_ = s.send(eventError, errorFrame{Event: eventError, problem: noteError(ctx, err)})
		return nil
	}
	code, signal := ending(result)
	_ = s.send(eventExit, exitFrame{
		Event: eventExit, ExitCode: code, Signal: signal, TimedOut: result.TimedOut,
		DurationMS: result.Duration.Milliseconds(),
	})
	return nil
}

// open sends the header and starts the goroutine that owns the writer.
func (s *stream) open(media string) {
	h := s.w.Header()
	h.Set("Content-Type", media)
	h.Set("X-Accel-Buffering", "no") // or nginx collects the frames
	s.w.WriteHeader(http.StatusOK)
	s.owner.Go(s.run)
}

// close ends the goroutine, if there is one, and waits for it.
func (s *stream) close() {
	close(s.stop)
	s.owner.Wait()
}

// run writes frames until close. After the first failure it only answers.
func (s *stream) run() {
	ticker := time.NewTicker(s.heartbeat)
	defer ticker.Stop()
	control := http.NewResponseController(s.w)
	var broken error
	write := func(frame []byte) error {
		if broken != nil {
			return broken
		}
		if _, broken = s.w.Write(frame); broken == nil {
			broken = control.Flush()
		}
		if broken != nil {
			broken = errors.Join(errClientGone, broken)
			s.gone(broken)
		}
		ticker.Reset(s.heartbeat)
		return broken
	}
	for {
		select {
		case m := <-s.frames:
			m.result <- write(m.frame)
		case <-ticker.C:
			_ = write(s.encode(eventHeartbeat, heartbeatFrame{eventHeartbeat}))
		case <-s.stop:
			return
		}
	}
}

// send returns when the frame is on its way to the client.
func (s *stream) send(event string, frame any) error {
	result := make(chan error, 1)
	select {
	case s.frames <- sending{s.encode(event, frame), result}:
		return <-result
	case <-s.stop:
		return errClientGone
	}
}

// encode makes one line of JSON, and of it an event of text/event-stream (HTML
// Standard §9.2) if that was asked for.
func (s *stream) encode(event string, frame any) []byte {
	line := marshal(frame)
	if !s.sse {
		return line
	}
	return append([]byte("event: "+event+"\ndata: "), append(line, '\n')...)
}

// An output turns what a command writes to one of its streams into frames.
type output struct {
	s     *stream
	event string
	split splitter
}

func (s *stream) output(event string) *output { return &output{s: s, event: event} }

// Write sends p in frames of at most maxWrite bytes of output.
func (o *output) Write(p []byte) (int, error) {
	for done := 0; done < len(p); done += maxWrite {
		if err := o.send(o.split.next(p[done:min(len(p), done+maxWrite)])); err != nil {
			return done, err
		}
	}
	return len(p), nil
}

// finish sends what was held back. That the client is gone shows elsewhere.
func (o *output) finish() { _ = o.send(o.split.rest()) }

func (o *output) send(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	return o.s.send(o.event, frameOf(o.event, data))
}

func frameOf(event string, data []byte) outputFrame {
	if utf8.Valid(data) {
		text := string(data)
		return outputFrame{Event: event, Data: &text}
	}
	text := base64.StdEncoding.EncodeToString(data)
	return outputFrame{Event: event, DataBase64: &text}
}
