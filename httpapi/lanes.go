package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"sallyport/httpapi/places"
	"sallyport/identity"
)

const (
	// strangerPatience bounds each write to a client that has shown no good token.
	strangerPatience = 10 * time.Second
	// maxVerifying bounds the tokens that are being verified, which may wait for an
	// issuer's keys: not more than package identity lets wait for one issuer.
	maxVerifying, maxVerifyingPerAddress = 128, 16
)

// lanes are the places of requests that have shown no good token. Those of callers are
// API.callers. None takes the place of another: strangers can fill the first three with
// what they like, and neither nodes nor callers wait for it.
//
// A place is held while an answer is made and written. While it waits for its client it
// yields to whoever comes next (see package places), so that clients that do not read
// keep nobody out.
type lanes struct {
	book *places.Book
	// public is for everything without a lane of its own: documents, health, refusals.
	public *places.Crowd
	// nodes is for the files that login nodes trust, followers for who waits for the next
	// revocation list.
	nodes, followers *places.Crowd
	// verifying is for tokens that are not known yet.
	verifying *places.Crowd
}

func newLanes(cfg Config) lanes {
	anonymous := places.Limits{Total: cfg.MaxAnonymous, Each: cfg.MaxAnonymousPerAddress}
	return lanes{
		book:      places.NewBook(cfg.Nodes),
		public:    places.NewCrowd(anonymous),
		nodes:     places.NewCrowd(anonymous),
		followers: places.NewCrowd(places.Limits{Total: maxFollowers, Each: maxFollowersPerAddress, Queue: true}),
		verifying: places.NewCrowd(places.Limits{Total: maxVerifying, Each: maxVerifyingPerAddress}),
	}
}

// SetNodes replaces the networks of nodes and mirrors, whose connections and requests for
// the files that nodes trust go before those of others.
func (a *API) SetNodes(nodes []netip.Prefix) { a.lanes.book.SetNodes(nodes) }

// Places say how full the lanes are.
type Places struct {
	Public    places.Count `json:"public"`
	Nodes     places.Count `json:"nodes"`
	Followers places.Count `json:"followers"`
	Verifying places.Count `json:"verifying"`
	// KnownAddresses have shown a good token lately.
	KnownAddresses int `json:"known_addresses"`
	// Connections are those of each listener.
	Connections map[string]places.Count `json:"connections"`
}

func (a *API) places() Places {
	l := &a.lanes
	return Places{
		Public: l.public.Count(), Nodes: l.nodes.Count(), Followers: l.followers.Count(), Verifying: l.verifying.Count(),
		KnownAddresses: l.book.Known(), Connections: a.bounds.count(),
	}
}

// A seat is the place of one request: in a lane, or among the callers.
type seat struct {
	// lane is where an answer goes that has no place yet; nil: it needs none.
	lane   *places.Crowd
	member *places.Member
	area   netip.Addr
	rank   places.Rank
	// leave gives the place among the callers back.
	leave func()
}

// in is a handler that has a place of a lane.
func (a *API) in(lane *places.Crowd, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		x := exchangeFrom(r.Context())
		x.seat.lane = lane
		if x.rw != nil && !x.rw.sit() {
			x.seat.lane = a.lanes.public // for the refusal
			return errOverloaded
		}
		return h(w, r)
	}
}

// sit takes a place of the request's lane, unless it has one.
func (w *response) sit() bool {
	s := &w.x.seat
	if s.lane == nil || s.member != nil || s.leave != nil {
		return true
	}
	s.member = s.lane.Join(s.area, s.rank, w.cut)
	return s.member != nil
}

// stand gives the request's place back.
func (s *seat) stand() {
	s.member.Leave()
	s.member = nil
	if s.leave != nil {
		s.leave()
		s.leave = nil
	}
}

