package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// bodyChunk is what a body takes from the memory of all bodies at a time, in bytes.
	bodyChunk = 256 << 10
	// freeBody of each body needs nothing of that, so that small bodies are read
	// however many large ones there are.
	freeBody = 64 << 10
)

// A countedBody takes the memory of a body as it comes in.
type countedBody struct {
	io.Reader
	exchange *exchange
	size     int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.size += int64(n)
	if refused := b.exchange.holdBody(b.size); refused != nil {
		return 0, refused
	}
	return n, err
}

// holdBody takes what is missing of so much memory for the body of the request. It is given back when the
// request has been answered, since what was made of a body may refer to it.
func (x *exchange) holdBody(size int64) error {
	for size > freeBody+x.bodyTaken {
		if err := x.takeBody(); err != nil {
			return err
		}
	}
	return nil
}

// takeBody takes one more chunk for the request's body.
func (x *exchange) takeBody() error {
	if x.bodies == nil { // a test's, without an API
		x.bodyTaken += bodyChunk
		return nil
	}
	if !x.bodies.take(keyOf(x.caller), bodyChunk) {
		if left, _ := x.bodies.state(); left < bodyChunk {
			return errOverloaded
		}
		return errCallerBusy
	}
	x.bodyTaken += bodyChunk
	return nil
}

// giveBody gives back what the request's body took.
func (x *exchange) giveBody() {
	if x.bodies != nil && x.bodyTaken > 0 {
		x.bodies.give(keyOf(x.caller), x.bodyTaken)
	}
}

// ReadBody reads a body of at most limit bytes, within the time that all bodies
// have. Its errors are of this package's table.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	x := exchangeFrom(r.Context())
	// What the client announces is taken before it is made room for, and then never copied.
	if err := x.holdBody(r.ContentLength); err != nil {
		return nil, err
	}
	body := bytes.NewBuffer(make([]byte, 0, max(0, r.ContentLength)+bytes.MinRead))
	x.seat.member.Yield() // to who does not keep us waiting; callers have a place of their own
	_, err := body.ReadFrom(&countedBody{Reader: http.MaxBytesReader(w, r.Body, limit), exchange: x})
	x.seat.member.Hold()
	// The deadline of the body must not stay: net/http goes on reading, to notice
	// that the client leaves, and would take its end for that.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // fails in tests only
	if err != nil {
		return nil, bodyError(err, limit)
	}
	x.bodyRead = true
	return body.Bytes(), nil
}

func bodyError(err error, limit int64) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(limit)
	}
	if errors.Is(err, errOverloaded) || errors.Is(err, errCallerBusy) {
		return err
	}
	return fmt.Errorf("%w: %w", errBodyTimeout, err)
}

// StreamBody is the body of a request, of at most limit bytes, for a call that
// handles more than it would hold in memory. Each piece of it has the time that
// other bodies have as a whole. Its errors are io.EOF and those of this package's
// table.
func StreamBody(w http.ResponseWriter, r *http.Request, limit int64) io.Reader {
	return &streamedBody{
		body: http.MaxBytesReader(w, r.Body, limit), limit: limit,
		control: http.NewResponseController(w), exchange: exchangeFrom(r.Context()),
	}
}

type streamedBody struct {
	body     io.Reader
	limit    int64
	control  *http.ResponseController
	exchange *exchange
}

// Read implements io.Reader.
func (b *streamedBody) Read(p []byte) (int, error) {
	if b.exchange.bodyTimeout > 0 {
		_ = b.control.SetReadDeadline(time.Now().Add(b.exchange.bodyTimeout)) // fails in tests only
	}
	n, err := b.body.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		b.exchange.bodyRead = true
	default:
		err = bodyError(err, b.limit)
	}
	_ = b.control.SetReadDeadline(time.Time{}) // as in ReadBody
	return n, err
}
