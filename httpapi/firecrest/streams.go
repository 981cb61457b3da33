package firecrest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"sallyport/httpapi/firecrest/scheduler"
	"sallyport/identity"
	"sallyport/internal/fair"
)

// Streaming says how clients reach streams: files that go through this service over a
// WebSocket. Clients know only addresses without TLS, so there are two: at the first one,
// the door, they are sent to the API's own, where the file goes.
type Streaming struct {
	// Hosts are the door's names or addresses, Port is its port.
	Hosts []string
	Port  int
	// URL is that of the API, as wss://host[:port].
	URL string
	// Wait is how long a client has to come.
	Wait time.Duration
	// MaxUpload bounds a file that comes in, in bytes.
	MaxUpload int64
	// AnyAddress lets a client come from another address than the request for the stream.
	AnyAddress bool
}

const (
	// streamKept is how long the end of a stream is told.
	streamKept = time.Hour
	// maxOpenStreams bounds the streams that are open, maxOpenStreamsOfOne those of one person.
	maxOpenStreams, maxOpenStreamsOfOne = 4096, 16
	// maxStreamEnds bounds the ends that are told, maxStreamEndsOfOne those of one person,
	// who loses the oldest to the next.
	maxStreamEnds, maxStreamEndsOfOne = 4096, 256
	// ticketLife is how long a client has to follow from the door to the API.
	ticketLife = 30 * time.Second
	// streamPrefix begins the id under which a stream is a job: those of schedulers begin
	// with a digit.
	streamPrefix = "stream-"
)

// The states of a stream are those of a job.
const (
	streamOpen      = "RUNNING" // also while the client is awaited: then he may come
	streamDone      = "COMPLETED"
	streamFailed    = "FAILED"
	streamCancelled = "CANCELLED"
	streamLapsed    = "TIMEOUT"
)

var errManyStreams = &failure{
	status: http.StatusTooManyRequests, retry: 10, code: "busy", message: "You have too many transfers open. Nothing was done.",
}

// A fileStream is a file on its way, or the offer to bring or fetch one.
type fileStream struct {
	id     string
	caller identity.Identity
	system *system
	file   place
	upload bool
	source string
	job    transferView
	begun  time.Time

	// What follows is guarded by streams.mu.
	secret string    // that the client brings to the door, then to the API; "" once he has come
	until  time.Time // the end of the offer
	state  string
	cause  string
	ended  time.Time
	cancel context.CancelFunc // of the transfer, once it is under way
}

// streams are those of a handler.
type streams struct {
	mu   sync.Mutex                        // guards what follows, and the streams' own parts
	open map[string]*fileStream            // by id
	keys map[[sha256.Size]byte]*fileStream // those whose clients are awaited, by the digest of the secret
	each map[person]int                    // how many are open
	ends fair.Table[person, string, *fileStream]
	// swept is when offers that nobody took were last looked for.
	swept time.Time
}

func noStreams() *streams {
	return &streams{
		open: make(map[string]*fileStream), keys: make(map[[sha256.Size]byte]*fileStream), each: make(map[person]int),
		ends: fair.Table[person, string, *fileStream]{Most: maxStreamEnds, Each: maxStreamEndsOfOne},
	}
}

// offer remembers a stream that waits for its client.
func (t *streams) offer(s *fileStream, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now)
	if t.each[personOf(s.caller)] >= maxOpenStreamsOfOne || len(t.open) >= maxOpenStreams {
		return errManyStreams
	}
	s.state = streamOpen
	t.open[s.id] = s
	t.each[personOf(s.caller)]++
	t.awaitLocked(s, s.secret)
	return nil
}

// sweepLocked ends offers that nobody took, once a second.
func (t *streams) sweepLocked(now time.Time) {
	const pause = time.Second
	if now.Sub(t.swept) < pause {
		return
	}
	t.swept = now
	for _, s := range t.open {
		t.lapseLocked(s, now)
	}
}

// awaitLocked has a stream wait for a secret in place of the one before.
func (t *streams) awaitLocked(s *fileStream, secret string) {
	delete(t.keys, sha256.Sum256([]byte(s.secret)))
	s.secret = secret
	if secret != "" {
		t.keys[sha256.Sum256([]byte(secret))] = s
	}
}