// enter gives the request one of the caller's own places, in exchange for that of the
// lane that it was in.
func (a *API) enter(r *http.Request, caller identity.Identity) error {
	x, key := exchangeFrom(r.Context()), keyOf(caller)
	if !a.callers.take(key, 1) {
		if left, _ := a.callers.state(); left < 1 {
			return errOverloaded
		}
		return errCallerBusy
	}
	x.seat.stand()
	x.seat.leave = func() { a.callers.give(key, 1) }
	if x.rw != nil {
		x.rw.timeout = a.cfg.WriteTimeout
	}
	return nil
}

// Enter gives a request of a [Mounted] API's public call one of the caller's own places:
// for a call that finds out by other means than a token who calls, such as a ticket. Whose
// access was revoked since then gets none.
func Enter(r *http.Request, caller identity.Identity) error {
	x := exchangeFrom(r.Context())
	if x.api == nil { // a test's
		return nil
	}
	x.caller = caller
	if err := x.api.atGate(r.Context(), opTicket, caller); err != nil {
		return err
	}
	x.api.vouch(r, caller)
	return x.api.enter(r, caller)
}

// verify turns a token into a caller. One that was verified before costs a look; any
// other has one of the places of those that are being verified.
func (a *API) verify(r *http.Request, shown identity.Presentation) (identity.Identity, error) {
	if a.recall != nil {
		if caller, ok, err := a.recall.Recall(shown); ok {
			return caller, err
		}
	}
	x := exchangeFrom(r.Context())
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if x.api != nil {
		place := a.lanes.verifying.Join(x.seat.area, x.seat.rank, func() { cancel(errOverloaded) })
		if place == nil {
			return identity.Identity{}, errOverloaded
		}
		defer place.Leave()
		place.Yield()
	}
	caller, err := a.cfg.Tokens.VerifyPresented(ctx, shown)
	if err != nil && context.Cause(ctx) == errOverloaded { //nolint:errorlint // it is the one that was put there
		return caller, errOverloaded
	}
	return caller, err
}

// A recaller knows tokens that were verified before; see [identity.Verifier].
type recaller interface {
	Recall(p identity.Presentation) (caller identity.Identity, ok bool, err error)
}

// vouch notes that a good token came from the request's address, through its connection.
func (a *API) vouch(r *http.Request, caller identity.Identity) {
	if conn, ok := r.Context().Value(connKey{}).(*places.Conn); ok && conn != nil {
		conn.Prove()
	}
	if x := exchangeFrom(r.Context()); x.seat.area.IsValid() {
		a.lanes.book.Vouch(x.seat.area, places.Person{Issuer: caller.Issuer(), Subject: caller.Subject()})
	}
}

type connKey struct{}

// Bound bounds the connections that a listener has open at a time, and those of one
// address that have shown no good token. It is for the raw connections, below TLS. The
// name is for the status and for metrics.
func (a *API) Bound(name string, l net.Listener, total, each int) net.Listener {
	const settle = time.Second // in which the first token of a client's burst is verified
	bounded := places.Listen(l, places.Limits{Total: total, Each: min(each, max(1, total/4)), Settle: settle}, func(addr netip.Addr) places.Rank {
		if rank := a.lanes.book.Rank(addr); rank == places.Node || !a.trusted(addr.Unmap().WithZone("")) {
			return rank
		}
		return places.Proxy
	})
	a.bounds.mu.Lock()
	defer a.bounds.mu.Unlock()
	a.bounds.of[name] = bounded
	return bounded
}

// bounds are the bounded listeners, by name.
type bounds struct {
	mu sync.Mutex // guards what follows
	of map[string]*places.Listener
}

func (b *bounds) count() map[string]places.Count {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := make(map[string]places.Count, len(b.of))
	for name, l := range b.of {
		counts[name] = l.Count()
	}
	return counts
}

// placed is the bounded connection below conn; nil if there is none.
func placed(conn net.Conn) *places.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, _ := conn.(*places.Conn)
	return c
}

// connState has connections yield their places between requests.
func connState(conn net.Conn, state http.ConnState) {
	c := placed(conn)
	switch {
	case c == nil:
	case state == http.StateIdle:
		c.Idle()
	case state == http.StateActive:
		c.Busy()
	}
}
