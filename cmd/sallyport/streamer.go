package main

import (
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sallyport/httpapi/firecrest"
)

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
