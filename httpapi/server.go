package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Server makes a server for the public routes. It has no WriteTimeout and no
// ReadTimeout, which would cut streams: writes and bodies have deadlines of their
// own. Its owner adds TLS and the listener.
func (a *API) Server() *http.Server {
	return &http.Server{
		Handler: a.public,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: a.cfg.MaxStreams,
			// What a connection can have sent of bodies before anybody reads them, which
			// net/http has at 1 MiB each.
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     256 << 10,
			// A client that is gone without a word, and one that takes nothing.
			SendPingTimeout:  time.Minute,
			WriteByteTimeout: a.cfg.WriteTimeout,
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, placed(conn))
		},
		ConnState:         connState,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10, // tokens have up to 16 KiB
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
		// "OPTIONS *" would be answered without passing through the handler.
		DisableGeneralOptionsHandler: true,
	}
}

// AdminServer makes a server for the admin routes, to be used with a Unix socket
// of mode 0600. On any other listener every request gets 403.
func (a *API) AdminServer() *http.Server {
	s := a.Server()
	s.Handler = a.admin
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		uid, err := peerUID(conn)
		return context.WithValue(ctx, peerKey{}, peer{uid, err})
	}
	return s
}

type peerKey struct{}

// A peer is who connected to the admin socket, as the kernel says.
type peer struct {
	uid int
	err error
}

var errNoPeer = errors.New("connection has no peer credentials")

// fromPeer admits root and the daemon's own user. The mode of the socket says the
// same, until someone changes it.
func (a *API) fromPeer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok {
			p.err = errNoPeer
		}
		if p.err != nil || p.uid != 0 && p.uid != os.Geteuid() {
			a.fail(w, r, errors.Join(errPeerRefused, p.err))
			return
		}
		next.ServeHTTP(w, r)
	})
}
