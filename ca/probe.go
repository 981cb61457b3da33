package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/store"
)

const (
	// ProbeCommand is all that a probe's certificate can run: the node's clock.
	ProbeCommand = "date +%s"
	// profileProbe is the ledger's name for certificates of probes.
	profileProbe = "probe"

	probesAtOnce = 8 // nodes; the logins on one node follow one another
	probePrefix  = "ca/probe/"
)

// A Node is a login node that must trust the CA.
type Node struct {
	System  string `json:"system"`
	Address string `json:"address"` // host:port
}

// An Outcome is what a probe has shown.
type Outcome string

// The outcomes of a probe. Only what a node whose host key was verified said
// counts; everything else is unknown, and proves nothing.
const (
	Accepted Outcome = "accepted"
	Refused  Outcome = "refused"
	Unknown  Outcome = "unknown"
)

// ProbeLogin is the credential of a probe.
type ProbeLogin struct {
	User string
	// Signer is the certificate under test, Jump one of the active key for a jump
	// host on the way.
	Signer, Jump ssh.Signer
	// CountSessions asks for ProbeAnswer.Sessions.
	CountSessions bool
}

// A ProbeAnswer is what a node did.
type ProbeAnswer struct {
	Outcome Outcome
	// Detail says why, for administrators.
	Detail string
	// Clock is the node's time in whole seconds when ours was ClockAsked; zero if
	// the account could not tell.
	Clock, ClockAsked time.Time
	// Sessions is how many the node granted at once on one connection, counted to
	// one more than are configured; nil if that is not known.
	Sessions *int
}

// A Prober logs in on nodes.
type Prober interface {
	// Nodes are all that must be asked, each by its own address.
	Nodes() []Node
	// Probe MUST return within a bounded time.
	Probe(ctx context.Context, node Node, login ProbeLogin) ProbeAnswer
}

// KeyProbe is the last answer of a node to a certificate of one key.
type KeyProbe struct {
	Outcome Outcome   `json:"outcome"`
	Detail  string    `json:"detail,omitempty"`
	At      time.Time `json:"at"`
	// Since is when the node gave this answer first, of those that it gave without
	// another in between while the bundle did not change.
	Since time.Time `json:"since"`
}

// NodeStatus is what is known of a node.
type NodeStatus struct {
	Node
	// At is when it was probed last; zero means never.
	At time.Time `json:"at,omitzero"`
	// Version is that of the bundle that was published then, BundleSeen the latest
	// whose keys the node was seen to trust, and no others.
	Version    uint64 `json:"version"`
	BundleSeen uint64 `json:"bundle_seen"`
	// Keys has the answers by fingerprint.
	Keys map[string]KeyProbe `json:"keys"`
	// Canary is the answer to a certificate that every revocation list revokes. It
	// must be refused: a node that accepts it has no list, or an empty one. Nil if it
	// was not asked.
	Canary *KeyProbe `json:"canary"`
	// RevocationSeen is the latest version of the revocation list that the node was
	// seen to have.
	RevocationSeen uint64 `json:"revocation_seen"`
	// SkewSeconds is the node's clock less ours; nil if it could not be had.
	SkewSeconds *float64 `json:"skew_seconds"`
	// Sessions is how many the node granted at once on one connection, counted to
	// one more than are configured, when [Authority.Probe] asked last; nil if that
	// could not be had.
	Sessions *int `json:"sessions"`
}

// Probe asks every node for every key that signs, did, or will, and keeps the
// answers. Rounds follow one another. It returns what is known of all nodes.
func (a *Authority) Probe(ctx context.Context) ([]NodeStatus, error) { return a.probe(ctx, true) }

// probe counts sessions only if it is asked to: sshd logs the one that it refuses.
func (a *Authority) probe(ctx context.Context, countSessions bool) ([]NodeStatus, error) {
	if a.rotation.Prober == nil || a.rotation.ProbeUser == "" {
		return nil, refuseStep("set ca.rotation.probe_login to an account that exists on every node, and enable the executor", "nodes cannot be probed")
	}
	select {
	case a.probing <- struct{}{}:
		defer func() { <-a.probing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v, err := a.ring.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: key ring: %w", ErrUnavailable, err)
	}
	r, err := a.newRound(ctx, v)
	if err != nil {
		return nil, err
	}
	if login, ok := r.logins[r.active]; ok && countSessions {
		login.CountSessions = true
		r.logins[r.active] = login
	}
	nodes := a.rotation.Prober.Nodes()
	list := make([]NodeStatus, len(nodes))
	errs := make([]error, len(nodes))
	eachNode(nodes, func(i int, node Node) { list[i], errs[i] = a.probeNode(ctx, v, node, r) })
	return list, errors.Join(errs...)
}

// eachNode asks all nodes, some of them at once, and waits for the last one.
func eachNode(nodes []Node, ask func(i int, node Node)) {
	slots := make(chan struct{}, probesAtOnce)
	var round sync.WaitGroup
	for i, node := range nodes {
		round.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ask(i, node)
		})
	}
	round.Wait()
}

