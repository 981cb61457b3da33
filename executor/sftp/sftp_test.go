package sftp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sallyport/executor/sftp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A peer answers requests as a test says.
type peer struct {
	net.Conn
	t      *testing.T
	mu     sync.Mutex
	kinds  []byte // of the requests so far
	answer func(kind byte, id uint32, body []byte) []byte
}

// packet makes a packet of a type, a number and fields: uint32, uint64, string.
func packet(kind byte, id uint32, fields ...any) []byte {
	b := []byte{0, 0, 0, 0, kind}
	b = binary.BigEndian.AppendUint32(b, id)
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(f))
		case uint64:
			b = binary.BigEndian.AppendUint64(b, f)
		case string:
			b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
			b = append(b, f...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

const (
	opendir, readdir, open, closing, read, write, stat = 11, 12, 3, 4, 5, 6, 17
	status, handle, data, name, attrs                  = 101, 102, 103, 104, 105
)

// connect returns a client of a peer that answers by answer; nil answers nothing.
func connect(t *testing.T, answer func(kind byte, id uint32, body []byte) []byte) (*sftp.Client, *peer) {
	t.Helper()
	near, far := net.Pipe()
	p := &peer{Conn: far, t: t, answer: answer}
	go p.serve()
	c, err := sftp.New(t.Context(), near, sftp.Options{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, p
}

func (p *peer) serve() {
	defer p.Close()
	for {
		var head [9]byte
		if _, err := io.ReadFull(p, head[:]); err != nil {
			return
		}
		kind, id := head[4], binary.BigEndian.Uint32(head[5:])
		body := make([]byte, binary.BigEndian.Uint32(head[:])-5)
		if _, err := io.ReadFull(p, body); err != nil {
			return
		}
		reply := packet(2, 3)
		if kind != 1 {
			p.mu.Lock()
			p.kinds = append(p.kinds, kind)
			p.mu.Unlock()
			reply = p.answer(kind, id, body)
		}
		if _, err := p.Write(reply); err != nil {
			return
		}
	}
}

func (p *peer) count(kind byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Count(p.kinds, []byte{kind})
}

func TestAHostilePeerEndsTheClient(t *testing.T) {
	t.Parallel()
	statIt := func(c *sftp.Client) error { _, err := c.Stat(context.Background(), "x"); return err }
	list := func(c *sftp.Client) error {
		return c.List(context.Background(), "x", func(sftp.Name) error { return nil })
	}
	readIt := func(c *sftp.Client) error {
		_, err := c.ReadRange(context.Background(), "h", 0, 1<<20, func([]byte) error { return nil })
		return err
	}
	writeIt := func(c *sftp.Client) error {
		_, err := c.WriteRange(context.Background(), "h", 0, func() ([]byte, error) { return []byte("x"), nil })
		return err
	}
	openIt := func(c *sftp.Client) error {
		_, err := c.Open(context.Background(), "x", sftp.Read, sftp.Attrs{})
		return err
	}
	link := func(c *sftp.Client) error { _, err := c.ReadLink(context.Background(), "x"); return err }
	names := func(kind byte, id uint32, entries ...any) []byte {
		if kind == opendir {
			return packet(handle, id, "h")
		}
		return packet(name, id, entries...)
	}
	for what, test := range map[string]struct {
		call   func(*sftp.Client) error
		answer func(kind byte, id uint32, body []byte) []byte
	}{
		"another number":            {statIt, func(_ byte, id uint32, _ []byte) []byte { return packet(attrs, id+1, 0) }},
		"another type":              {statIt, func(_ byte, id uint32, _ []byte) []byte { return packet(handle, id, "h") }},
		"success without a value":   {statIt, func(_ byte, id uint32, _ []byte) []byte { return packet(status, id, 0, "", "") }},
		"a packet of 4 GiB":         {statIt, func(byte, uint32, []byte) []byte { return []byte{255, 255, 255, 255, 1, 2, 3, 4, 5} }},
		"a packet of 257 KiB":       {statIt, func(byte, uint32, []byte) []byte { return []byte{0, 4, 4, 0, 1, 2, 3, 4, 5} }},
		"an empty packet":           {statIt, func(byte, uint32, []byte) []byte { return make([]byte, 16) }},
		"attributes cut short":      {statIt, func(_ byte, id uint32, _ []byte) []byte { return packet(attrs, id, 15, 1) }},
		"endless extensions":        {statIt, func(_ byte, id uint32, _ []byte) []byte { return packet(attrs, id, 1<<31, 1<<31) }},
		"a handle of 257 bytes":     {openIt, func(_ byte, id uint32, _ []byte) []byte { return packet(handle, id, strings.Repeat("h", 257)) }},
		"a text beyond its end":     {openIt, func(_ byte, id uint32, _ []byte) []byte { return packet(handle, id, 1000) }},
		"names without an end":      {list, func(k byte, id uint32, _ []byte) []byte { return names(k, id, 0) }},
		"a billion names":           {list, func(k byte, id uint32, _ []byte) []byte { return names(k, id, 1<<30) }},
		"a name with a slash":       {list, func(k byte, id uint32, _ []byte) []byte { return names(k, id, 1, "../x", "", 0) }},
		"a name with NUL":           {list, func(k byte, id uint32, _ []byte) []byte { return names(k, id, 1, "a\x00", "", 0) }},
		"no name":                   {list, func(k byte, id uint32, _ []byte) []byte { return names(k, id, 1, "", "", 0) }},
		"two targets":               {link, func(_ byte, id uint32, _ []byte) []byte { return packet(name, id, 2, "a", "", 0, "b", "", 0) }},
		"more data than wanted":     {readIt, func(_ byte, id uint32, _ []byte) []byte { return packet(data, id, strings.Repeat("d", 32769)) }},
		"no data":                   {readIt, func(_ byte, id uint32, _ []byte) []byte { return packet(data, id, "") }},
		"an end of what is written": {writeIt, func(_ byte, id uint32, _ []byte) []byte { return packet(status, id, 1, "", "") }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, _ := connect(t, test.answer)
			if err := test.call(c); !errors.Is(err, sftp.ErrProtocol) {
				t.Errorf("got %v", err)
			}
			<-c.Done()
			if err := statIt(c); !errors.Is(err, sftp.ErrProtocol) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestAPeerThatIsNoSFTP(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		says string
		want error
	}{
		"a greeting":        {"Welcome to the machine.\n", sftp.ErrProtocol},
		"an old version":    {string(packet(2, 2)), sftp.ErrProtocol},
		"another packet":    {string(packet(101, 3)), sftp.ErrProtocol},
		"half an extension": {string(packet(2, 3, "a", 17)), sftp.ErrProtocol},
		"nothing":           {"", sftp.ErrClosed},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				_, _ = far.Read(make([]byte, 9))
				_, _ = io.WriteString(far, test.says)
			}()
			if _, err := sftp.New(t.Context(), near, sftp.Options{}); !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A listing that never ends is handed on, and ends when its reader has enough.
func TestAnEndlessListingTakesNoMemory(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 200)
	c, p := connect(t, func(kind byte, id uint32, _ []byte) []byte {
		if kind != readdir {
			return packet(handle, id, "h")
		}
		entries := []any{100}
		for range 100 {
			entries = append(entries, long, long, 0)
		}
		return packet(name, id, entries...)
	})
	enough, seen := errors.New("enough"), 0
	err := c.List(t.Context(), "x", func(sftp.Name) error {
		if seen++; seen == 50_000 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || p.count(readdir) > 502 {
		t.Errorf("%v after %d entries and %d requests", err, seen, p.count(readdir))
	}
}

func TestCallsEndWithTheirContextWhenThePeerIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, func(kind byte, id uint32, _ []byte) []byte { return nil })
		begin := time.Now()
		var wg sync.WaitGroup
		for range 3 * sftp.MaxRequests {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := c.Stat(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took != time.Second || p.count(stat) != sftp.MaxRequests {
			t.Errorf("took %v, %d requests were sent", took, p.count(stat))
		}
		// They stay without an answer, so that the client gives up.
		<-c.Done()
		if took := time.Since(begin); !errors.Is(c.Err(), sftp.ErrFrozen) || took > 90*time.Second {
			t.Errorf("%v after %v", c.Err(), took)
		}
	})
}

func TestAHandleThatComesTooLateIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := connect(t, func(kind byte, id uint32, _ []byte) []byte {
			if kind == open {
				time.Sleep(10 * time.Second)
				return packet(handle, id, "h")
			}
			return packet(status, id, 0, "", "")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Open(ctx, "x", sftp.Read, sftp.Attrs{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := p.count(closing); n != 1 || c.Err() != nil {
			t.Errorf("%d handles were closed, %v", n, c.Err())
		}
	})
}

// A server may give less than was asked for, and in pieces of any size.
func TestReadsThatAreCutShortAreCompleted(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	turn := 0
	c, _ := connect(t, func(_ byte, id uint32, body []byte) []byte {
		offset := int(binary.BigEndian.Uint64(body[5:])) // after the handle "h"
		size := int(binary.BigEndian.Uint32(body[13:]))
		if offset >= len(content) {
			return packet(status, id, 1, "", "")
		}
		turn++
		size = min(size, len(content)-offset, 1+turn*7919%40_000)
		return packet(data, id, string(content[offset:offset+size]))
	})
	var got bytes.Buffer
	n, err := c.ReadRange(t.Context(), "h", 5, 1<<62, func(p []byte) error { got.Write(p); return nil })
	if err != nil || n != int64(len(content)-5) || !bytes.Equal(got.Bytes(), content[5:]) {
		t.Errorf("%d of %d bytes, %v", n, len(content)-5, err)
	}
}

// A large transfer has few packets before the peer, so that a small request is soon
// answered.
func TestATransferLeavesRoomForSmallRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 10 * time.Millisecond
		c, _ := connect(t, func(kind byte, id uint32, body []byte) []byte {
			time.Sleep(each)
			if kind == read {
				return packet(data, id, strings.Repeat("d", int(binary.BigEndian.Uint32(body[13:]))))
			}
			return packet(attrs, id, 0)
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, _ = c.ReadRange(ctx, "h", 0, 1<<40, func([]byte) error { return nil })
			})
		}
		time.Sleep(time.Minute)
		begin := time.Now()
		if _, err := c.Stat(ctx, "x"); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 40*each {
			t.Errorf("a small request took %v beside 100 transfers", took)
		}
		cancel()
		wg.Wait()
		c.Close()
		time.Sleep(each) // the peer's last answer
	})
}

func FuzzPeer(f *testing.F) {
	f.Add(append(packet(2, 3, "posix-rename@openssh.com", "1"), packet(handle, 1, "h")...))
	f.Add(append(packet(2, 3), append(packet(handle, 1, "h"), packet(name, 2, 1, "a", "-rw", 15, uint64(7), 1, 2, 3, 4, 5)...)...))
	f.Add(append(packet(2, 3), packet(status, 1, 4, "Failure", "en")...))
	f.Fuzz(func(t *testing.T, says []byte) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		go func() {
			defer far.Close()
			_, _ = far.Write(says)
		}()
		c, err := sftp.New(t.Context(), near, sftp.Options{})
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.List(t.Context(), "x", func(n sftp.Name) error { // whatever comes of it
			if n.Name == "" || n.Name == "." || n.Name == ".." || strings.ContainsAny(n.Name, "/\x00") {
				t.Errorf("name %q", n.Name)
			}
			return nil
		})
		_, _ = c.Stat(t.Context(), "x")
		_, _, _ = c.Names(t.Context(), []uint32{1}, []uint32{2})
		_, _ = c.Space(t.Context(), "x")
	})
}
