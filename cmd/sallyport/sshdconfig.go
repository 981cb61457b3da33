package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	sshdconfig "sallyport/sshd-config"
)

const sshdConfigLong = `Print the sshd_config drop-in that makes a login node trust this service: the CA
counts only for connections from the given addresses, and each line says why it
is there. Put it into /etc/ssh/sshd_config.d/ on every login node.`

func newSSHDConfig(s streams) *cobra.Command {
	var (
		addresses []string
		nodeSSHD  string
		part      string
		caKeys    []string
		cfg       sshdconfig.Config
	)
	cmd := &cobra.Command{
		Use: "sshd-config", Short: "Print the sshd_config for login nodes", GroupID: "admin", Long: sshdConfigLong, Args: exactArgs(),
		Example: "  sallyport sshd-config --address 192.0.2.10 --sshd-version 9.2 >10-sallyport.conf",
	}
	f := cmd.Flags()
	f.StringSliceVar(&addresses, "address", nil, "address or CIDR network from which this service connects (required; may be repeated)")
	f.StringVar(&nodeSSHD, "sshd-version", "", "OpenSSH version of the nodes, such as 9.2 (default: what OpenSSH 8.0 takes)")
	f.StringVar(&part, "part", "all", `"all", "global" (what cannot stand in a Match block) or "match"`)
	f.StringSliceVar(&caKeys, "ca-key", nil, "public key file of the CA, whose fingerprint is shown as a comment and whose type is allowed")
	f.StringVar(&cfg.TrustedUserCAKeys, "trusted-user-ca-keys", sshdconfig.DefaultTrustedUserCAKeys, "where the node keeps the CA's public keys")
	f.StringVar(&cfg.RevokedKeys, "revoked-keys", sshdconfig.DefaultRevokedKeys, "where the node keeps the revocation list")
	f.StringSliceVar(&cfg.DenyGroups, "deny-group", sshdconfig.DefaultDenyGroups(), "groups whose members may not log in through this service")
	f.IntVar(&cfg.MaxSessions, "max-sessions", 64, "sessions on one connection")
	f.StringVar(&cfg.MaxStartups, "max-startups", "200:30:1000", "unauthenticated connections of the whole node")
	f.StringSliceVar(&cfg.JumpTargets, "jump-target", nil, "host:port that this node may be a jump host to")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := fillSSHDConfig(&cfg, addresses, nodeSSHD, caKeys); err != nil {
			return usageError{err}
		}
		dropIn, err := sshdconfig.Render(cfg)
		if err != nil {
			return usageError{err}
		}
		texts := map[string]string{"all": dropIn.String(), "global": dropIn.Global, "match": dropIn.Match}
		text, ok := texts[part]
		if !ok {
			return usageError{fmt.Errorf(`--part: %q is not "all", "global" or "match"`, part)}
		}
		_, err = fmt.Fprint(s.out, text)
		return err
	}
	return cmd
}

func fillSSHDConfig(cfg *sshdconfig.Config, addresses []string, version string, caKeys []string) error {
	if len(addresses) == 0 {
		return errors.New("--address is missing: the address from which this service connects to the nodes")
	}
	for _, a := range addresses {
		prefix, err := sshdconfig.ParseAddress(a)
		if err != nil {
			return fmt.Errorf("--address: %w", err)
		}
		cfg.Addresses = append(cfg.Addresses, prefix)
	}
	if version != "" {
		v, err := sshdconfig.ParseVersion(version)
		if err != nil {
			return fmt.Errorf("--sshd-version: %w", err)
		}
		cfg.Version = v
	}
	for _, path := range caKeys {
		text, err := readBounded(path, 64<<10)
		if err != nil {
			return fmt.Errorf("--ca-key: %w", err)
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			return fmt.Errorf("--ca-key: %q is no public key file", path)
		}
		cfg.CAFingerprints = append(cfg.CAFingerprints, ssh.FingerprintSHA256(key))
		cfg.CASignatureAlgorithms = append(cfg.CASignatureAlgorithms, signatureAlgorithm(key.Type()))
	}
	return nil
}

// signatureAlgorithm is what a CA key of this type signs with here.
func signatureAlgorithm(keyType string) string {
	if keyType == ssh.KeyAlgoRSA {
		return ssh.KeyAlgoRSASHA512
	}
	return keyType
}

// prefixes parses networks that were checked when the configuration was read.
func prefixes(list []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
