package firecrest

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"sallyport/httpapi/firecrest/scheduler"
	"sallyport/identity"
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
	// maxStreams bounds what is remembered, maxStreamsOfOne what a person can have open.
	maxStreams, maxStreamsOfOne = 4096, 16
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

// streams are those of a handler. The zero value has none.
type streams struct {
	mu  sync.Mutex // guards all, and the streams' own parts
	all map[string]*fileStream
}

// offer remembers a stream that waits for its client.
func (t *streams) offer(s *fileStream, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	open := 0
	for id, other := range t.all {
		other.lapse(now)
		if other.state != streamOpen && now.Sub(other.ended) > streamKept {
			delete(t.all, id)
		}
		if other.state == streamOpen && personOf(other.caller) == personOf(s.caller) {
			open++
		}
	}
	if open >= maxStreamsOfOne || len(t.all) >= maxStreams {
		return errManyStreams
	}
	if t.all == nil {
		t.all = make(map[string]*fileStream)
	}
	s.state = streamOpen
	t.all[s.id] = s
	return nil
}

// lapse ends an offer that nobody took.
func (s *fileStream) lapse(now time.Time) {
	if s.state == streamOpen && s.secret != "" && !now.Before(s.until) {
		s.end(streamLapsed, "nobody came in time", s.until)
	}
}

func (s *fileStream) end(state, cause string, now time.Time) {
	s.secret, s.state, s.cause, s.ended = "", state, cause, now
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
	s.secret = randomName()
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
		s.secret, s.cancel = "", cancel
	}
	return s
}

// awaited is the stream whose client brings a secret, or nil; t.mu is held.
func (t *streams) awaited(secret, source string, now time.Time) *fileStream {
	for _, s := range t.all {
		s.lapse(now)
		if s.secret != "" && subtle.ConstantTimeCompare([]byte(s.secret), []byte(secret)) == 1 && (s.source == "" || s.source == source) {
			return s
		}
	}
	return nil
}

// finish says how a stream ended. One that was cancelled stays so.
func (t *streams) finish(s *fileStream, state, cause string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.state == streamOpen {
		s.end(state, cause, time.Now())
	}
}

// stop ends a stream for its owner.
func (t *streams) stop(s *fileStream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.lapse(time.Now())
	if s.state != streamOpen {
		return
	}
	s.end(streamCancelled, "cancelled by its owner", time.Now())
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
	s := t.all[id]
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
	s.lapse(now)
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
