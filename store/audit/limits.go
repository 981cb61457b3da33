package audit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/fair"
)

// Limits keep the log from being filled by anybody. They hold for events of people; what
// administrators do, the service itself does, and the ends of acts that were done are always recorded.
type Limits struct {
	// BytesPerMinute is what the records of one person may have, and of one address
	// for tokens that were refused; after a rest there is a minute's worth at once. 0: any number.
	BytesPerMinute int64
	// Reserve is how much of the file system is kept for administrators, in bytes, and
	// MaxTotal how much all files of the log may have before people's acts are refused; 0: any.
	Reserve, MaxTotal int64
}

// ErrShare is wrapped by every [*ShareError].
var ErrShare = errors.New("share of the audit log is used up")

// A ShareError refuses an act whose record would be more than its person's part of the
// log. Nothing is wrong with the log.
type ShareError struct {
	// RetryAfter is when there is room for this record.
	RetryAfter time.Duration
}

// Error says until when.
func (e *ShareError) Error() string { return fmt.Sprintf("%v for %s", ErrShare, e.RetryAfter) }

// Unwrap returns ErrShare.
func (e *ShareError) Unwrap() error { return ErrShare }

// errNoRoom is ErrUnavailable for people, while administrators go on.
var errNoRoom = errors.New("its room is used up but for what is kept for administrators")

// limits are those of a log at work.
type limits struct {
	Limits
	dir  string
	each *fair.Buckets[payer] // nil: any number of bytes

	mu      sync.Mutex // guards what follows
	looked  time.Time
	noRoom  error
	counted time.Time
	total   int64 // of the files, when they were last counted
}

// A payer is whose part of the log a record is of: a person, or an address if there is none.
type payer struct{ issuer, subject, address string }

func newLimits(l Limits, dir string) *limits {
	limited := &limits{Limits: l, dir: dir}
	if l.BytesPerMinute > 0 {
		limited.each = fair.NewBuckets[payer](float64(l.BytesPerMinute)/time.Minute.Seconds(), float64(l.BytesPerMinute))
	}
	return limited
}

// payerOf is nobody for what administrators and the service itself do.
func payerOf(r Request, e Event) (payer, bool) {
	switch {
	case e.Action == AdminAct:
		return payer{}, false
	case e.Issuer != "" || e.Subject != "":
		return payer{issuer: e.Issuer, subject: e.Subject}, true
	}
	address, err := netip.ParseAddr(r.SourceIP)
	if err != nil {
		return payer{}, false
	}
	bits := 64 // RFC 6177: a site has at least that many addresses
	if address = address.Unmap(); address.Is4() {
		bits = 32
	}
	network, _ := address.WithZone("").Prefix(bits) // it has so many bits
	return payer{address: network.Addr().String()}, true
}

// isEnd is true for what was done already.
func isEnd(a Action) bool { return a == ExecEnd || a == FileEnd || a == CertificateIssued }

// admit says whether an event of so many bytes may be recorded.
func (l *limits) admit(r Request, e Event, size int64) error {
	who, ok := payerOf(r, e)
	if !ok {
		return nil
	}
	now := time.Now()
	if isEnd(e.Action) {
		if l.each != nil {
			l.each.Spend(who, float64(size), now)
		}
		return nil
	}
	if err := l.room(now); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if l.each == nil {
		return nil
	}
	if wait := l.each.Take(who, float64(size), now); wait > 0 {
		return &ShareError{RetryAfter: wait}
	}
	return nil
}

const (
	// roomEvery is how often the free room is looked at, totalEvery how often the files are counted.
	roomEvery, totalEvery = time.Second, 10 * time.Second
)

// room says whether there is room for people's records.
func (l *limits) room(now time.Time) error {
	if l.Reserve == 0 && l.MaxTotal == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.looked) < roomEvery {
		return l.noRoom
	}
	l.looked, l.noRoom = now, l.lookLocked(now)
	return l.noRoom
}

func (l *limits) lookLocked(now time.Time) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(l.dir, &fs); err != nil {
		return err
	}
	if free := int64(min(fs.Bavail, 1<<40)) * fs.Bsize; free < l.Reserve {
		return fmt.Errorf("%w: %d bytes are free, %d are kept", errNoRoom, free, l.Reserve)
	}
	if l.MaxTotal == 0 {
		return nil
	}
	if now.Sub(l.counted) >= totalEvery {
		total, err := sizeOfFiles(l.dir)
		if err != nil {
			return err
		}
		l.counted, l.total = now, total
	}
	if l.total > l.MaxTotal {
		return fmt.Errorf("%w: the files have %d bytes, %d are allowed", errNoRoom, l.total, l.MaxTotal)
	}
	return nil
}

// sizeOfFiles is how much the files of a log have.
func sizeOfFiles(dir string) (total int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".jsonl") {
			continue
		}
		if info, err := e.Info(); err == nil { // else it was moved away just now
			total += info.Size()
		}
	}
	return total, nil
}

// Overdrawn says whether people's acts are refused for want of room.
func (l *Log) Overdrawn(context.Context) error { return l.limits.room(time.Now()) }
