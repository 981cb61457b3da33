package sshdconfig

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// DropIn is sshd_config text. Both parts end with a newline and may stand in one file in the order of String.
type DropIn struct {
	// Global holds what sshd takes only before the first Match block.
	Global string
	// Match is the block for connections of Sallyport. It ends with "Match all", so that text after it is not part of it.
	Match string
}

// String is the whole file: instructions for the administrator, the global part and the Match block.
func (d DropIn) String() string { return d.Global + "\n" + d.Match }

// Render writes the text, or reports every mistake in the configuration.
func Render(cfg Config) (DropIn, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return DropIn{}, fmt.Errorf("sshd-config: %w", err)
	}
	var global, match strings.Builder
	comment(&global, "", cfg.instructions())
	for _, l := range cfg.globalLines() {
		global.WriteByte('\n')
		l.write(&global, "", cfg.Version)
	}
	comment(&match, "", matchTitle)
	match.WriteString("Match Address " + joined(cfg.Addresses) + "\n")
	for i, l := range cfg.matchLines() {
		if i > 0 {
			match.WriteByte('\n')
		}
		l.write(&match, "    ", cfg.Version)
	}
	match.WriteString("\n# The block ends here, whatever follows.\nMatch all\n")
	return DropIn{Global: global.String(), Match: match.String()}, nil
}

// line is one keyword with its reason.
type line struct {
	keyword, value string
	why            string
	since          Version // that takes the keyword at this place; zero: every known one
}

func (l line) write(b *strings.Builder, indent string, node Version) {
	comment(b, indent, l.why)
	if node.before(l.since) {
		comment(b, indent, fmt.Sprintf("OpenSSH %v does not take this; from %v on remove the mark:", node, l.since))
		indent += "#"
	}
	b.WriteString(indent + l.keyword + " " + l.value + "\n")
}

// comment writes text as comment lines, wrapped at words.
func comment(b *strings.Builder, indent, text string) {
	const width = 110
	for paragraph := range strings.SplitSeq(text, "\n") {
		current := indent + "#"
		for word := range strings.FieldsSeq(paragraph) {
			if len(current)+1+len(word) > width {
				b.WriteString(current + "\n")
				current = indent + "#"
			}
			current += " " + word
		}
		b.WriteString(current + "\n")
	}
}

func joined(prefixes []netip.Prefix) string {
	texts := make([]string, 0, len(prefixes))
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}

func (c Config) instructions() string {
	place := `1. This file: /etc/ssh/sshd_config.d/10-sallyport.conf, owned by root, mode 0644. sshd_config must include that folder before its first Match block, and no file before this one may hold a Match block for the same addresses: the first value of a keyword wins.`
	if c.Version.before(Version{8, 2}) {
		place = `1. OpenSSH before 8.2 has no Include: put the first part at the top of /etc/ssh/sshd_config, and the Match block before the first other Match block or at the end.`
	}
	example := c.Addresses[0].Addr()
	return `Sallyport on a login node (OpenSSH ` + c.Version.String() + `): a short-lived certificate of Sallyport's CA logs a user in, only from Sallyport's address. Made by "sallyport sshd-config".

` + place + `
2. The files that it names. "sallyport node files" writes what fetches and checks them, and keeps them up to date. Owned by root and writable by root only: sshd does not check that. With SELinux: restorecon.
3. sshd -t && systemctl reload sshd. Later changes of the two files need no reload.
4. See what holds: sshd -T -C user=alice,host=sallyport,addr=` + example.String() + `
It must show no authorizedprincipalsfile and no authorizedprincipalscommand but "none". A global one decides which principals may use an account, for Sallyport's certificates too, and sshd cannot switch it off for some connections: move it into a Match block for other addresses.

The firewall may still limit port 22; this text opens nothing.`
}

const matchTitle = `All that follows holds only for connections from Sallyport. Administrators who log in from elsewhere are not touched, not even by a broken file.`

func (c Config) globalLines() []line {
	return []line{
		{
			keyword: "MaxStartups", value: c.MaxStartups,
			why: `Connections that have not authenticated yet, over all clients of the node. With the default 10:30:100 sshd drops 30 in 100 from the tenth on; Sallyport is there soon when it starts and connects for many users at once. Up to 9.2 at least, a later MaxStartups in sshd_config wins over this one: remove it.`,
		},
		{
			keyword: "PerSourcePenaltyExemptList", value: joined(c.Addresses), since: Version{9, 8},
			why: `All users of Sallyport come from its address. A few refused logins of one of them would have sshd shut out all for seconds to minutes.`,
		},
	}
}

func (c Config) matchLines() []line {
	lines := c.trustLines()
	lines = append(lines, c.loginLines()...)
	lines = append(lines, c.forwardingLines()...)
	return append(lines, c.sessionLines()...)
}

