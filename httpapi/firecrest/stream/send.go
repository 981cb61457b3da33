package stream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/coder/websocket"
)

// A Content writes n bytes of a file from an offset on, and says how many there were.
type Content func(ctx context.Context, w io.Writer, offset, n int64) (int64, error)

// Send sends a file of size bytes. That it returns nil says that the peer was given all of
// it, not that he has kept it.
func Send(ctx context.Context, conn *websocket.Conn, size int64, content Content) error {
	// The peer says nothing but that he is still there, or that he goes.
	ctx, watch := newWatch(conn.CloseRead(ctx))
	defer watch.stop()
	chunks := (size + chunkSize - 1) / chunkSize
	if err := say(ctx, conn, websocket.MessageBinary, word{Type: "init", Chunks: &chunks, Size: &size}); err != nil {
		return because(ctx, err)
	}
	digest := sha256.New()
	for offset := int64(0); offset < size; offset += chunkSize {
		length := min(chunkSize, size-offset)
		w, err := conn.Writer(ctx, websocket.MessageBinary)
		if err != nil {
			return because(ctx, err)
		}
		n, err := content(ctx, io.MultiWriter(moving{w, watch}, digest), offset, length)
		if err == nil && n < length {
			err = fmt.Errorf("the file has become shorter while it was read, by %d bytes", length-n)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return because(ctx, err)
		}
	}
	// As text, and without a space: the peer knows it by that.
	return because(ctx, say(ctx, conn, websocket.MessageText, word{Type: "eof", SHA256: hex.EncodeToString(digest.Sum(nil))}))
}

func say(ctx context.Context, conn *websocket.Conn, kind websocket.MessageType, w word) error {
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return conn.Write(ctx, kind, text)
}

// moving tells the watch of what was written.
type moving struct {
	io.Writer
	watch *watch
}

// Write implements [io.Writer].
func (m moving) Write(p []byte) (int, error) {
	n, err := m.Writer.Write(p)
	m.watch.moved()
	return n, err
}
