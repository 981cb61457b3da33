package loginnode

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// layout knows where each file of a node is.
type layout struct{ dir string }

func (l layout) path(name ...string) string {
	return filepath.Join(append([]string{l.dir}, name...)...)
}
func (l layout) config() string                { return l.path("sshd_config") }
func (l layout) log() string                   { return l.path("sshd.log") }
func (l layout) setup() string                 { return l.path("setup.sh") }
func (l layout) knownHosts() string            { return l.path("known_hosts") }
func (l layout) trust() string                 { return l.path("ca", "trusted_user_ca_keys") }
func (l layout) revoked() string               { return l.path("ca", "revoked.krl") }
func (l layout) home(user string) string       { return l.path("home", user) }
func (l layout) hostKey(kind string) string    { return l.path("ssh_host_" + kind + "_key") }
func (l layout) authorized(user string) string { return l.path("authorized_keys", user) }

// write makes every file that does not depend on the port.
func (l layout) write(cfg Config, accounts map[string]account, version sshVersion) error {
	for _, name := range []string{"", "etc", "ca", "home", "authorized_keys", "sshd_config.d"} {
		if err := makeFolder(l.path(name), 0o755, os.Geteuid(), os.Getegid()); err != nil {
			return err
		}
	}
	files := map[string]string{
		l.trust():                          string(cfg.TrustedUserCAKeys),
		l.revoked():                        string(cfg.RevokedKeys),
		l.path("sshd_config.d", "10.conf"): cfg.Extra,
		l.log():                            "",
	}
	if cfg.Setup != "" {
		files[l.setup()] = cfg.Setup
	}
	for name, a := range accounts {
		if len(a.AuthorizedKeys) > 0 {
			files[l.authorized(name)] = string(a.AuthorizedKeys)
		}
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // public: trust lists, keys and the log
			return err
		}
	}
	if os.Geteuid() == 0 {
		if err := l.writeAccounts(accounts); err != nil {
			return err
		}
	}
	if err := l.writeHostKeys(cfg); err != nil {
		return err
	}
	return os.WriteFile(l.config(), []byte(l.sshdConfig(cfg, accounts, version)), 0o600)
}

func makeFolder(path string, mode os.FileMode, uid, gid int) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask
}

// writeAccounts writes the files that stand in for those of /etc, and makes the homes.
func (l layout) writeAccounts(accounts map[string]account) error {
	rootHome := l.home("root")
	if err := makeFolder(rootHome, 0o700, 0, 0); err != nil {
		return err
	}
	var passwd, group, shadow strings.Builder
	fmt.Fprintf(&passwd, builtinAccounts, rootHome)
	group.WriteString(builtinGroups)
	// "*" is a password that never matches. sshd takes "!", what useradd writes, for a locked account and refuses it when
	// PAM is off (auth.c, allowed_user).
	shadow.WriteString("root:*:20000:0:99999:7:::\n")
	members := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		a := accounts[name]
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", name, a.uid, a.gid, name, a.home, a.Shell)
		fmt.Fprintf(&group, "%s:x:%d:\n", name, a.gid)
		fmt.Fprintf(&shadow, "%s:*:20000:0:99999:7:::\n", name)
		for _, g := range a.Groups {
			members[g] = append(members[g], name)
		}
		if err := makeFolder(a.home, 0o700, a.uid, a.gid); err != nil {
			return err
		}
	}
	writeGroups(&group, members)
	for name, text := range map[string]string{
		"passwd": passwd.String(), "group": group.String(), "shadow": shadow.String(),
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
	} {
		mode := os.FileMode(0o644)
		if name == "shadow" {
			mode = 0o600
		}
		if err := os.WriteFile(l.path("etc", name), []byte(text), mode); err != nil {
			return err
		}
	}
	return nil
}

// writeGroups adds the groups that users share; they are numbered down from the end of the range.
func writeGroups(group *strings.Builder, members map[string][]string) {
	gid := lastID
	for _, name := range slices.Sorted(maps.Keys(members)) {
		fmt.Fprintf(group, "%s:x:%d:%s\n", name, gid, strings.Join(members[name], ","))
		gid--
	}
}

// sshdConfig is all of sshd_config but the port, which is an argument of sshd.
func (l layout) sshdConfig(cfg Config, accounts map[string]account, version sshVersion) string {
	number := func(n, def int) string {
		if n == 0 {
			n = def
		}
		return strconv.Itoa(n)
	}
	lines := []string{
		"Include " + l.path("sshd_config.d", "*.conf"),
		"ListenAddress 127.0.0.1",
		"PidFile none",
		"TrustedUserCAKeys " + l.trust(),
		"RevokedKeys " + l.revoked(),
		"AuthorizedKeysFile " + l.authorizedKeysFile(accounts),
		"StrictModes no", // Dir is often below the world-writable /tmp
		"AuthenticationMethods publickey",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"UsePAM no",
		"PermitRootLogin no",
		"MaxSessions " + number(cfg.MaxSessions, 10),
		"MaxAuthTries " + number(cfg.MaxAuthTries, 6),
		"UseDNS no",
		"LogLevel VERBOSE",
		"SetEnv " + l.marker(),
	}
	if cfg.SFTP != "none" {
		lines = append(lines, "Subsystem sftp "+cmp.Or(cfg.SFTP, "internal-sftp"))
	}
	// With older sshd, 9.2 among them, the last MaxStartups wins; of every other keyword the first does.
	if cfg.MaxStartups != "" || !strings.Contains(strings.ToLower(cfg.Extra), "maxstartups") {
		lines = append(lines, "MaxStartups "+cfg.startups())
	}
	if version.atLeast(9, 8) {
		lines = append(lines, "PerSourcePenalties no") // or failed logins of tests shut out 127.0.0.1
	}
	for _, kind := range cfg.hostKeyKinds() {
		lines = append(lines, "HostKey "+l.hostKey(kind))
		if cfg.HostCA {
			lines = append(lines, "HostCertificate "+l.hostKey(kind)+"-cert.pub")
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func (c Config) startups() string {
	if c.MaxStartups == "" {
		return "1000:30:2000"
	}
	return c.MaxStartups
}

func (l layout) authorizedKeysFile(accounts map[string]account) string {
	for _, a := range accounts {
		if len(a.AuthorizedKeys) > 0 {
			return l.authorized("%u")
		}
	}
	return "none"
}

// marker is an environment variable of every session: without root it tells which processes are the node's.
func (l layout) marker() string { return "SALLYPORT_LOGINNODE=" + l.dir }

// replaceFile makes the new content appear at once or not at all.
func replaceFile(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("loginnode: %w", err)
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(0o644), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path) //nolint:gosec // a path of the node's own folder
	}
	if err != nil {
		gone := os.Remove(temp.Name()) //nolint:gosec // the name that os.CreateTemp chose
		return fmt.Errorf("loginnode: %w", errors.Join(err, gone))
	}
	return nil
}
