package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A streamReport is what many large downloads at once cost.
type streamReport struct {
	Downloads int   `json:"downloads"`
	RSSBefore int64 `json:"rss_before_bytes"`
	// RSSEarly is when a fifth of the time is over and every download has begun, RSSPeak
	// the most after that: if they are equal, memory does not grow with what is sent.
	RSSEarly int64   `json:"rss_early_bytes"`
	RSSPeak  int64   `json:"rss_peak_bytes"`
	Bytes    int64   `json:"bytes"`
	Seconds  float64 `json:"seconds"`
	Errors   int64   `json:"errors"`
}

// streamTime is how long they are watched, in windows of the options.
const streamTime = 15

// measureStreams downloads a file of 100 MB so many times at once, as long as it may.
func measureStreams(ctx context.Context, s *site, opt options) (*streamReport, error) {
	v, report := s.service, &streamReport{Downloads: opt.Streams}
	var err error
	if report.RSSBefore, err = v.steadyRSS(ctx); err != nil {
		return nil, err
	}
	watched, stop := context.WithTimeout(ctx, streamTime*opt.Window)
	defer stop()
	var received, begun, failed atomic.Int64
	var running sync.WaitGroup
	began := time.Now()
	for i := range opt.Streams {
		running.Go(func() {
			for watched.Err() == nil {
				if err := download(watched, v.address, s.tokens[i%users], s.files+"/"+hugeFile, &begun, &received); err != nil && watched.Err() == nil {
					failed.Add(1)
					pause(watched, 100*time.Millisecond)
				}
			}
		})
	}
	for watched.Err() == nil {
		pause(watched, opt.Window/10)
		rss, err := v.rss()
		if err != nil {
			break // the service has ended, which is an error of every download too
		}
		early := time.Since(began) < streamTime*opt.Window/5 || begun.Load() < int64(opt.Streams)
		if early {
			report.RSSEarly = max(report.RSSEarly, rss)
		}
		report.RSSPeak = max(report.RSSPeak, rss)
	}
	report.Bytes, report.Seconds = received.Load(), time.Since(began).Seconds()
	running.Wait()
	report.Errors = failed.Load()
	if begun.Load() < int64(opt.Streams) {
		return report, fmt.Errorf("%d of %d downloads have begun", begun.Load(), opt.Streams)
	}
	return report, ctx.Err()
}

// download reads a file and counts its bytes as they come.
func download(ctx context.Context, address, token, path string, begun, received *atomic.Int64) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c := newRequest(address, token, http.MethodGet, "/filesystem/files/ops/download?path="+path, "", "", http.StatusOK, "")
	if _, err := conn.Write(c.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	begun.Add(1)
	buffer := make([]byte, 32<<10)
	for {
		n, err := answer.Body.Read(buffer)
		received.Add(int64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
