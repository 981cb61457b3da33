package ship

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/store/audit"
)

// SyslogConfig is a receiver of syslog messages (RFC 5424) over TLS (RFC 5425).
type SyslogConfig struct {
	Name string
	// Address is host:port; RFC 5425 has port 6514.
	Address string
	TLS     TLSConfig
	// Plain sends without TLS (RFC 6587), to a loopback address only.
	Plain bool
	// Facility is 10 (authpriv) or 13 (log audit).
	Facility int
	// MaxMessage is the largest message that the receiver takes whole, at least 2048; a
	// larger event goes in parts. RFC 5425 section 4.3.1 wants 8192 of a receiver.
	MaxMessage int
	// ConfirmEvery and Resend: see [Syslog].
	ConfirmEvery, Resend time.Duration
	// AnyEnd takes the bare end of a TCP connection for an answer; see [Syslog].
	AnyEnd bool
}

const (
	dialTime  = 10 * time.Second
	writeTime = 30 * time.Second
	endTime   = 10 * time.Second
)

// Syslog returns a target for a receiver of syslog messages.
//
// The protocol has no acknowledgement: what TCP took may still be lost with the
// receiver. But it has an end: RFC 5425 section 4.4 has the sender close with a
// close_notify, and the receiver answer with its own. A receiver that answers, and
// whose TCP connection then ends without a reset (Linux resets one that has bytes
// nobody has read), has read everything before. So each stretch of up to ConfirmEvery
// or 8 MiB ends its connection, while the next one stands already, and counts as
// confirmed by that. What the receiver had read but kept in memory is covered by
// Resend: events confirmed so lately are sent again when a connection breaks.
//
// Some receivers (rsyslog with its gtls driver) end without a close_notify. With AnyEnd
// that will do; whoever is on the way can then forge an end, and so withhold events.
func Syslog(cfg SyslogConfig) (Target, error) {
	host, _, err := net.SplitHostPort(cfg.Address)
	switch {
	case err != nil:
		return Target{}, fmt.Errorf("syslog %q: %w", cfg.Name, err)
	case cfg.Plain && !loopback(host):
		return Target{}, fmt.Errorf("syslog %q: %q is not a loopback address: audit events go elsewhere by TLS only", cfg.Name, host)
	case cfg.MaxMessage < 2048:
		return Target{}, fmt.Errorf("syslog %q: messages of %d bytes, at least 2048 are needed", cfg.Name, cfg.MaxMessage)
	}
	name, err := os.Hostname()
	if err != nil {
		return Target{}, err
	}
	d := &dialer{cfg: cfg, host: host, format: format{facility: cfg.Facility, host: name, process: os.Getpid(), most: cfg.MaxMessage}}
	return Target{Name: cfg.Name, kind: "syslog", open: d.open, confirmEvery: cfg.ConfirmEvery, resend: cfg.Resend}, nil
}

type dialer struct {
	cfg    SyslogConfig
	host   string
	format format
}

// open connects. With TLS it checks the receiver's name.
func (d *dialer) open(ctx context.Context) (link, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &syslogLink{dialer: d, conn: c}, nil
}

func (d *dialer) dial(ctx context.Context) (*ending, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := (&net.Dialer{Control: impatient}).DialContext(ctx, "tcp", d.cfg.Address)
	if err != nil {
		return nil, fail(Unreachable, "%w", err)
	}
	c := &ending{raw: raw, Conn: raw, ended: make(chan struct{})}
	if !d.cfg.Plain {
		settings, err := d.cfg.TLS.load(d.host)
		if err != nil {
			return nil, errors.Join(fail(Local, "%w", err), raw.Close())
		}
		secure := tls.Client(watched{raw, &c.end}, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			kind := Unreachable
			if tlsProblem(err) {
				kind = Insecure
			}
			return nil, errors.Join(fail(kind, "%q: %w", d.cfg.Address, err), raw.Close())
		}
		c.Conn, c.secure = secure, secure
	}
	go c.await()
	return c, nil
}

// impatient has the kernel give up a connection whose peer does not acknowledge.
func impatient(_, _ string, raw syscall.RawConn) error {
	var err error
	return errors.Join(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTime.Milliseconds()))
	}), err)
}

// syslogLink sends over a connection until that is to be confirmed, then over the next.
type syslogLink struct {
	dialer *dialer
	conn   *ending
	buf    []byte
}

func (l *syslogLink) send(_ context.Context, lines []audit.Line) error {
	l.buf = l.buf[:0]
	for _, line := range lines {
		l.buf = l.dialer.format.appendFrames(l.buf, line)
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return fail(Broken, "%w", err)
	}
	if _, err := l.conn.Write(l.buf); err != nil {
		return fail(Broken, "%w", err)
	}
	return nil
}

// confirm ends the connection while the next one stands, so that none of the receiver's
// breaks goes unnoticed.
func (l *syslogLink) confirm(ctx context.Context) error {
	next, err := l.dialer.dial(ctx)
	if err != nil {
		return err
	}
	if err := l.conn.finish(l.dialer.cfg.AnyEnd || l.dialer.cfg.Plain); err != nil {
		next.close()
		return err
	}
	l.conn = next
	return nil
}

func (l *syslogLink) broken() <-chan struct{} { return l.conn.ended }

func (l *syslogLink) close() { l.conn.close() }
