package credential

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"sallyport/ca/krl"
)

const (
	// followWait is how long the CA is asked to hold a request back while nothing
	// changes (RFC 7240 §4.3).
	followWait = 30 * time.Second
	// followPause is the time between two requests to a CA that does not hold back.
	followPause = 5 * time.Second
	// followLeast is the least time from one request to the next, whatever the CA says
	// about holding back: one that lies, or whose proxy answers in its place, must not
	// have us ask without a pause.
	followLeast = 250 * time.Millisecond
	// followRetry and followRetryMax bound the pause after a failure.
	followRetry, followRetryMax = time.Second, 30 * time.Second
)

// errOldList says that a mirror, or whoever answers in the CA's place, brings back an older list: it would let in again whom the CA
// has revoked since. A CA that was restored from a backup begins above all versions before.
var errOldList = errors.New("the list is older than the last one")

// FollowConfig says whose revocations are followed.
type FollowConfig struct {
	// URL is where the CA serves its revocation list: of a Sallyport, its base and
	// "/v1/ca/revoked-keys".
	URL string
	// AllowHTTP and TLSRoots are as in [ServiceConfig]. Whoever can change the answer
	// can hide revocations, or end sessions.
	AllowHTTP bool
	TLSRoots  *x509.CertPool
	// Timeout bounds a request beyond the time for which it is held back; 0 means 5 s.
	Timeout time.Duration
	// Apply gets each list, and the same one again after each wait: what was opened
	// by a certificate that is revoked must be closed, also if it was being opened
	// when the list came first.
	Apply func(*krl.List)
	// Logger gets a line when the list can no longer be had, and when it can again.
	Logger *slog.Logger
	// Version is sent along; "" means "devel".
	Version string
}

// A Follower keeps up with the revocation list of a CA elsewhere.
type Follower struct {
	cfg    FollowConfig
	client *http.Client

	mu      sync.Mutex // guards what follows
	tag     string     // of list
	list    *krl.List  // the last good one; nil: none yet
	checked time.Time  // when the CA last said that list is current
	failure string     // "" if the last request went well
}

// NewFollower checks cfg.
func NewFollower(cfg FollowConfig) (*Follower, error) {
	if err := checkServiceURL(cfg.URL, cfg.AllowHTTP); err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	if cfg.Apply == nil || cfg.Timeout < 0 {
		return nil, errors.New("revocation list: nothing applies it, or the timeout is negative")
	}
	cfg.Timeout, cfg.Version = cmp.Or(cfg.Timeout, 5*time.Second), cmp.Or(cfg.Version, "devel")
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Follower{cfg: cfg, client: &http.Client{
		Transport:     newTransport(cfg.Timeout, cfg.TLSRoots),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// FollowState is what a [Follower] knows.
type FollowState struct {
	// Version is that of the list; 0: there is none yet.
	Version uint64 `json:"version"`
	// Checked is when the CA last said that it is current.
	Checked time.Time `json:"checked,omitzero"`
	// Failure is why the last request failed; "" if it did not.
	Failure string `json:"failure,omitempty"`
}

// State returns a snapshot.
func (f *Follower) State() FollowState {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := FollowState{Checked: f.checked, Failure: f.failure}
	if f.list != nil {
		s.Version = f.list.Version
	}
	return s
}

// Run follows until ctx ends. A list that cannot be had or read changes nothing: the
// last good one stays in force.
func (f *Follower) Run(ctx context.Context) {
	defer f.client.CloseIdleConnections()
	retry := followRetry
	for ctx.Err() == nil {
		began := time.Now()
		held, err := f.look(ctx)
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause, retry = retry/2+rand.N(retry), min(2*retry, followRetryMax) //nolint:gosec // spreads load, hides nothing
		case held:
			pause, retry = followLeast-time.Since(began), followRetry
		default:
			pause, retry = followPause, followRetry
		}
		f.note(ctx, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// look asks once. held says that the CA holds requests back, so that it can be
// asked again at once.
func (f *Follower) look(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, followWait+f.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.cfg.URL, nil)
	if err != nil {
		return false, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("Accept", "application/octet-stream")
	req.Header.Set("User-Agent", "sallyport/"+f.cfg.Version)
	if f.tag != "" {
		req.Header.Set("If-None-Match", f.tag)
		req.Header.Set("Prefer", fmt.Sprintf("wait=%d", int(followWait.Seconds())))
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return false, errors.New("no answer, or one that broke off") // net/http's errors quote what the other side sent
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	switch {
	case resp.StatusCode == http.StatusNotModified && f.tag != "":
		f.apply(f.tag, f.list)
		return resp.Header.Get("Preference-Applied") != "", nil
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, krl.MaxBytes+1))
	if err != nil {
		return false, errors.New("the answer broke off")
	}
	list, err := krl.Parse(data)
	if err != nil {
		return false, fmt.Errorf("the answer is no revocation list: %w", err)
	}
	if f.list != nil && list.Version < f.list.Version {
		return false, fmt.Errorf("%w: version %d is served, version %d was", errOldList, list.Version, f.list.Version)
	}
	f.apply(resp.Header.Get("ETag"), list)
	return f.tag != "", nil
}

func (f *Follower) apply(tag string, list *krl.List) {
	f.mu.Lock()
	f.tag, f.list, f.checked = tag, list, time.Now().UTC()
	f.mu.Unlock()
	f.cfg.Apply(list)
}

// note logs the first failure of several, and their end.
func (f *Follower) note(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	f.mu.Lock()
	before := f.failure
	f.failure = text
	f.mu.Unlock()
	switch {
	case before == "" && text != "":
		f.cfg.Logger.WarnContext(ctx, "revocations of the CA elsewhere cannot be had; the last list stays in force",
			slog.String("url", f.cfg.URL), slog.String("error", text))
	case before != "" && text == "":
		f.cfg.Logger.InfoContext(ctx, "revocations of the CA elsewhere are followed again", slog.String("url", f.cfg.URL))
	}
}