// trustLines say which certificates count.
func (c Config) trustLines() []line {
	trust := `The public keys of Sallyport's CA, one a line and nothing else: sshd stops reading at the first line that it cannot parse, without a word. A missing or empty file: no login through Sallyport.`
	if len(c.CAFingerprints) > 0 {
		trust += "\nExpected, as ssh-keygen -l -f shows them: " + strings.Join(c.CAFingerprints, " ")
	}
	return []line{
		{keyword: "TrustedUserCAKeys", value: c.TrustedUserCAKeys, why: trust},
		{
			keyword: "RevokedKeys", value: c.RevokedKeys,
			why: `Certificates and CA keys that count no longer. A missing or damaged file refuses every login through Sallyport. A file of zero length revokes nothing: replace it by rename, never in place.`,
		},
		{
			keyword: "CASignatureAlgorithms", value: strings.Join(c.CASignatureAlgorithms, ","), since: Version{8, 0},
			why: `The CA signs with these only. Add the new one first when the CA changes to a key of another type.`,
		},
		// No "AuthorizedPrincipalsFile none" here, nor the same for AuthorizedPrincipalsCommand: sshd clears "none" only outside of
		// Match blocks (servconf.c, CLEAR_ON_NONE). Here it is the name of a list, and every certificate is refused.
		{
			keyword: "AuthorizedKeysFile", value: "none",
			why: `Only certificates: a key that a user or an intruder left in a home folder does not work from here.`,
		},
		{keyword: "AuthorizedKeysCommand", value: "none", why: `The same, for keys that a program gives, such as those of a directory service.`},
	}
}

// loginLines say who may log in, and how.
func (c Config) loginLines() []line {
	return []line{
		{keyword: "PubkeyAuthentication", value: "yes", why: `Certificates are offered by this method.`},
		{keyword: "AuthenticationMethods", value: "publickey", why: `The certificate is enough, and nothing replaces it.`},
		{keyword: "PasswordAuthentication", value: "no", why: `Sallyport has no passwords; nobody else should try some from its address.`},
		{keyword: "KbdInteractiveAuthentication", value: "no", why: `The same, by the other method that asks.`},
		{keyword: "PermitRootLogin", value: "no", why: `Not even a certificate for root, should the CA ever sign one.`},
		{
			keyword: "DenyGroups", value: strings.Join(c.DenyGroups, " "),
			why: `Members of these groups can become administrators, so a stolen token must not reach their accounts. They log in by another way. Here this list stands in place of a global DenyGroups: add what that names.`,
		},
		{
			keyword: "MaxAuthTries", value: "1",
			why: `Sallyport offers one certificate. With one try sshd also logs the key ID of each refused certificate. By hand: ssh -o CertificateFile=id-cert.pub -i id, as with -i alone ssh offers the plain key first.`,
		},
	}
}

// forwardingLines keep the node from being a way into the network.
func (c Config) forwardingLines() []line {
	if len(c.JumpTargets) == 0 {
		return []line{
			{keyword: "DisableForwarding", value: "yes", why: `No forwarding of any kind: TCP, Unix sockets, agent, X11. It wins over every other keyword.`},
			{keyword: "AllowTcpForwarding", value: "no", why: `Says the same for TCP, for readers and scanners that look for this keyword.`},
			{keyword: "PermitTunnel", value: "no", why: `No network device through the connection.`},
		}
	}
	return []line{
		{
			keyword: "AllowTcpForwarding", value: "local",
			why: `This node is a jump host: Sallyport goes through it, never back. The certificate for it needs the permit-port-forwarding extension.`,
		},
		{keyword: "PermitOpen", value: strings.Join(c.JumpTargets, " "), why: `It leads to these and to nothing else.`},
		{keyword: "PermitListen", value: "none", since: Version{7, 8}, why: `It listens for nobody.`},
		{keyword: "AllowStreamLocalForwarding", value: "no", why: `No Unix sockets.`},
		{keyword: "AllowAgentForwarding", value: "no", why: `Sallyport has no agent to lend.`},
		{keyword: "X11Forwarding", value: "no", why: `No displays.`},
		{keyword: "GatewayPorts", value: "no", why: `No listeners for other hosts.`},
		{keyword: "PermitTunnel", value: "no", why: `No network device through the connection.`},
	}
}

// sessionLines bound what a login may do.
func (c Config) sessionLines() []line {
	return []line{
		{keyword: "PermitTTY", value: "no", why: `Commands run without a terminal.`},
		{keyword: "PermitUserRC", value: "no", why: `~/.ssh/rc would run before each command.`},
		{
			keyword: "MaxSessions", value: strconv.Itoa(c.MaxSessions),
			why: `Commands and transfers at a time on one connection of one user; Sallyport opens further connections above it.`,
		},
		{
			keyword: "LogLevel", value: "VERBOSE", since: Version{8, 0},
			why: `Logs key ID, serial and CA of each certificate, accepted or refused: the link to Sallyport's audit log.`,
		},
		{keyword: "ClientAliveInterval", value: "30", why: `Seconds of silence after which sshd asks whether Sallyport still lives.`},
		{keyword: "ClientAliveCountMax", value: "3", why: `Unanswered questions after which the connection and its sessions end.`},
	}
}
