package sftp

import (
	"context"
	"errors"
	"io"
	"math"
)

// A piece is a part of a file that was asked for.
type piece struct {
	*call
	offset int64
	size   int
}

// A transfer is a number of pieces under way, in their order.
type transfer struct {
	*Client
	ctx    context.Context //nolint:containedctx // of the one call that it lives in
	handle Handle
	pieces []piece
}

// stop leaves the pieces behind.
func (t *transfer) stop() {
	for _, p := range t.pieces {
		t.drop(p.call)
	}
}

// room takes a place among the packets of data. It waits only if the transfer has
// none: who has one will get on.
func (t *transfer) room() (bool, error) {
	select {
	case t.bulk <- struct{}{}:
		return true, nil
	default:
	}
	if len(t.pieces) > 0 {
		return false, nil
	}
	return true, t.wait()
}

// wait takes a place when there is one. Places are given back by answers, whoever
// waits for them.
func (t *transfer) wait() error {
	select {
	case t.bulk <- struct{}{}:
		return nil
	case <-t.done:
		return t.Err()
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}

// request sends r, for which there is room.
func (t *transfer) request(r *request) (*call, error) {
	k, err := t.send(t.ctx, r, &call{bulk: true})
	if err != nil {
		select {
		case <-t.bulk: // nobody else gives it back
		default: // an answer to a guessed number did
		}
	}
	return k, err
}

// ask asks for a piece, for which there is room.
func (t *transfer) ask(offset int64, size int) (piece, error) {
	r := newRequest(typeRead).text(string(t.handle)).u64(uint64(offset)).u32(uint32(size)) //nolint:gosec // neither is negative
	k, err := t.request(r)
	return piece{k, offset, size}, err
}

// ReadRange gives yield the bytes of an open file from offset on, size of them or up
// to the end of the file, in order and in parts. A part must not be kept. It
// returns how many bytes yield has taken.
func (c *Client) ReadRange(ctx context.Context, h Handle, offset, size int64, yield func([]byte) error) (int64, error) {
	t := &transfer{Client: c, ctx: ctx, handle: h}
	defer t.stop()
	var total int64
	for next, end := offset, offset+min(size, math.MaxInt64-offset); ; {
		for len(t.pieces) < window && next < end {
			ok, err := t.room()
			if err != nil {
				return total, err
			}
			if !ok {
				break
			}
			p, err := t.ask(next, int(min(Chunk, end-next)))
			if err != nil {
				return total, err
			}
			t.pieces = append(t.pieces, p)
			next += int64(p.size)
		}
		if len(t.pieces) == 0 {
			return total, nil
		}
		n, err := t.take(yield)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// take hands on the first piece. What is missing from it is asked for again.
func (t *transfer) take(yield func([]byte) error) (int, error) {
	p := t.pieces[0]
	f, err := t.await(t.ctx, p.call)
	if err != nil {
		return 0, err
	}
	t.pieces = t.pieces[1:]
	defer f.free()
	data, err := f.data()
	if err != nil {
		return 0, t.checked(err)
	}
	n := len(data)
	if n == 0 || n > p.size {
		return 0, t.broken("%d bytes where %d were asked for", n, p.size)
	}
	if err := yield(data); err != nil {
		return 0, err
	}
	if n == p.size {
		return n, nil
	}
	if err := t.wait(); err != nil {
		return n, err
	}
	rest, err := t.ask(p.offset+int64(n), p.size-n)
	if err != nil {
		return n, err
	}
	t.pieces = append([]piece{rest}, t.pieces...)
	return n, nil
}

// WriteRange writes to an open file from offset on what next returns, until that is
// io.EOF. A part has at most Chunk bytes and is not kept. It returns how many bytes
// the peer has taken.
func (c *Client) WriteRange(ctx context.Context, h Handle, offset int64, next func() ([]byte, error)) (int64, error) {
	t := &transfer{Client: c, ctx: ctx, handle: h}
	defer t.stop()
	var total int64
	for {
		data, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return total, err
		}
		for {
			ok, err := t.room()
			if err != nil {
				return total, err
			}
			if ok && len(t.pieces) < window {
				break
			}
			if ok {
				<-t.bulk
			}
			if err := t.written(&total); err != nil {
				return total, err
			}
		}
		r := newRequest(typeWrite).text(string(h)).u64(uint64(offset)).bytes(data) //nolint:gosec // not negative
		k, err := t.request(r)
		if err != nil {
			return total, err
		}
		t.pieces = append(t.pieces, piece{k, offset, len(data)})
		offset += int64(len(data))
	}
	for len(t.pieces) > 0 {
		if err := t.written(&total); err != nil {
			return total, err
		}
	}
	return total, nil
}

// written waits for the answer about the first piece.
func (t *transfer) written(total *int64) error {
	p := t.pieces[0]
	f, err := t.await(t.ctx, p.call)
	if err != nil {
		return err
	}
	t.pieces = t.pieces[1:]
	defer f.free()
	err = t.checked(f.status())
	if errors.Is(err, io.EOF) {
		return t.broken("end of file at a write")
	}
	if err == nil {
		*total += int64(p.size)
	}
	return err
}
