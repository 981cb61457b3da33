package sftp

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// do sends a request and waits for the answer.
func (c *Client) do(ctx context.Context, r *request) (frame, error) {
	k, err := c.send(ctx, r, &call{opens: r.opens()})
	if err != nil {
		return frame{}, err
	}
	return c.await(ctx, k)
}

// send gives a request to the writer. The call that it returns must be awaited or
// abandoned.
func (c *Client) send(ctx context.Context, r *request, k *call) (*call, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k.answer, k.since = make(chan frame, 1), time.Now()
	c.mu.Lock()
	c.lastID++
	k.id = c.lastID
	c.pending[k.id] = k
	c.mu.Unlock()
	r.finish(k.id)
	select {
	case c.out <- r: // has room for as many as there are slots
		return k, nil
	case <-c.done:
		return nil, c.Err()
	}
}

// await waits for the answer of k, and abandons it when ctx ends.
func (c *Client) await(ctx context.Context, k *call) (frame, error) {
	select {
	case f := <-k.answer:
		return f, nil
	case <-ctx.Done():
		if f, ok := c.abandon(k); ok {
			return f, nil
		}
		return frame{}, ctx.Err()
	case <-c.done:
		select {
		case f := <-k.answer:
			return f, nil
		default:
			return frame{}, c.Err()
		}
	}
}

// abandon has the answer of k dropped when it comes. If it is there already it is
// returned.
func (c *Client) abandon(k *call) (frame, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case f := <-k.answer:
		return f, true
	default:
		k.abandoned = true
		return frame{}, false
	}
}

// drop abandons k with whatever it has brought.
func (c *Client) drop(k *call) {
	if f, ok := c.abandon(k); ok {
		f.free()
	}
}

// write sends what is asked for; small requests that wait together go together.
func (c *Client) write() {
	const enough = 32 << 10
	var buffer []byte
	for {
		select {
		case <-c.done:
			return
		case r := <-c.out:
			buffer = r.take(buffer[:0])
		}
		for more := true; more && len(buffer) < enough; {
			select {
			case r := <-c.out:
				buffer = r.take(buffer)
			default:
				more = false
			}
		}
		if _, err := c.conn.Write(buffer); err != nil {
			c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
	}
}

// read takes the peer's packets until the channel ends.
func (c *Client) read() {
	r := bufio.NewReaderSize(c.conn, Chunk+64)
	f, err := readFrame(r)
	if err == nil {
		c.extensions, err = f.version()
	}
	if err != nil {
		c.fail(err)
		return
	}
	close(c.ready)
	for {
		f, err := readFrame(r)
		if err != nil {
			c.fail(err)
			return
		}
		if err := c.deliver(f); err != nil {
			c.fail(err)
			return
		}
	}
}

// readFrame reads a packet.
func readFrame(r *bufio.Reader) (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, ended(err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < minPacket || size > MaxPacket {
		return frame{}, fmt.Errorf("%w: packet of %d bytes", ErrProtocol, size)
	}
	f := newFrame(int(size))
	if _, err := io.ReadFull(r, f.body); err != nil {
		f.free()
		return frame{}, ended(err)
	}
	return f, nil
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// deliver gives an answer to whoever waits for it.
func (c *Client) deliver(f frame) error {
	id := f.id()
	c.mu.Lock()
	k, ok := c.pending[id]
	delete(c.pending, id)
	c.heard = time.Now()
	abandoned := ok && k.abandoned
	if ok && !abandoned {
		k.answer <- f
	}
	c.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: answer to a request that was not made", ErrProtocol)
	}
	<-c.slots
	if k.bulk {
		<-c.bulk
	}
	if !abandoned {
		return nil
	}
	if h, err := f.handle(); err == nil && k.opens {
		c.spawn(func() { c.Release(context.Background(), Handle(h)) })
	}
	f.free()
	return nil
}
