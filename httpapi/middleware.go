package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/httpapi/places"
	"sallyport/identity"
	"sallyport/policy"
	"sallyport/store/audit"
)

// An exchange is what the inner handlers tell the request's log line. Only the
// request's own goroutine touches it.
type exchange struct {
	route  string // template of the path, never the path itself
	system string // that the path names, as it stands there
	caller identity.Identity
	err    error
	code   string
	// bodyRead says that the body was read to its end.
	bodyRead bool
	// bodyTimeout is how long a body may be silent.
	bodyTimeout time.Duration
	// bodies is the memory of all bodies, bodyTaken what this request's has of it.
	bodies    *share
	bodyTaken int64
	// memory is that of all answers, maxOutput the limit of one stream in it.
	memory    *share
	maxOutput int64
	// mount, if set, writes the errors.
	mount Mounted
	// detailed says that the call is one of those that tell the policy of paths or a job;
	// waiting is where, if the decision depends on them.
	detailed bool
	waiting  func(ctx context.Context, told policy.Act) error
	// listed says whether the policy allows the call for a system too; nil if there is none.
	listed func(ctx context.Context, system string) (bool, error)
	// api serves the request; nil in tests without one.
	api *API
	// rw is the answer, seat the place that it needs.
	rw   *response
	seat seat
}

type exchangeKey struct{}

// exchangeFrom returns the exchange of a request that came through observe.
func exchangeFrom(ctx context.Context) *exchange {
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		return &exchange{}
	}
	return x
}

// observe is the outermost layer: it names the request, sets the headers that
// every answer has, survives a panic and writes the one log line. The answer has a
// place in lane, if it finds no other; nil: it needs none.
func (a *API) observe(lane *places.Crowd, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, x := time.Now(), &exchange{route: "none", bodyTimeout: a.cfg.BodyTimeout, bodies: a.bodies, memory: a.memory, maxOutput: a.cfg.MaxOutput, api: a}
		addr := a.clientAddr(r)
		req := audit.Request{ID: audit.NewRequestID(), ClientID: clientRequestID(r), SourceIP: addressText(addr)}
		x.seat = seat{lane: lane, area: places.Area(addr), rank: a.lanes.book.Rank(addr)}
		req.Traceparent, _ = audit.CleanTraceparent(r.Header.Get("Traceparent"))
		ctx := audit.WithRequest(context.WithValue(r.Context(), exchangeKey{}, x), req)
		r = r.WithContext(ctx)
		rw := newResponse(w, min(a.cfg.WriteTimeout, strangerPatience), x)
		x.rw = rw
		if r.ContentLength != 0 {
			// Also for a body that no handler reads: net/http would wait for a part
			// of it, without end, before it sends a large answer.
			rw.readBy(time.Now().Add(a.cfg.BodyTimeout))
		}
		commonHeaders(rw.Header(), req)
		if r.TLS != nil && a.cfg.HSTS > 0 { // RFC 6797 §7.2: never over plain HTTP
			rw.Header().Set("Strict-Transport-Security", "max-age="+strconv.FormatInt(int64(a.cfg.HSTS/time.Second), 10))
		}
		defer func() {
			abort := a.recovered(rw, r, recover())
			unread := r.ContentLength != 0 && !x.bodyRead
			if unread && x.seat.leave != nil {
				linger(rw, r.Body)
			}
			rw.finish(unread)
			rw.end(r.ProtoMajor == 2 && !abort)
			x.seat.stand()
			x.giveBody()
			took := time.Since(start)
			a.logRequest(r, x, rw, took)
			if a.cfg.Observer != nil {
				a.cfg.Observer.Request(x.route, knownMethod(r.Method), rw.status, x.code, rw.bytes, took)
			}
			if abort {
				panic(http.ErrAbortHandler) // net/http then cuts the connection without a word
			}
		}()
		next.ServeHTTP(rw, r)
	})
}

// linger takes some more of a body that was refused. A client that is still sending
// when the connection is closed loses the answer, and would never learn that its
// body was too large. Only known callers are worth that time.
func linger(rw *response, body io.Reader) {
	const most, patience = 4 << 20, time.Second
	if err := rw.FlushError(); err != nil {
		return
	}
	rw.readBy(time.Now().Add(patience))
	_, _ = io.CopyN(io.Discard, body, most) // the connection is closed next
}

