package ship

import (
	"bytes"
	"context"
	"time"

	"sallyport/store/audit"
)

const (
	// maxLines and maxBytes bound what is sent at a time.
	maxLines = 256
	maxBytes = 1 << 20
	// confirmBytes is how much may be sent until it is confirmed.
	confirmBytes = 8 << 20
	// maxStretches bounds what is remembered of confirmed stretches; with more, two
	// count as one.
	maxStretches = 64
)

// A stretch is what was sent between two confirmations.
type stretch struct {
	end       audit.Mark
	bytes     int64
	began     time.Time // when its first event was sent
	oldest    time.Time // of its first event
	confirmed time.Time
}

// A session reads on from what is safe, sends, and has it confirmed.
type session struct {
	d      *destination
	reader *audit.Reader
	link   link
	// open is sent and not confirmed; waiting is confirmed, and becomes safe after
	// Target.resend.
	open    stretch
	waiting []stretch
}

func (s *session) close() {
	_ = s.reader.Close() // it was only read
	if s.link != nil {
		s.link.close()
	}
}

// read returns the next events, none if there are none yet.
func (s *session) read() ([]audit.Line, error) {
	var batch []audit.Line
	for size := 0; len(batch) < maxLines && size < maxBytes; {
		line, ok, err := s.reader.Next()
		if err != nil && len(batch) == 0 {
			return nil, err
		}
		if err != nil || !ok {
			break // an error comes again
		}
		line.Text = bytes.Clone(line.Text)
		size += len(line.Text)
		batch = append(batch, line)
	}
	return batch, nil //nolint:nilerr // see above
}

func (s *session) send(ctx context.Context, batch []audit.Line) error {
	if s.open.bytes == 0 {
		s.open.began, s.open.oldest = time.Now(), batch[0].Time
		s.note()
	}
	if s.link == nil {
		var err error
		if s.link, err = s.d.target.open(ctx); err != nil {
			return err
		}
	}
	if err := s.link.send(ctx, batch); err != nil {
		return err
	}
	s.d.sent.Add(uint64(len(batch)))
	s.open.end = batch[len(batch)-1].Mark
	for _, line := range batch {
		s.open.bytes += int64(len(line.Text)) + 1
	}
	return nil
}

// settle has the open stretch confirmed when it is time, or now, and makes safe what
// was confirmed long enough ago.
func (s *session) settle(ctx context.Context, now bool) error {
	due := s.open.bytes > 0 && (now || s.open.bytes >= confirmBytes || time.Since(s.open.began) >= s.d.target.confirmEvery)
	if due {
		if err := s.link.confirm(ctx); err != nil {
			return err
		}
		s.d.works(ctx)
		s.open.confirmed = time.Now()
		s.waiting = append(s.waiting, s.open)
		if n := len(s.waiting); n > maxStretches {
			s.waiting[n-1].bytes += s.waiting[n-2].bytes
			s.waiting[n-1].oldest = s.waiting[n-2].oldest
			s.waiting = append(s.waiting[:n-2], s.waiting[n-1])
		}
		s.open = stretch{}
	}
	for len(s.waiting) > 0 && time.Since(s.waiting[0].confirmed) >= s.d.target.resend {
		first := s.waiting[0]
		s.waiting = s.waiting[1:]
		if err := s.d.advance(first.end, first.bytes, s.oldest()); err != nil {
			return err
		}
	}
	return nil
}

// oldest is the time of the first event that is not safe.
func (s *session) oldest() time.Time {
	if len(s.waiting) > 0 {
		return s.waiting[0].oldest
	}
	return s.open.oldest
}

func (s *session) note() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.oldest = s.oldest()
}

// wait returns when there is something to do. It fails when the link breaks while
// something depends on it.
func (s *session) wait(ctx context.Context, stopping <-chan struct{}) error {
	var broken <-chan struct{}
	if s.link != nil {
		broken = s.link.broken()
	}
	var timer <-chan time.Time
	if next := s.next(); next >= 0 {
		timer = time.After(next)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-stopping:
	case <-s.d.wake:
	case <-timer:
		if len(s.waiting) == 0 && s.open.bytes == 0 {
			return s.d.writeCursor()
		}
	case <-broken:
		if len(s.waiting) > 0 || s.open.bytes > 0 {
			return fail(Broken, "the receiver ended the connection")
		}
		s.link.close() // the receiver has all, and needs no connection
		s.link = nil
	}
	return nil
}

// next is when a stretch has to be confirmed, or becomes safe, or the cursor has to be
// written; negative if nothing has to be done.
func (s *session) next() time.Duration {
	next := time.Duration(-1)
	at := func(t time.Time) {
		if d := max(0, time.Until(t)); next < 0 || d < next {
			next = d
		}
	}
	if s.open.bytes > 0 {
		at(s.open.began.Add(s.d.target.confirmEvery))
	}
	if len(s.waiting) > 0 {
		at(s.waiting[0].confirmed.Add(s.d.target.resend))
	}
	if next < 0 && *s.d.safe.Load() != s.d.written {
		at(s.d.writtenAt.Add(cursorEvery))
	}
	return next
}