// probeNode asks one node, key after key, and keeps the answers.
func (a *Authority) probeNode(ctx context.Context, v *ringView, node Node, r probeRound) (NodeStatus, error) {
	s, entry, err := a.lastProbe(ctx, node)
	if err != nil {
		return s, err
	}
	last := s
	s.Keys = make(map[string]KeyProbe)
	s.At, s.Version, s.SkewSeconds, s.Canary = time.Now().UTC(), v.Version, nil, nil
	current := true
	for _, k := range v.Keys {
		fp := k.fingerprint()
		login, ok := r.logins[fp]
		if !ok {
			continue
		}
		answer := a.rotation.Prober.Probe(ctx, node, login)
		s.Keys[fp] = answer.after(last.Keys[fp], last.Version == v.Version)
		if !answer.Clock.IsZero() {
			// The node's clock is cut to seconds: on average it was half a second later.
			skew := answer.Clock.Add(500 * time.Millisecond).Sub(answer.ClockAsked).Round(100 * time.Millisecond).Seconds()
			s.SkewSeconds = &skew
		}
		if login.CountSessions {
			s.Sessions = answer.Sessions
		}
		want := Refused
		if k.Published {
			want = Accepted
		}
		if answer.Outcome != want {
			current = false
			a.warnOfNode(ctx, node, k, answer)
		}
	}
	if current {
		s.BundleSeen = v.Version
	}
	a.askRevocation(ctx, &s, r)
	if ctx.Err() != nil {
		return s, ctx.Err() // cut short: these answers are none
	}
	if entry.Value, err = json.Marshal(s); err != nil {
		return s, fmt.Errorf("encode probe: %w", err)
	}
	if _, err := a.store.Put(ctx, entry); err != nil && !errors.Is(err, store.ErrConflict) {
		return s, fmt.Errorf("%w: probe of %s: %w", ErrUnavailable, node.Address, err)
	}
	return s, nil
}

// after is the answer as it is kept, behind the one before it.
func (p ProbeAnswer) after(last KeyProbe, sameBundle bool) KeyProbe {
	now := time.Now().UTC()
	k := KeyProbe{Outcome: p.Outcome, Detail: clipDetail(p.Detail), At: now, Since: now}
	if sameBundle && last.Outcome == p.Outcome && !last.Since.IsZero() {
		k.Since = last.Since
	}
	return k
}

// askRevocation sees which revocation list a node has. Only a node that accepts the
// active key can show it by a refusal. A refused login costs the service's address a
// penalty (OpenSSH 9.8), so the canary is asked only if the marker was not refused.
func (a *Authority) askRevocation(ctx context.Context, s *NodeStatus, r probeRound) {
	if r.canary == nil {
		return
	}
	answer := ProbeAnswer{Outcome: Unknown, Detail: "the node does not accept the active key"}
	if s.Keys[r.active].Outcome == Accepted {
		if r.marker != nil {
			answer = a.rotation.Prober.Probe(ctx, s.Node, *r.marker)
		}
		if answer.Outcome == Refused {
			s.RevocationSeen = max(s.RevocationSeen, r.version)
		} else {
			answer = a.rotation.Prober.Probe(ctx, s.Node, *r.canary)
		}
	}
	canary := answer.after(KeyProbe{}, false)
	s.Canary = &canary
	if answer.Outcome == Accepted {
		s.RevocationSeen = 0
		a.logger.WarnContext(ctx, "login node accepts a revoked certificate: its RevokedKeys is missing or empty",
			slog.String("system", s.System), slog.String("node", s.Address))
	}
}

func clipDetail(s string) string { return s[:min(len(s), 300)] }

// warnOfNode logs what a healthy node does not do, or not for long.
func (a *Authority) warnOfNode(ctx context.Context, node Node, k ringKey, answer ProbeAnswer) {
	a.logger.WarnContext(ctx, "login node does not follow the CA", slog.String("system", node.System), slog.String("node", node.Address),
		slog.String("key", k.fingerprint()), slog.String("state", string(k.State)), slog.Bool("published", k.Published),
		slog.String("outcome", string(answer.Outcome)), slog.String("detail", clipDetail(answer.Detail)))
}

// lastProbe reads what is known of a node; the zero status if nothing is.
func (a *Authority) lastProbe(ctx context.Context, node Node) (NodeStatus, store.Entry, error) {
	key := probePrefix + node.Address
	entry, err := a.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return NodeStatus{Node: node}, store.Entry{Key: key}, nil
	}
	if err != nil {
		return NodeStatus{Node: node}, entry, fmt.Errorf("%w: probe of %s: %w", ErrUnavailable, node.Address, err)
	}
	var s NodeStatus
	if err := json.Unmarshal(entry.Value, &s); err != nil {
		return NodeStatus{Node: node}, entry, nil //nolint:nilerr // as good as none: the next probe replaces it
	}
	s.Node = node
	return s, entry, nil
}

// Nodes is what is known of all nodes, in the order of the configuration. It asks
// none of them.
func (a *Authority) Nodes(ctx context.Context) ([]NodeStatus, error) {
	if a.rotation.Prober == nil {
		return nil, nil
	}
	var list []NodeStatus
	for _, node := range a.rotation.Prober.Nodes() {
		s, _, err := a.lastProbe(ctx, node)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// Watch probes at every interval until ctx ends.
func (a *Authority) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := a.probe(ctx, false); err != nil && ctx.Err() == nil {
			a.logger.WarnContext(ctx, "login nodes were not probed", slog.Any("error", err))
		}
	}
}