// clientRequestID is the id that the client gave its request, if it is a safe one. A
// client can give one id to many requests, or that of somebody else's: it is recorded
// beside ours and never in its place. FirecREST v2 sends it to its certificate service
// under the name of its own constant.
func clientRequestID(r *http.Request) string {
	for _, name := range []string{"X-Request-Id", "HeaderKeys.request_id"} {
		if id, ok := audit.CleanRequestID(r.Header.Get(name)); ok {
			return id
		}
	}
	return ""
}

// commonHeaders are right for every answer; a handler of public, cacheable bytes
// replaces Cache-Control and Content-Security-Policy. X-Request-Id is the client's own
// id if it sent one, because clients of FirecREST and proxies look for it there.
func commonHeaders(h http.Header, req audit.Request) {
	h.Set("Sallyport-Request-Id", req.ID)
	h.Set("X-Request-Id", cmp.Or(req.ClientID, req.ID))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
}

// PeerAddr is the address that a connection comes from, in the form in which addresses are
// compared. A Unix socket has none.
func PeerAddr(r *http.Request) (netip.Addr, bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap().WithZone(""), err == nil
}

// clientAddr is the client's address: the peer's, or what trusted proxies say. The
// header is read from its end, since only there a trusted proxy has written; the
// first address that is no trusted proxy is the client. A peer without an
// address (Unix socket) yields the zero one.
func (a *API) clientAddr(r *http.Request) netip.Addr {
	ip, ok := PeerAddr(r)
	if !ok {
		return netip.Addr{}
	}
	// No path has more proxies than that; a client can write any number of addresses.
	const mostHops = 32
	rest := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	for range mostHops {
		if !a.trusted(ip) {
			break
		}
		comma := strings.LastIndexByte(rest, ',')
		next, err := netip.ParseAddr(strings.TrimSpace(rest[comma+1:]))
		if err != nil {
			break
		}
		rest, ip = rest[:max(0, comma)], next.Unmap().WithZone("")
	}
	return ip
}

// addressText is an address for records; "" if there is none.
func addressText(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

func (a *API) trusted(ip netip.Addr) bool {
	return slices.ContainsFunc(a.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// recovered turns a panic into a 500, or says that the connection must be cut
// because an answer has begun.
func (a *API) recovered(rw *response, r *http.Request, v any) (abort bool) {
	switch v {
	case nil:
		return false
	case http.ErrAbortHandler:
		return true
	}
	a.log.LogAttrs(r.Context(), slog.LevelError, "panic while serving a request",
		slog.String("request_id", audit.RequestFrom(r.Context()).ID),
		slog.String("panic", oneLine(fmt.Sprint(v))), slog.String("stack", string(debug.Stack())))
	if rw.status != 0 {
		return true
	}
	a.fail(rw, r, errInternal)
	return false
}

// logRequest writes one wide line. It has no header, no query and no path: the
// first may hold a token, and the others whatever a client likes.
func (a *API) logRequest(r *http.Request, x *exchange, rw *response, took time.Duration) {
	req := audit.RequestFrom(r.Context())
	attrs := []slog.Attr{
		slog.String("request_id", req.ID),
		slog.String("source_ip", req.SourceIP),
		slog.String("method", knownMethod(r.Method)),
		slog.String("route", x.route),
		slog.Int("status", rw.status),
		slog.Int64("bytes", rw.bytes),
		slog.Duration("duration", took),
	}
	if req.ClientID != "" {
		attrs = append(attrs, slog.String("client_request_id", req.ClientID))
	}
	if id := audit.TraceID(req.Traceparent); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	if x.caller.Valid() {
		attrs = append(attrs, slog.Any("caller", x.caller))
	}
	if x.code != "" {
		attrs = append(attrs, slog.String("code", x.code))
	}
	level := slog.LevelInfo
	switch {
	case x.err != nil && rw.status >= http.StatusInternalServerError:
		level = slog.LevelError
		fallthrough
	case x.err != nil:
		attrs = append(attrs, slog.String("error", logged(x.err)))
	case x.route == "/livez" || x.route == "/readyz":
		level = slog.LevelDebug
	}
	a.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// logged bounds an error for the log: it may repeat what a client sent, which may be
// megabytes.
func logged(err error) string {
	const most = 2 << 10
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// knownMethod keeps a client's inventions out of the log.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return m
	}
	return "other"
}
