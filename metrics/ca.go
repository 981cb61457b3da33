package metrics

import (
	"context"
	"time"

	"sallyport/ca"
)

var (
	caKeys       = gauge("ca_keys", "CA keys, by state.", "state")
	caActive     = gauge("ca_active_key_activated_timestamp_seconds", "When the active CA key was activated.")
	caNodeProbed = gauge("ca_node_probed_timestamp_seconds", "When a login last tried what the node trusts.", "system", "node")
	caTrust      = gauge("ca_node_trust", "What the node made of the CA keys of a state: 1 accepted, 0 refused; absent while unknown.", "system", "node", "state")
	caCanary     = gauge("ca_node_canary", "1: the node refuses the revoked canary, as it must; 0: it accepts it, so RevokedKeys is not in force.", "system", "node")
)

// readTime bounds how long a scrape waits for the store.
const readTime = 2 * time.Second

// CA adds what an authority knows of its keys, and of what login nodes make of them.
func (m *Metrics) CA(authority interface {
	Keys() []ca.KeyStatus
	Nodes(ctx context.Context) ([]ca.NodeStatus, error)
},
) {
	m.registry.MustRegister(snapshot(func() []sample {
		keys := authority.Keys()
		samples := keySamples(keys)
		ctx, cancel := context.WithTimeout(context.Background(), readTime)
		defer cancel()
		nodes, err := authority.Nodes(ctx)
		if err != nil {
			return samples // the store's own check fails /readyz
		}
		states := make(map[string]ca.KeyState, len(keys))
		for _, k := range keys {
			states[k.Fingerprint] = k.State
		}
		for _, n := range nodes {
			samples = append(samples, nodeSamples(n, states)...)
		}
		return samples
	}))
}

func keySamples(keys []ca.KeyStatus) []sample {
	counts := map[ca.KeyState]int{ca.KeyActive: 0}
	var samples []sample
	for _, k := range keys {
		counts[k.State]++
		if k.State == ca.KeyActive {
			samples = append(samples, of(caActive, unix(k.ActivatedAt)))
		}
	}
	for state, n := range counts {
		samples = append(samples, of(caKeys, n, string(state)))
	}
	return samples
}

func nodeSamples(n ca.NodeStatus, states map[string]ca.KeyState) []sample {
	at := []string{n.System, n.Address}
	samples := []sample{of(caNodeProbed, unix(n.At), at...)}
	if n.Canary != nil && n.Canary.Outcome != ca.Unknown {
		samples = append(samples, of(caCanary, truth(n.Canary.Outcome == ca.Refused), at...))
	}
	trust := make(map[ca.KeyState]bool)
	for fingerprint, answer := range n.Keys {
		if state, known := states[fingerprint]; known && answer.Outcome != ca.Unknown {
			trust[state] = trust[state] || answer.Outcome == ca.Accepted
		}
	}
	for state, trusted := range trust {
		samples = append(samples, of(caTrust, truth(trusted), n.System, n.Address, string(state)))
	}
	return samples
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

var (
	caManifestExpires = gauge("ca_manifest_expires_timestamp_seconds", "When the manifest ends that login nodes are given.")
	caManifestDue     = gauge("ca_manifest_signature_due", "1: login nodes do not get what has changed, because the distribution key has not signed it.")
)

// Distribution adds what login nodes are given; expires is zero while they are given nothing.
func (m *Metrics) Distribution(look func() (expires time.Time, due bool)) {
	m.registry.MustRegister(snapshot(func() []sample {
		expires, due := look()
		n := 0
		if due {
			n = 1
		}
		samples := []sample{of(caManifestDue, n)}
		if !expires.IsZero() {
			samples = append(samples, of(caManifestExpires, unix(expires)))
		}
		return samples
	}))
}
