package loginnode

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// account is a user with the numbers and paths that the node gave it.
type account struct {
	User
	uid, gid int
	home     string
}

// firstID begins the range for users and groups of a node. 60578 to 61183 is in no range that systemd or Debian give away
// (systemd, docs/UIDS-GIDS.md), and below 65536 it exists in containers with mapped ids too.
const firstID, lastID = 60600, 61183

var (
	accountName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	startups    = regexp.MustCompile(`^[0-9]+(:[0-9]+:[0-9]+)?$`)
)

// builtin are the accounts of every node: sshd needs root and its own; nobody and daemon are what programs expect.
const builtinAccounts = `root:x:0:0:root:%s:/bin/sh
daemon:x:1:1:daemon:/:/usr/sbin/nologin
sshd:x:60599:65534:sshd:/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
`

const builtinGroups = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"

func isBuiltin(name string) bool {
	return slices.Contains([]string{"root", "daemon", "sshd", "nobody", "nogroup"}, name)
}

func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if os.Geteuid() == 0 && len(c.Users) == 0 {
		bad("users: at least one is needed as root")
	}
	seen := map[string]bool{}
	for _, u := range c.Users {
		switch {
		case !accountName.MatchString(u.Name):
			bad("users: name %q does not match %s", u.Name, accountName)
		case isBuiltin(u.Name):
			bad("users: %q is an account of every node", u.Name)
		case seen[u.Name]:
			bad("users: %q is given twice", u.Name)
		}
		seen[u.Name] = true
		if u.Shell != "" && (!filepath.IsAbs(u.Shell) || strings.ContainsAny(u.Shell, ":\n")) {
			bad("users: shell %q of %q is no absolute path", u.Shell, u.Name)
		}
		for _, g := range u.Groups {
			if !accountName.MatchString(g) {
				bad("users: group %q of %q does not match %s", g, u.Name, accountName)
			}
		}
	}
	if strings.ContainsAny(c.Dir, " \t\n\"#%") {
		bad("dir: %q holds a character that sshd_config cannot", c.Dir)
	}
	if os.Geteuid() == 0 && strings.HasPrefix(c.Dir+"/", "/run/") {
		bad("dir: %q is below /run, which the node has anew", c.Dir)
	}
	if c.Setup != "" && os.Geteuid() != 0 {
		bad("setup: only root can run it")
	}
	if c.MaxSessions < 0 {
		bad("max sessions: %d is negative", c.MaxSessions)
	}
	if c.MaxAuthTries < 0 {
		bad("max auth tries: %d is negative", c.MaxAuthTries)
	}
	if strings.ContainsAny(c.SFTP, "\n\"") {
		bad("sftp: %q is no command", c.SFTP)
	}
	if c.MaxStartups != "" && !startups.MatchString(c.MaxStartups) {
		bad("max startups: %q is not start:rate:full", c.MaxStartups)
	}
	if !slices.Contains([]string{"", "rsa", "ecdsa"}, c.SecondHostKey) {
		bad("second host key: %q is neither rsa nor ecdsa", c.SecondHostKey)
	}
	if len(errs) > 0 {
		return fmt.Errorf("loginnode: %w", errors.Join(errs...))
	}
	return nil
}

// accounts gives each user its numbers and home.
func (c Config) accounts(l layout) (map[string]account, error) {
	if os.Geteuid() != 0 {
		return c.currentUser()
	}
	accounts := map[string]account{}
	id := firstID
	for _, u := range c.Users {
		for taken(id) {
			id++
		}
		if id > lastID {
			return nil, fmt.Errorf("users: no number between %d and %d is free on this host", firstID, lastID)
		}
		if u.Shell == "" {
			u.Shell = "/bin/sh"
		}
		accounts[u.Name] = account{User: u, uid: id, gid: id, home: l.home(u.Name)}
		id++
	}
	return accounts, nil
}

// taken reports whether a user of the host has this number: the node's user could read that user's files.
func taken(id int) bool {
	_, err := user.LookupId(strconv.Itoa(id))
	return err == nil
}

func (c Config) currentUser() (map[string]account, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	u := User{Name: me.Username}
	for _, given := range c.Users {
		if given.Name != me.Username {
			return nil, fmt.Errorf("users: %q cannot log in: without root sshd logs in only %q", given.Name, me.Username)
		}
		u = given
	}
	return map[string]account{me.Username: {User: u, uid: os.Getuid(), gid: os.Getgid(), home: me.HomeDir}}, nil
}
