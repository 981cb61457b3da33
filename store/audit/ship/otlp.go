package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/private"
	"sallyport/store/audit"
)

// OTLPConfig is a receiver of OpenTelemetry logs over HTTP.
type OTLPConfig struct {
	Name string
	// URL is the whole address, which ends with /v1/logs for most; http:// goes to
	// loopback addresses only.
	URL string
	TLS TLSConfig
	// TokenFile has a bearer token, mode 0600; empty: none is sent. It is read for each
	// request.
	TokenFile string
	// Resend: see [OTLP].
	Resend time.Duration
	// Host and Version stand in every batch.
	Host, Version string
}

// OTLP returns a target for a receiver of OpenTelemetry logs (OTLP 1.x over HTTP, JSON
// encoding). An answer 200 confirms. What a receiver answered and kept in memory is
// covered by Resend: events confirmed so lately are sent again when the connection
// breaks, as it does when the receiver dies. Anything but 200 is sent again, also what
// the receiver says that it will never take, since no record may be lost: the operator
// has to see to it.
func OTLP(cfg OTLPConfig) (Target, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return Target{}, fmt.Errorf("otlp %q: %w", cfg.Name, err)
	case u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return Target{}, fmt.Errorf("otlp %q: %q is not https://host[:port]/path", cfg.Name, u.Redacted())
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return Target{}, fmt.Errorf("otlp %q: %q is not a loopback address: audit events go elsewhere by https only", cfg.Name, u.Hostname())
	}
	o := &otlp{cfg: cfg, host: u.Hostname()}
	return Target{Name: cfg.Name, kind: "otlp", open: o.open, resend: cfg.Resend}, nil
}

type otlp struct {
	cfg  OTLPConfig
	host string
}

func (o *otlp) open(context.Context) (link, error) {
	settings, err := o.cfg.TLS.load(o.host)
	if err != nil {
		return nil, err
	}
	l := &otlpLink{otlp: o, end: make(chan struct{})}
	transport := &http.Transport{
		TLSClientConfig: settings, ForceAttemptHTTP2: true, MaxIdleConns: 1, DialContext: l.dial,
		TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: writeTime, MaxResponseHeaderBytes: 64 << 10,
	}
	l.client = &http.Client{
		Transport: transport, Timeout: 2 * writeTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return l, nil
}

// otlpLink is one connection, or several if the receiver says of each that it closes it.
type otlpLink struct {
	*otlp
	client *http.Client
	// end is closed when a connection ended that the receiver had not said it would.
	end    chan struct{}
	once   sync.Once
	polite atomic.Bool
}

func (l *otlpLink) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTime, Control: impatient}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return noticed{c, func() {
		if !l.polite.Load() {
			l.once.Do(func() { close(l.end) })
		}
	}}, nil
}

// noticed tells of the end of what can be read.
type noticed struct {
	net.Conn
	ended func()
}

func (n noticed) Read(p []byte) (int, error) {
	count, err := n.Conn.Read(p)
	if err != nil {
		n.ended()
	}
	return count, err
}

// send posts the events and waits for the answer, which is the confirmation.
func (l *otlpLink) send(ctx context.Context, lines []audit.Line) error {
	if isClosed(l.end) {
		return fail(Broken, "the receiver ended the connection")
	}
	status, after, err := l.post(ctx, lines)
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return nil
	case status == http.StatusRequestEntityTooLarge && len(lines) > 1:
		half := len(lines) / 2
		if err := l.send(ctx, lines[:half]); err != nil {
			return err
		}
		return l.send(ctx, lines[half:])
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return &failure{kind: Unreachable, err: fmt.Errorf("the receiver answers %d", status), after: after}
	default:
		return &failure{kind: Rejected, err: fmt.Errorf("the receiver answers %d", status), after: after}
	}
}

func (l *otlpLink) post(ctx context.Context, lines []audit.Line) (status int, after time.Duration, err error) {
	body, err := json.Marshal(l.request(lines))
	if err != nil {
		return 0, 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sallyport/"+l.cfg.Version)
	if l.cfg.TokenFile != "" {
		token, err := private.ReadFile(l.cfg.TokenFile, 16<<10)
		if err != nil {
			return 0, 0, err
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := l.client.Do(r)
	if err != nil {
		kind := Unreachable
		if tlsProblem(err) {
			kind = Insecure
		}
		return 0, 0, fail(kind, "%w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return 0, 0, fail(Broken, "%w", err)
	}
	l.polite.Store(resp.Close)
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		after = min(time.Duration(seconds), 3600) * time.Second
	}
	if resp.StatusCode == http.StatusOK {
		return resp.StatusCode, after, partial(text)
	}
	return resp.StatusCode, after, nil
}

// partial is the error of an answer 200 that says that not everything was taken (OTLP
// specification, "Partial Success").
func partial(text []byte) error {
	var answer struct {
		PartialSuccess struct {
			// An int64, which JSON of Protocol Buffers writes as a string.
			Rejected json.Number `json:"rejectedLogRecords"`
		} `json:"partialSuccess"`
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fail(Rejected, "the receiver's answer is not that of OTLP")
	}
	if n := answer.PartialSuccess.Rejected.String(); n != "" && n != "0" {
		return fail(Rejected, "the receiver refused %.20q of the records", n)
	}
	return nil
}

func (l *otlpLink) confirm(context.Context) error { return nil }

func (l *otlpLink) broken() <-chan struct{} { return l.end }

func (l *otlpLink) close() { l.client.CloseIdleConnections() }
