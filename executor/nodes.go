package executor

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"sallyport/executor/circuit"
	"sallyport/executor/pool"
	"sallyport/identity"
)

func newCircuits(nodes []string) map[string]*circuit.Breaker {
	circuits := make(map[string]*circuit.Breaker)
	for _, node := range nodes {
		circuits[node] = new(circuit.Breaker)
	}
	return circuits
}

// A standing is what speaks for a node when a caller is to be served.
type standing struct {
	node string
	dead bool    // it could not be reached a moment ago
	cold bool    // the caller has no connection to it
	load float64 // starts under way and waiting, of those that it bears at once
	turn int     // 0 for the caller's own, which differs between callers
}

func (a standing) compare(b standing) int {
	return cmp.Or(
		falseFirst(a.dead, b.dead), falseFirst(a.cold, b.cold), cmp.Compare(a.load, b.load), cmp.Compare(a.turn, b.turn),
	)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// order returns the nodes as they are to be tried for a caller: those first to which
// he has connections, then those with the least to do, and last those that could not be
// reached. Callers who see the same begin at different ones.
func (s *system) order(caller identity.Identity) []string {
	if len(s.Nodes) == 1 {
		return s.Nodes
	}
	who := sha256.Sum256([]byte(caller.Issuer() + "\x00" + caller.Subject() + "\x00" + caller.Login()))
	first := int(binary.BigEndian.Uint32(who[:]) % uint32(len(s.Nodes))) //nolint:gosec // a configuration has few nodes
	list := make([]standing, len(s.Nodes))
	for i, node := range s.Nodes {
		load, limit := s.gates[node].Load()
		list[i] = standing{
			node: node, turn: (i - first + len(s.Nodes)) % len(s.Nodes),
			dead: s.circuits[node].State().Refusing, cold: !s.pool.Has(keyOf(caller, node)),
			load: float64(load) / float64(limit),
		}
	}
	slices.SortFunc(list, standing.compare)
	nodes := make([]string, len(list))
	for i, l := range list {
		nodes[i] = l.node
	}
	return nodes
}

// attempt is connect behind the node's circuit breaker. What a node says or does once it
// is asked about the caller, and the failure of who has the credentials, are no reason to
// keep others away.
func (e *Executor) attempt(ctx context.Context, s *system, caller identity.Identity, node string) (pool.Dialed[*connection], error) {
	try, err := s.circuits[node].Enter()
	if err != nil {
		return pool.Dialed[*connection]{}, unreachable(node, err)
	}
	dialed, err := e.connect(ctx, s, caller, node)
	dead, failed := errors.AsType[unreachableError](err)
	switch {
	case failed && dead.dropped && ctx.Err() == nil:
		try.Broke(err)
	case failed && !dead.personal && !errors.Is(ctx.Err(), context.Canceled):
		try.Failed(err)
	case err == nil, failed && dead.personal, errors.Is(err, ErrLoginRefused), errors.Is(err, ErrHostKey):
		try.Succeeded()
	default:
		try.Abandoned()
	}
	return dialed, err
}

// noNode is the error of who found no node. Who need not have tried is told when to
// come again.
func noNode(failures []error) error {
	err := errors.Join(failures...)
	soonest := time.Duration(0)
	for _, f := range failures {
		if dead, ok := errors.AsType[unreachableError](f); ok && dead.after > 0 && (soonest == 0 || dead.after < soonest) {
			soonest = dead.after
		}
	}
	if soonest == 0 {
		return err
	}
	return NewRetryError(err, soonest)
}
