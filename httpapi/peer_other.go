//go:build !linux

package httpapi

import "net"

// peerUID knows no peers outside Linux, so the admin listener refuses everyone.
func peerUID(net.Conn) (int, error) { return 0, errNoPeer }
