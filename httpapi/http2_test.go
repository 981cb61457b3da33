package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/executor"
	"sallyport/httpapi/contract"
)

// With HTTP/2 a write deadline that passes resets the stream, even when nothing
// is being written; so it must not outlive its write.
func TestAStreamOverHTTP2SurvivesItsSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, func(c *Config) {
			c.Heartbeat = time.Hour
			streams(func(ctx context.Context, cmd executor.Command) (executor.Result, error) {
				for range 3 {
					time.Sleep(10 * time.Minute)
					if err := print(cmd.Stdout, "x"); err != nil {
						return executor.Result{}, err
					}
				}
				return executor.Result{Start: started}, ctx.Err()
			})(c)
		})
		m := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
		server := s.api.Server()
		server.Handler = contract.Check(t, s.api.Handler())
		server.Protocols = new(http.Protocols)
		server.Protocols.SetUnencryptedHTTP2(true)
		served := make(chan error, 1)
		go func() { served <- server.Serve(m) }()

		transport := &http.Transport{
			Protocols:   server.Protocols,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return m.dial(), nil },
		}
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://memory"+execPath, strings.NewReader(`{"command":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+good)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", mediaNDJSON)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.ProtoMajor != 2 {
			t.Errorf("HTTP/%d: %v after %q", resp.ProtoMajor, err, data)
		}
		if got := strings.Join(eventsOf(t, string(data)), " "); got != "start stdout stdout stdout exit" {
			t.Errorf("frames %s", got)
		}
		resp.Body.Close()
		transport.CloseIdleConnections()
		server.Close()
		<-served
	})
}
