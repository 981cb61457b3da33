package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/ca"
	sshdconfig "sallyport/sshd-config"
	"sallyport/sshd-config/nodesync"
)

// checkTimeout bounds what is asked of one node without a login.
const checkTimeout = 10 * time.Second

func checkSystem(ctx context.Context, s streams, config, name string, must refusals) ([]checked, error) {
	f, err := loadConfig(config, s.getenv)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(f.Systems, func(sys SystemSection) bool { return sys.Name == name })
	if at < 0 {
		return nil, fmt.Errorf("the configuration has no system %q", name)
	}
	system := f.Systems[at]
	known, err := knownhosts.New(system.KnownHosts...)
	if err != nil {
		return nil, fmt.Errorf("known_hosts of %q: %w", name, err)
	}
	addresses := system.Nodes
	if system.Jump != "" {
		addresses = append([]string{system.Jump}, addresses...)
	}
	var list []checked
	for _, address := range addresses {
		if system.Jump != "" && address != system.Jump {
			continue // only the jump host can reach it; the probe goes through
		}
		for _, finding := range askNode(ctx, address, known, int(system.MaxHandshakes)) {
			list = append(list, checked{address, finding})
		}
	}
	if !f.CA.Enabled || f.CA.Rotation.ProbeLogin == "" {
		return append(list, checked{Finding: nodesync.Finding{
			Check: "login", Verdict: nodesync.Unknown, Detail: "no login was tried",
			Remedy: "set ca.rotation.probe_login to an account that exists on every node",
		}}), nil
	}
	probed, err := probeFindings(ctx, s, config, system)
	if err != nil {
		return list, err
	}
	refused, err := must.findings(ctx, s, config, system)
	return slices.Concat(list, probed, refused), err
}

// askNode learns what a node shows before any login.
func askNode(ctx context.Context, address string, known ssh.HostKeyCallback, handshakes int) []nodesync.Finding {
	version, err := handshake(ctx, address, known, nil)
	keyErr, isKeyErr := errors.AsType[*knownhosts.KeyError](err)
	if isKeyErr && len(keyErr.Want) > 0 { // another type of key may be the one that we know
		var algorithms []string
		for _, k := range keyErr.Want {
			algorithms = append(algorithms, hostKeyAlgorithms(k.Key.Type())...)
		}
		version, err = handshake(ctx, address, known, algorithms)
		keyErr, isKeyErr = errors.AsType[*knownhosts.KeyError](err)
	}
	var list []nodesync.Finding
	add := func(check string, v nodesync.Verdict, detail, remedy string) {
		list = append(list, nodesync.Finding{Check: check, Verdict: v, Detail: detail, Remedy: remedy})
	}
	switch {
	case err == nil:
		add("host key", nodesync.Good, "it is in known_hosts", "")
	case isKeyErr && len(keyErr.Want) == 0:
		add("host key", nodesync.Bad, "the node is not in known_hosts", "have its administrator tell you its key (ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub), and add it")
	case isKeyErr:
		add("host key", nodesync.Bad, "it is not the one in known_hosts: the node was made anew, or somebody is in between", "compare with the node's console before you change known_hosts")
	default:
		add("connection", nodesync.Bad, err.Error(), "see whether sshd runs there, and whether a firewall or PerSourcePenalties keep this host out")
		return list
	}
	v, err := sshdconfig.ParseVersion(version)
	switch {
	case err != nil:
		add("sshd", nodesync.Unknown, fmt.Sprintf("%.100q is no version of OpenSSH", version), "")
	case v.Major > 9 || v.Major == 9 && v.Minor >= 8:
		add("sshd", nodesync.Warning, "OpenSSH "+v.String()+" has PerSourcePenalties: refused logins of one user can shut out this service", "look there: sallyport node check --local --appliance ADDRESS")
	default:
		add("sshd", nodesync.Good, "OpenSSH "+v.String(), "")
	}
	return append(list, startupsFinding(ctx, address, handshakes, v))
}

// hostKeyAlgorithms are those for a type of key; RSA keys sign with SHA-2.
func hostKeyAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

var errHostKeySeen = errors.New("the host key is good, and no login follows")

