package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

// startupsFinding sees whether a node takes as many logins at once as the service
// may begin: sshd drops connections by chance from the first number of MaxStartups
// on (sshd_config(5)), and then without a word or with "Exceeded MaxStartups".
func startupsFinding(ctx context.Context, address string, handshakes int, v sshdconfig.Version) nodesync.Finding {
	f := nodesync.Finding{Check: "logins at once", Verdict: nodesync.Good}
	if v.Major > 9 || v.Major == 9 && v.Minor >= 8 {
		f.Verdict, f.Detail = nodesync.Unknown, "not tried: a connection without a login counts for PerSourcePenalties there"
		f.Remedy = fmt.Sprintf("look there: sshd -T | grep -i maxstartups; its first number must be above max_handshakes, %d", handshakes)
		return f
	}
	taken, err := knock(ctx, address, handshakes)
	switch {
	case err != nil:
		f.Verdict, f.Detail = nodesync.Unknown, err.Error()
	case taken < handshakes:
		f.Verdict = nodesync.Warning
		f.Detail = fmt.Sprintf("of %d connections without a login, as max_handshakes allows, it took %d", handshakes, taken)
		f.Remedy = fmt.Sprintf("on the node: MaxStartups %d:30:%d; or max_handshakes = %d here", 2*handshakes, 10*handshakes, max(taken, 1))
	default:
		f.Detail = fmt.Sprintf("it takes the %d of max_handshakes", handshakes)
	}
	return f
}

// knock opens n connections at once, waits for what sshd says on each, and closes
// them. It returns how many got sshd's version.
func knock(ctx context.Context, address string, n int) (taken int, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var (
		all    sync.WaitGroup
		mu     sync.Mutex // guards taken and errs
		errs   []error
		conns  = make(chan net.Conn, n)
		dialer net.Dialer
	)
	for range n {
		all.Go(func() {
			conn, err := dialer.DialContext(ctx, "tcp", address)
			var line string
			if err == nil {
				conns <- conn // closed when all have been answered
				err = conn.SetDeadline(time.Now().Add(checkTimeout))
			}
			if err == nil {
				line, err = bufio.NewReader(io.LimitReader(conn, 255)).ReadString('\n')
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case strings.HasPrefix(line, "SSH-"):
				taken++
			case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	close(conns)
	for conn := range conns {
		_ = conn.Close() // nothing was sent that counts
	}
	return taken, errors.Join(errs...)
}
