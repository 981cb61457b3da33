package main

import (
	"context"
	"fmt"
	"net"
	"syscall"
)

// maxSideConns bounds the connections to metrics.listen, where a few scrapers have one each,
// and to firecrest.streamer.listen, where each lives for one short answer; maxSideConnsEach
// those of one address.
const maxSideConns, maxSideConnsEach = 64, 16

// maxPublicConns bounds the connections to server.listen: idle ones must not take the
// files that login nodes, the audit log and administrators need.
func maxPublicConns(configured int64) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		files.Cur = 1024
	}
	const most = 1 << 30
	return min(int(configured), int(min(files.Cur, most))/4*3)
}

// A bounding bounds the connections of a listener, in all and from one address; see
// httpapi.API.Bound.
type bounding func(name string, l net.Listener, total, each int) net.Listener

// listenBeside opens the address of an option for a server beside the public one.
func listenBeside(ctx context.Context, bound bounding, option, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	return bound(option, l, maxSideConns, maxSideConnsEach), nil
}
