package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sallyport/httpapi/firecrest"
)

// maxDoorConns bounds the connections to firecrest.streamer.listen: each lives for one
// short answer.
const maxDoorConns = 64

// streaming is what the API is told of streams; nil if the file has none.
func streaming(s StreamerSection) *firecrest.Streaming {
	_, port, err := net.SplitHostPort(s.Listen)
	number, convErr := strconv.Atoi(port)
	if err != nil || convErr != nil { // there is none, or the file is refused
		return nil
	}
	return &firecrest.Streaming{
		// http becomes ws, and https wss.
		Hosts: s.PublicHosts, Port: number, URL: "ws" + strings.TrimPrefix(strings.TrimSuffix(s.URL, "/"), "http"), Wait: s.WaitTimeout, MaxUpload: s.MaxUpload, AnyAddress: s.AnyAddress,
	}
}

func listenDoor(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("firecrest.streamer.listen: %w", err)
	}
	return bounded(l, maxDoorConns), nil
}

// doorServer sends the clients of streams to the API, and does nothing else.
func doorServer(door http.Handler, log *slog.Logger) *http.Server {
	const patience = 5 * time.Second
	s := &http.Server{
		Handler: door, ReadHeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	s.SetKeepAlivesEnabled(false)
	return s
}
