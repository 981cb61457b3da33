// Package stream speaks the protocol of firecrest-streamer, by which pyfirecrest moves
// large files: over one WebSocket go a message that says how large the file is, its bytes
// in messages of 5 MiB, and a message with its SHA-256.
//
// The client's own package, version 0.0.21, takes its peer's last message for a part of
// the file unless that is text, and sends its own as bytes. So what ends a file is told by
// the size that was said first, and never by what a message looks like.
//
// The guarantee: a file is whole, has the size and the SHA-256 that its sender says, or the
// transfer is an error. Memory does not grow with a file. The threat is a peer that lies,
// sends too much, or stops in between. The caveat: who the peer is, is for the caller to know.
package stream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/coder/websocket"
)

const (
	// chunkSize is that of streamer_core.py, in bytes: the peer takes no message of more
	// than five quarters of it.
	chunkSize = 5 << 20
	// maxWord bounds a message that is no part of a file, in bytes.
	maxWord = 4 << 10
	// patience is how long nothing may move.
	patience = time.Minute
)

var (
	// ErrTooLarge says that the sender has announced more than is taken.
	ErrTooLarge = errors.New("file is larger than the limit")
	// ErrPeer says that the peer does not keep to the protocol, or that the file is not
	// what he said.
	ErrPeer = errors.New("stream is not that of a whole file")

	errStalled = errors.New("nothing was moved for a minute")
)

// A word is a message that is no part of a file.
type word struct {
	Type   string `json:"type"`
	Chunks *int64 `json:"num_chunks,omitempty"`
	Size   *int64 `json:"file_size,omitempty"`
	SHA256 string `json:"sha256_hash,omitempty"`
}

// A watch ends a context when nothing moves.
type watch struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func newWatch(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{time.AfterFunc(patience, func() { cancel(errStalled) }), cancel}
}

func (w *watch) moved() { w.timer.Reset(patience) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// An Incoming is a file that the peer sends. It reads to io.EOF only if the file was whole.
type Incoming struct {
	ctx     context.Context //nolint:containedctx // an io.Reader has no other way to it
	watch   *watch
	conn    *websocket.Conn
	message io.Reader // the one that is being read; nil between two
	left    int64
	digest  hash.Hash
	err     error // the end, once it was reached
}

// Receive reads how large the file is that comes: at most max bytes, else the error is
// ErrTooLarge. Close what it returns.
func Receive(ctx context.Context, conn *websocket.Conn, max int64) (*Incoming, error) {
	conn.SetReadLimit(chunkSize * 5 / 4)
	in := &Incoming{conn: conn, digest: sha256.New()}
	in.ctx, in.watch = newWatch(ctx)
	w, err := in.word()
	switch {
	case err != nil:
	case w.Type != "init" || w.Size == nil || *w.Size < 0:
		err = fmt.Errorf("%w: the first message does not say how large it is", ErrPeer)
	case *w.Size > max:
		err = ErrTooLarge
	default:
		in.left = *w.Size
		return in, nil
	}
	in.Close()
	return nil, err
}

// Close ends reading. A Read that is under way fails.
func (in *Incoming) Close() { in.watch.stop() }

// Read implements [io.Reader].
func (in *Incoming) Read(p []byte) (int, error) {
	for in.err == nil && len(p) > 0 {
		if in.left == 0 {
			in.err = in.end()
			break
		}
		n, err := in.part(p[:min(int64(len(p)), in.left)])
		in.left -= int64(n)
		in.digest.Write(p[:n])
		in.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, in.err
}

// part reads from the message that is under way, or from the next one.
func (in *Incoming) part(p []byte) (int, error) {
	if in.message == nil {
		_, r, err := in.conn.Reader(in.ctx)
		if err != nil {
			return 0, in.failure(err)
		}
		in.message = r
	}
	n, err := in.message.Read(p)
	in.watch.moved()
	if errors.Is(err, io.EOF) {
		in.message, err = nil, nil
	}
	return n, in.failure(err)
}

// end wants nothing more of the message that is under way, and the last one.
func (in *Incoming) end() error {
	if in.message != nil {
		switch n, err := in.message.Read(make([]byte, 1)); {
		case n > 0:
			return fmt.Errorf("%w: it has more bytes than were announced", ErrPeer)
		case !errors.Is(err, io.EOF):
			return in.failure(err)
		}
	}
	w, err := in.word()
	if err != nil {
		return err
	}
	if w.Type != "eof" || w.SHA256 != hex.EncodeToString(in.digest.Sum(nil)) {
		return fmt.Errorf("%w: it does not have the SHA-256 that its sender says", ErrPeer)
	}
	return io.EOF
}

// word reads a message that is no part of a file.
func (in *Incoming) word() (w word, err error) {
	_, r, err := in.conn.Reader(in.ctx)
	if err != nil {
		return w, in.failure(err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxWord+1))
	if err != nil {
		return w, in.failure(err)
	}
	in.watch.moved()
	if len(text) > maxWord || json.Unmarshal(text, &w) != nil {
		return w, fmt.Errorf("%w: a message is none of the protocol", ErrPeer)
	}
	return w, nil
}

func (in *Incoming) failure(err error) error { return because(in.ctx, err) }

// because says why a connection was ended here.
func because(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}
