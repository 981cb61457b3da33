package audit

import (
	"crypto/sha256"
	"maps"
	"strconv"
	"sync"
	"time"
)

const (
	// repeatTime is for how long the same refusal is counted in place of being recorded again.
	repeatTime = time.Minute
	// maxRepeats bounds the refusals that are watched for it, maxRepeatsOfOne those of one
	// person or address. One more is recorded like any event.
	maxRepeats, maxRepeatsOfOne = 10_000, 64
)

// repeats count refusals that come again and again from one person or address: the
// first is recorded, and after a minute how often it came since.
type repeats struct {
	record func(Request, Event) // of a count

	mu   sync.Mutex // guards what follows
	seen map[[sha256.Size]byte]*repeat
	each map[payer]int
}

type repeat struct {
	payer payer
	event Event
	r     Request
	times int
	timer *time.Timer
}

func newRepeats(record func(Request, Event)) *repeats {
	return &repeats{record: record, seen: make(map[[sha256.Size]byte]*repeat), each: make(map[payer]int)}
}

// counted says whether an event was counted, so that it needs no record.
func (s *repeats) counted(r Request, e Event) bool {
	switch e.Action {
	case TokenRefused, CallDenied, CertificateRefused:
	default:
		return false
	}
	who, ok := payerOf(r, e)
	if !ok {
		return false
	}
	text, err := membersOf(Request{SourceIP: r.SourceIP}, e)
	if err != nil {
		return false
	}
	key := sha256.Sum256(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.seen[key]; known != nil {
		known.times++
		return true
	}
	if len(s.seen) < maxRepeats && s.each[who] < maxRepeatsOfOne {
		known := &repeat{payer: who, event: e, r: r}
		known.timer = time.AfterFunc(repeatTime, func() { s.forget(key) })
		s.seen[key] = known
		s.each[who]++
	}
	return false
}

// forget ends the count of a refusal, and has it recorded.
func (s *repeats) forget(key [sha256.Size]byte) {
	s.mu.Lock()
	known := s.seen[key]
	if known == nil {
		s.mu.Unlock()
		return
	}
	known.timer.Stop()
	delete(s.seen, key)
	if s.each[known.payer]--; s.each[known.payer] == 0 {
		delete(s.each, known.payer)
	}
	s.mu.Unlock()
	if known.times == 0 {
		return
	}
	detail := map[string]string{"repeated": strconv.Itoa(known.times)}
	maps.Copy(detail, known.event.Detail)
	known.event.Detail = detail
	s.record(known.r, known.event)
}

// end has all counts recorded.
func (s *repeats) end() {
	s.mu.Lock()
	keys := make([][sha256.Size]byte, 0, len(s.seen))
	for key := range s.seen {
		keys = append(keys, key)
	}
	s.mu.Unlock()
	for _, key := range keys {
		s.forget(key)
	}
}
