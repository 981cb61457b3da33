package sshdconfig

import _ "embed"

// NodeSyncScript is the POSIX shell script that keeps a node's files up to date, for nodes without the program.
//
//go:embed sallyport-node-sync
var NodeSyncScript []byte

// NodeSyncService and NodeSyncTimer are the systemd units that run it, or the program in its place.
var (
	//go:embed sallyport-node-sync.service
	NodeSyncService []byte
	//go:embed sallyport-node-sync.timer
	NodeSyncTimer []byte
)