// handshake goes as far as the host key, and returns the version that the node sent.
func handshake(ctx context.Context, address string, known ssh.HostKeyCallback, algorithms []string) (string, error) {
	dialer := net.Dialer{Timeout: checkTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer raw.Close() //nolint:errcheck // nothing was sent that counts
	if err := raw.SetDeadline(time.Now().Add(checkTimeout)); err != nil {
		return "", err
	}
	conn := &banner{Conn: raw}
	_, _, _, err = ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User: "sallyport", HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			if err := known(host, remote, key); err != nil {
				return err
			}
			return errHostKeySeen
		},
	})
	if errors.Is(err, errHostKeySeen) {
		err = nil
	}
	version, _, _ := strings.Cut(string(conn.first), "\n")
	return strings.TrimSpace(version), err
}

// A banner keeps the first bytes that a node sends.
type banner struct {
	net.Conn
	first []byte
}

func (b *banner) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if room := 255 - len(b.first); room > 0 {
		b.first = append(b.first, p[:min(n, room)]...)
	}
	return n, err
}

// probeFindings has the service log in on the nodes, and reads what came of it.
func probeFindings(ctx context.Context, s streams, config string, system SystemSection) (list []checked, err error) {
	err = withRing(s, config, func(ring adminRing) error {
		nodes, err := ring.Probe(ctx)
		if err != nil {
			return err
		}
		status, err := ring.RingStatus(ctx)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			isNode := slices.Contains(system.Nodes, n.Address)
			if !isNode && n.Address != system.Jump {
				continue
			}
			findings := nodeFindings(n, status.Version)
			if isNode { // a jump host needs no session
				findings = append(findings, sessionsFinding(n.Sessions, int(system.MaxSessions)))
			}
			for _, f := range findings {
				list = append(list, checked{n.Address, f})
			}
		}
		return nil
	})
	return list, err
}

// sessionsFinding compares what a node grants on one connection with max_sessions.
func sessionsFinding(granted *int, want int) nodesync.Finding {
	f := nodesync.Finding{Check: "sessions", Verdict: nodesync.Good}
	switch {
	case granted == nil:
		f.Verdict, f.Detail = nodesync.Unknown, "it is not known how many sessions one connection is granted"
	case *granted > want:
		f.Detail = fmt.Sprintf("one connection is granted the %d of max_sessions, and more", want)
	case *granted == want:
		f.Detail = fmt.Sprintf("one connection is granted %d, as max_sessions says", want)
	default:
		f.Verdict, f.Detail = nodesync.Warning, fmt.Sprintf("one connection is granted %d, and max_sessions is %d", *granted, want)
		f.Remedy = fmt.Sprintf("on the node: MaxSessions %d in sshd's configuration; or max_sessions = %d here", want, max(*granted, 1))
	}
	if granted != nil && *granted == 0 {
		f.Verdict = nodesync.Bad
	}
	return f
}

func nodeFindings(n ca.NodeStatus, bundle uint64) []nodesync.Finding {
	const sync = "on the node: systemctl start sallyport-node-sync.service; sallyport node check --local"
	trust := nodesync.Finding{Check: "trusted keys", Verdict: nodesync.Good, Detail: fmt.Sprintf("those of bundle %d, and no others", bundle)}
	if n.BundleSeen != bundle {
		var answers []string
		for fingerprint, k := range n.Keys {
			answers = append(answers, strings.TrimSpace(fmt.Sprintf("%s %s %s", fingerprint, k.Outcome, k.Detail)))
		}
		slices.Sort(answers)
		trust.Verdict, trust.Remedy = nodesync.Bad, sync
		trust.Detail = fmt.Sprintf("it does not follow bundle %d: %s", bundle, strings.Join(answers, ", "))
	}
	revoked := nodesync.Finding{Check: "revocation", Verdict: nodesync.Good, Detail: "a revoked certificate is refused"}
	switch {
	case n.Canary == nil || n.Canary.Outcome == ca.Unknown:
		revoked.Verdict, revoked.Detail, revoked.Remedy = nodesync.Unknown, "it is not known whether a revoked certificate is refused", ""
	case n.Canary.Outcome == ca.Accepted:
		revoked.Verdict, revoked.Detail, revoked.Remedy = nodesync.Bad, "a revoked certificate is accepted: RevokedKeys is not set, or its file is empty", sync
	}
	clock := nodesync.Finding{Check: "clock", Verdict: nodesync.Unknown, Detail: "the probe account cannot tell the time"}
	if n.SkewSeconds != nil {
		clock = skewFinding(time.Duration(*n.SkewSeconds*float64(time.Second)), nil)
	}
	return []nodesync.Finding{trust, revoked, clock}
}
