// Package sftp is a client of the SSH file transfer protocol, version 3
// (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions (PROTOCOL of
// openssh-portable, section 4). It knows no SSH: it speaks over whatever carries
// bytes.
//
// Guarantees. Every call heeds its context, also while the peer is frozen: it
// leaves its request behind, and an answer that comes later is dropped, the handle
// in it closed. Memory is bounded whatever the peer sends: packets have at most
// [MaxPacket] bytes, requests without an answer are at most [MaxRequests], and
// listings are handed on as they come. Calls may be concurrent; large transfers
// leave room for small requests between their packets.
//
// Threats. The peer may be hostile. An answer of the wrong type, to a request that
// was not made, cut short, or with a name that no directory can hold ends the
// client with [ErrProtocol]. A peer that answers nothing for Options.Timeout, while
// a request waits, ends it with [ErrFrozen].
//
// Caveats. A request that was left behind may still be carried out. What a name
// refers to can change between two calls.
package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// MaxPacket bounds one packet in bytes, as in OpenSSH (sftp-common.h,
	// SFTP_MAX_MSG_LENGTH).
	MaxPacket = 256 << 10
	// MaxRequests bounds the requests that the peer has not answered.
	MaxRequests = 128
	// maxBulk bounds those among them that carry the data of files. The peer answers
	// in order, so this is how much data can stand in front of a small request: 1 MiB.
	maxBulk = 32
	// window is how many packets of data one transfer has under way.
	window = 16
	// Chunk is how much data one packet of a transfer carries. Every server takes so
	// much (draft-ietf-secsh-filexfer-02, section 3).
	Chunk = 32 << 10
)

var (
	// ErrProtocol says that the peer does not follow the protocol.
	ErrProtocol = errors.New("sftp: peer broke the protocol")
	// ErrFrozen says that the peer left a request without an answer for too long.
	ErrFrozen = errors.New("sftp: peer does not answer")
	// ErrClosed says that the client was closed, or that the peer ended the channel.
	ErrClosed = errors.New("sftp: channel is closed")
)

// Options adjusts a client. The zero value of a field is its default.
type Options struct {
	// Timeout is how long the peer may leave requests without any answer. Default: 30 s.
	Timeout time.Duration
	// Go starts a goroutine, of which a client has three. They end with the client,
	// but for a Read or Write of the connection that is under way. Default: go.
	Go func(func())
}

// A Client is one SFTP channel. Make one with [New]; it is safe for concurrent use.
type Client struct {
	conn       io.ReadWriteCloser
	extensions map[string]string
	timeout    time.Duration
	spawn      func(func())

	ready chan struct{} // closed when the peer has told its version
	done  chan struct{} // closed when the client has ended
	out   chan *request
	slots chan struct{} // one for each request that was not answered
	bulk  chan struct{} // one for each of them that carries data

	mu      sync.Mutex // guards what follows
	err     error      // why the client has ended
	lastID  uint32
	heard   time.Time // when the last answer came
	pending map[uint32]*call
}

// A call is a request and, later, its answer.
type call struct {
	id        uint32
	answer    chan frame // has room for it
	since     time.Time
	bulk      bool
	opens     bool // the answer may be a handle
	abandoned bool // nobody waits for the answer
}

// New greets the peer on conn, which it closes if it fails. A peer that says
// something else than the protocol demands gives ErrProtocol, one that ends the
// channel ErrClosed.
func New(ctx context.Context, conn io.ReadWriteCloser, o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Go == nil {
		o.Go = func(f func()) { go f() }
	}
	c := &Client{
		conn: conn, timeout: o.Timeout, spawn: o.Go,
		ready: make(chan struct{}), done: make(chan struct{}),
		out: make(chan *request, MaxRequests), slots: make(chan struct{}, MaxRequests), bulk: make(chan struct{}, maxBulk),
		pending: make(map[uint32]*call),
	}
	hello := newRequest(typeInit)
	hello.finish(protocolVersion) // the version stands where others have their number
	c.out <- hello
	c.spawn(c.write)
	c.spawn(c.read)
	c.spawn(c.watch)
	timer := time.NewTimer(o.Timeout)
	defer timer.Stop()
	select {
	case <-c.ready:
		return c, nil
	case <-c.done:
	case <-timer.C:
		c.fail(ErrFrozen)
	case <-ctx.Done():
		c.fail(ctx.Err())
	}
	return nil, c.Err()
}

// Close ends the client and the connection under it. Calls under way return
// ErrClosed.
func (c *Client) Close() { c.fail(ErrClosed) }

// End is Close with another error for the calls under way.
func (c *Client) End(why error) { c.fail(why) }

// Done is closed when the client has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the client has ended, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Has says whether the peer offers an extension.
func (c *Client) Has(extension string) bool {
	_, ok := c.extensions[extension]
	return ok
}

func (c *Client) fail(why error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = why
	close(c.done)
	c.mu.Unlock()
	c.spawn(func() { _ = c.conn.Close() }) // blocks if the peer is frozen
}

// broken ends the client because of an answer that no honest peer gives.
func (c *Client) broken(format string, args ...any) error {
	c.fail(fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...)))
	return c.Err()
}

// watch ends the client when a request is without an answer for too long, and no
// other one gets one either: a slow line is not a frozen peer.
func (c *Client) watch() {
	ticker := time.NewTicker(c.timeout / 4)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case now := <-ticker.C:
			if c.overdue(now.Add(-c.timeout)) {
				c.fail(ErrFrozen)
			}
		}
	}
}

func (c *Client) overdue(limit time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.After(limit) {
		return false
	}
	for _, k := range c.pending {
		if k.since.Before(limit) {
			return true
		}
	}
	return false
}
