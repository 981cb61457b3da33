package ca

import "sallyport/ca/krl"

// Every revocation list revokes the serials up to a number that follows from its
// version: its markers. No user's certificate has such a serial. A node that refuses a
// marker of version n, but accepts another certificate of the same key, has the list
// of version n or a later one: so a login shows which list a node has, and nothing
// that the node says of itself need be believed.

const (
	// markerBits makes 65,536 markers of a version. The ledger takes no serial twice, and
	// forgets it after its retention: a month of probes every minute takes 43,200.
	markerBits = 16
	// maxMarkedVersion is the last version that has markers. Versions are at least
	// Unix times, and follow them unless there are several a second for long.
	maxMarkedVersion = 1<<36 - 1
	lastMarker       = maxMarkedVersion<<markerBits | (1<<markerBits - 1)
)

// MarkersUpTo are the serials that the list of a version revokes as its markers.
func MarkersUpTo(version uint64) krl.Range {
	return krl.Range{First: 1, Last: min(version, maxMarkedVersion)<<markerBits | (1<<markerBits - 1)}
}

// newMarker returns one of the serials that the list of a version revokes, and no
// list before it.
func newMarker(version uint64) uint64 {
	return min(version, maxMarkedVersion)<<markerBits | randomBits()&(1<<markerBits-1)
}
