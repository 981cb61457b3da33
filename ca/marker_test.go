package ca

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"sallyport/ca/krl"
	"sallyport/ca/revocation"
	"sallyport/store"
)

func TestAMarkerIsRevokedByItsVersionAndNoneBefore(t *testing.T) {
	t.Parallel()
	for _, version := range []uint64{1, 2, 1795427124, maxMarkedVersion} {
		marker := newMarker(version)
		if r := MarkersUpTo(version); marker < r.First || marker > r.Last {
			t.Errorf("version %d: marker %d is not in %+v", version, marker, r)
		}
		if r := MarkersUpTo(version - 1); marker <= r.Last && version > 1 {
			t.Errorf("version %d: marker %d is in %+v of the version before", version, marker, r)
		}
	}
	if r := MarkersUpTo(maxMarkedVersion + 1); r.Last != lastMarker {
		t.Errorf("beyond the last version markers end at %d, want %d", r.Last, uint64(lastMarker))
	}
	for range 1000 {
		if n := newSerial(); n <= lastMarker || n >= 1<<63 {
			t.Fatalf("serial %d is a marker, or has more than 63 bits", n)
		}
	}
}

// follow gives a node the revocation list of now.
func (n *nodes) follow(t *testing.T, address string, a *Authority) {
	t.Helper()
	list, err := krl.Parse(a.RevocationList())
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.revoked == nil {
		n.revoked = make(map[string]*krl.List)
	}
	n.revoked[address] = list
}

func TestAProbeShowsWhichRevocationListANodeHas(t *testing.T) {
	t.Parallel()
	w, n := newRing(t)
	n.follow(t, "a:22", w.Authority)
	first := w.RevocationVersion()
	look := func(a, b uint64, canaryOfA, canaryOfB Outcome) {
		t.Helper()
		list, err := w.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if list[0].RevocationSeen != a || list[1].RevocationSeen != b ||
			list[0].Canary.Outcome != canaryOfA || list[1].Canary.Outcome != canaryOfB {
			t.Errorf("a has list %d (canary %s), b %d (%s); want %d (%s), %d (%s)", list[0].RevocationSeen, list[0].Canary.Outcome,
				list[1].RevocationSeen, list[1].Canary.Outcome, a, canaryOfA, b, canaryOfB)
		}
	}
	look(first, 0, Refused, Accepted) // b checks no list

	n.follow(t, "b:22", w.Authority)
	look(first, first, Refused, Refused)

	if _, err := w.Revoke(t.Context(), Actor{}, revocation.Act{Kind: revocation.User, Value: "mallory"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Revoke(t.Context(), Actor{}, revocation.Act{Kind: revocation.KeyID, Value: "v1:x"}, nil); err != nil {
		t.Fatal(err)
	}
	second := w.RevocationVersion()
	if second <= first {
		t.Fatalf("the list has version %d after %d", second, first)
	}
	n.follow(t, "a:22", w.Authority)
	look(second, first, Refused, Refused) // b has an old one, and checks it

	// A node that does not accept the active key shows nothing by refusing.
	n.pull("b:22", nil)
	look(second, first, Refused, Unknown)
}

func TestANodeIsRefusedOneLoginARoundWhenAllIsWell(t *testing.T) {
	t.Parallel()
	w, n := newRing(t)
	for _, node := range n.Nodes() {
		n.follow(t, node.Address, w.Authority)
	}
	if _, err := w.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	// On each of two nodes: the active key, and the marker for the canary.
	if n.asked != 4 {
		t.Errorf("%d logins were tried, want 4", n.asked)
	}
}

// fullLedger says of every marker that it was issued.
type fullLedger struct{ store.Store }

func (f fullLedger) Get(ctx context.Context, key string) (store.Entry, error) {
	serial, ok := strings.CutPrefix(key, ledgerPrefix)
	n, err := strconv.ParseUint(serial, 16, 64)
	if ok && err == nil && n <= lastMarker {
		return store.Entry{Key: key, Value: fmt.Appendf(nil, `{"serial":"%d"}`, n)}, nil
	}
	return f.Store.Get(ctx, key)
}

func TestAProbeGoesOnWhenNoMarkerIsLeft(t *testing.T) {
	t.Parallel()
	w, n := newRing(t)
	for _, node := range n.Nodes() {
		n.follow(t, node.Address, w.Authority)
	}
	w.store = fullLedger{w.store}
	list, err := w.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Canary.Outcome != Refused || s.RevocationSeen != 0 || s.BundleSeen != 1 {
			t.Errorf("%s: canary %s, list %d, bundle %d; want it refused, none seen, and 1", s.Address, s.Canary.Outcome, s.RevocationSeen, s.BundleSeen)
		}
	}
}
