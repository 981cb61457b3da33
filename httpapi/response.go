package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxWrite is how much is written under one deadline, in bytes: a client on a
// slow line gets the whole deadline for each piece.
const maxWrite = 64 << 10

// A response gives each write a deadline of its own, and knows what was sent. A
// deadline for the whole answer (http.Server.WriteTimeout) would cut long streams.
// No byte of an answer is written without a place for it.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	x       *exchange
	status  int // 0 until the header is written
	bytes   int64
	flushed bool
	mute    bool // there was no place: the header alone is sent

	mu    sync.Mutex // guards what follows, and the write deadline
	gone  bool       // its place is somebody else's
	ended bool       // net/http has it back
}

func newResponse(w http.ResponseWriter, timeout time.Duration, x *exchange) *response {
	rw := &response{ResponseWriter: w, control: http.NewResponseController(w), timeout: timeout, x: x}
	rw.disarm() // of what the last request on this connection left
	return rw
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		status = w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// begin finds the place that an answer needs. Without one the client gets a header
// that says so and no body: headers need no room in a window of HTTP/2 (RFC 9113
// §5.2.1), so that nothing waits for a client.
func (w *response) begin(status int) int {
	if !w.sit() {
		w.mute, status = true, http.StatusServiceUnavailable
		w.x.err, w.x.code = errOverloaded, "overloaded"
		h := w.Header()
		h.Del("Content-Type")
		h.Set("Content-Length", "0")
		h.Set("Retry-After", "1")
	}
	w.status = status
	return status
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.mute {
		return len(p), nil
	}
	written := 0
	for {
		piece := p[written:min(len(p), written+maxWrite)]
		w.await()
		n, err := w.ResponseWriter.Write(piece)
		err = w.awaited(err)
		written, w.bytes = written+n, w.bytes+int64(n)
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// await and awaited stand around whatever may wait for the client.
func (w *response) await() {
	w.arm()
	w.x.seat.member.Yield()
}

func (w *response) awaited(err error) error {
	if !w.x.seat.member.Hold() && err == nil {
		err = errClientGone
	}
	w.disarm()
	return err
}

// cut ends what waits for the client. Anybody may call it, and whenever they like.
func (w *response) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone = true; !w.ended {
		_ = w.control.SetWriteDeadline(past) // fails in tests only
		_ = w.control.SetReadDeadline(past)
	}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// FlushError is what http.ResponseController.Flush calls.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.flushed = true
	w.await()
	return w.awaited(w.control.Flush())
}

// finish is the last call; net/http sends what is still buffered after it. Before it
// sends a header it would wait for up to 256 KiB of a body that nobody read. If it has
// sent the header, it has done so, and reads in the background what comes next:
// a deadline for that would cancel every later request of the connection.
func (w *response) finish(unread bool) {
	const buffered = 2048 // net/http: bufferBeforeChunkingSize
	w.arm()
	if unread && !w.flushed && w.bytes <= buffered {
		w.readBy(time.Now())
	}
}

// end is called when the request has been served. With HTTP/2 what is still buffered
// waits for the client's window, in a goroutine of its own for each stream: so it is
// sent while the request has its place. With HTTP/1 it waits in the connection's own
// goroutine.
func (w *response) end(multiplexed bool) {
	if multiplexed && w.status != http.StatusSwitchingProtocols {
		_ = w.FlushError() // a client that is gone needs no answer
		w.arm()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

// These ignore errors: a writer without deadlines is a test's recorder.
// Disarming matters with HTTP/2, where a deadline that passes resets the stream
// even when nothing is being written.
func (w *response) arm()               { w.writeBy(time.Now().Add(w.timeout)) }
func (w *response) readBy(t time.Time) { _ = w.control.SetReadDeadline(t) }
func (w *response) disarm()            { w.writeBy(time.Time{}) }

func (w *response) writeBy(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.gone {
		_ = w.control.SetWriteDeadline(t)
	}
}

// fail answers with the problem document of err, or in the form of the mounted API
// that the request is for.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := noteError(r.Context(), err)
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retry))
	}
	challenge(w.Header(), p, err)
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		// There is no reason to read a refused body to keep the connection.
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Cache-Control", "no-store")
	if x := exchangeFrom(r.Context()); x.mount != nil {
		x.code = x.mount.Fail(w, r, x.caller, refusalOf(p, err))
		return
	}
	writeBody(w, p.Status, "application/problem+json", p)
}

// noteError gives err to the request's log line and says what the client is told.
func noteError(ctx context.Context, err error) problem {
	if errors.Is(ctx.Err(), context.Canceled) && errors.Is(err, context.Canceled) {
		err = errors.Join(errClientGone, err)
	}
	p := problemOf(ctx, err)
	x := exchangeFrom(ctx)
	x.err, x.code = err, p.Code
	return p
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	writeBody(w, status, "application/json", v)
}

// writeBody ignores that a write fails: the client is gone, and net/http closes
// the connection.
func writeBody(w http.ResponseWriter, status int, mediaType string, v any) {
	body := marshal(v)
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// marshal encodes one of this package's own types on a line of its own. Text is
// not escaped for HTML, since no answer is HTML.
func marshal(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // a type that cannot be encoded is a mistake in this package
	}
	return b.Bytes()
}
