package nodesync

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// A rule is what sshd's configuration should say for a connection of the service.
type rule struct {
	keyword string
	good    func(value string) bool
	verdict Verdict // if it is not so
	remedy  string
}

func is(want string) func(string) bool { return func(v string) bool { return v == want } }

const dropInRemedy = `install what "sallyport sshd-config" prints, before any other Match block that sets this keyword`

func (i *inspector) rules() []rule {
	none := func(v string) bool { return v == "" || v == "none" }
	return []rule{
		{"trustedusercakeys", is(i.path(TrustFile)), Bad, dropInRemedy},
		{"revokedkeys", is(i.path(RevocationFile)), Bad, dropInRemedy},
		{"pubkeyauthentication", is("yes"), Bad, dropInRemedy},
		{"authorizedprincipalsfile", none, Bad, "it decides which certificates may log in: move it into a Match block for other addresses"},
		{"authorizedprincipalscommand", none, Bad, "it decides which certificates may log in: move it into a Match block for other addresses"},
		{"authorizedkeysfile", is("none"), Warning, dropInRemedy},
		{"forcecommand", none, Warning, "it runs in place of every command, and of SFTP for users who may run none, by their login shell: move it into a Match block for other addresses"},
		{"permituserenvironment", func(v string) bool { return v == "" || v == "no" }, Warning, "~/.ssh/environment is read before SFTP too, and /etc/ssh/sshrc runs with it: set it to no"},
		{"permitrootlogin", is("no"), Bad, dropInRemedy},
		{"denygroups", func(v string) bool { return v != "" }, Warning, dropInRemedy},
		{"passwordauthentication", is("no"), Warning, dropInRemedy},
		{"disableforwarding", is("yes"), Warning, dropInRemedy + "; on a jump host this is meant"},
		{"maxsessions", func(v string) bool { return len(v) > 1 }, Warning, "each connection of a user carries few commands: " + dropInRemedy},
		{"maxstartups", func(v string) bool { return v != "10:30:100" }, Warning, "sshd drops connections when the service dials for many users at once: raise MaxStartups outside of Match blocks"},
		{"loglevel", func(v string) bool {
			return strings.EqualFold(v, "VERBOSE") || strings.HasPrefix(strings.ToUpper(v), "DEBUG")
		}, Warning, "refused certificates are not logged: " + dropInRemedy},
	}
}

// effective reads what sshd would do for a connection of the service (sshd -T -C).
func (i *inspector) effective(ctx context.Context, version [2]int) {
	const check = "sshd configuration"
	if i.SSHD == "" {
		return
	}
	args := []string{"-T", "-C", fmt.Sprintf("user=%s,host=%s,addr=%[2]s,laddr=%[2]s,lport=22", i.User, i.Appliance)}
	if i.SSHDConfig != "" {
		args = append(args, "-f", i.SSHDConfig)
	}
	out, code, err := runTool(ctx, i.SSHD, args...)
	if err != nil || code != 0 {
		i.add(check, Unknown, fmt.Sprintf("sshd -T -C fails: %s", out), "run this as root")
		return
	}
	values := map[string][]string{}
	for line := range strings.Lines(out) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		keyword = strings.ToLower(keyword)
		values[keyword] = append(values[keyword], value)
	}
	for _, r := range i.rules() {
		value := strings.Join(values[r.keyword], " ")
		if r.good(value) {
			i.add(check, Good, r.keyword+" "+value, "")
		} else {
			i.add(check, r.verdict, fmt.Sprintf("%s is %q for connections from %s", r.keyword, value, i.Appliance), r.remedy)
		}
	}
	i.penalties(version, values)
	i.hostKeys(values["hostkey"])
}

// penalties are those of OpenSSH 9.8 and later for an address: a few refused logins of one user shut out all.
func (i *inspector) penalties(version [2]int, values map[string][]string) {
	if slices.Compare(version[:], []int{9, 8}) < 0 {
		return
	}
	exempt := strings.Join(values["persourcepenaltyexemptlist"], ",")
	on := strings.Join(values["persourcepenalties"], " ")
	if on == "no" || exempts(exempt, i.Appliance) {
		i.add("sshd configuration", Good, "PerSourcePenalties do not meet "+i.Appliance, "")
		return
	}
	i.add("sshd configuration", Bad, fmt.Sprintf("PerSourcePenalties can shut out %s, and with it all users", i.Appliance),
		"set PerSourcePenaltyExemptList to the addresses of the service, outside of Match blocks")
}

func exempts(list, address string) bool {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if prefix, err := netip.ParsePrefix(item); err == nil && prefix.Contains(addr) || item == address {
			return true
		}
	}
	return false
}

func (i *inspector) hostKeys(paths []string) {
	found := 0
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.Mode().Perm()&0o077 != 0:
			i.add("host key", Bad, fmt.Sprintf("%s has mode %04o, so sshd does not use it", path, info.Mode().Perm()), "chmod 600 "+path)
		default:
			found++
		}
	}
	if found == 0 {
		i.add("host key", Bad, "none can be used: sshd answers nobody", "ssh-keygen -A")
		return
	}
	i.add("host key", Good, fmt.Sprintf("%d can be used", found), "")
}