// lapseLocked ends an offer that nobody took.
func (t *streams) lapseLocked(s *fileStream, now time.Time) {
	if s.state == streamOpen && s.secret != "" && !now.Before(s.until) {
		t.endLocked(s, streamLapsed, "nobody came in time", s.until)
	}
}

// endLocked ends a stream that is open, and keeps its end at the expense of its owner's others.
func (t *streams) endLocked(s *fileStream, state, cause string, now time.Time) {
	t.awaitLocked(s, "")
	s.state, s.cause, s.ended = state, cause, now
	p := personOf(s.caller)
	delete(t.open, s.id)
	if t.each[p]--; t.each[p] == 0 {
		delete(t.each, p)
	}
	t.ends.Put(p, s.id, s, time.Now(), now.Add(streamKept))
}

// admit takes a stream's secret at the door, and gives the ticket that stands for it from
// then on; "" if there is no such stream.
func (t *streams) admit(secret, source string) (ticket string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	s := t.awaited(secret, source, now)
	if s == nil {
		return ""
	}
	t.awaitLocked(s, randomName())
	if end := now.Add(ticketLife); end.Before(s.until) {
		s.until = end
	}
	return s.secret
}

// enter takes a ticket: the client has come, and cancel ends what follows.
func (t *streams) enter(ticket, source string, cancel context.CancelFunc) *fileStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.awaited(ticket, source, time.Now())
	if s != nil {
		t.awaitLocked(s, "")
		s.cancel = cancel
	}
	return s
}

// awaited is the stream whose client brings a secret, or nil; t.mu is held. How long the
// search takes tells of digests, and so nothing of secrets.
func (t *streams) awaited(secret, source string, now time.Time) *fileStream {
	s := t.keys[sha256.Sum256([]byte(secret))]
	if s == nil {
		return nil
	}
	t.lapseLocked(s, now)
	if s.secret == "" || s.source != "" && s.source != source {
		return nil
	}
	return s
}

// finish says how a stream ended. One that was cancelled stays so.
func (t *streams) finish(s *fileStream, state, cause string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.state == streamOpen {
		t.endLocked(s, state, cause, time.Now())
	}
}

// stop ends a stream for its owner.
func (t *streams) stop(s *fileStream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lapseLocked(s, time.Now())
	if s.state != streamOpen {
		return
	}
	t.endLocked(s, streamCancelled, "cancelled by its owner", time.Now())
	if s.cancel != nil {
		s.cancel()
	}
}

// find returns a person's stream on a system.
func (t *streams) find(p person, on *system, id string) *fileStream {
	if !strings.HasPrefix(id, streamPrefix) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.open[id]
	if s == nil {
		s, _ = t.ends.Get(id, time.Now())
	}
	if s == nil || s.system != on || personOf(s.caller) != p {
		return nil
	}
	return s
}

// view is the stream as a job.
func (t *streams) view(s *fileStream) scheduler.Job {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lapseLocked(s, now)
	begun, last := s.begun.Unix(), now
	j := scheduler.Job{
		ID: s.id, Name: "OutgressFileTransfer", Status: scheduler.Status{State: s.state, StateReason: optional(s.cause)}, Tasks: []scheduler.Task{},
		Time: scheduler.Times{Start: &begun}, User: new(s.caller.Login()), WorkingDirectory: s.job.WorkingDirectory, Cluster: s.system.Name,
	}
	if s.upload {
		j.Name = "IngressFileTransfer"
	}
	if s.state != streamOpen {
		last = s.ended
		ended, exit := s.ended.Unix(), int64(0)
		if s.state != streamDone {
			exit = 1
		}
		j.Time.End, j.Status.ExitCode = &ended, &exit
	}
	elapsed := int64(last.Sub(s.begun).Seconds())
	j.Time.Elapsed = &elapsed
	return j
}

// coordinates are what the client needs to come.
func (o Streaming) coordinates(secret string) (string, error) {
	text, err := json.Marshal(map[string]any{"ports": [2]int{o.Port, o.Port}, "ips": o.Hosts, "secret": secret})
	return base64.URLEncoding.EncodeToString(text), err
}
