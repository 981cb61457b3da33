package identity

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// DefaultLoginPattern is the pattern of a portable account name: what useradd(8)
// accepts by default, with dots.
const DefaultLoginPattern = `^[a-z_][a-z0-9_.-]{0,31}$`

// maxLoginBytes bounds a login name whatever the pattern says, so that it fits
// into a certificate's key ID.
const maxLoginBytes = 64

// loginFloor is the charset that no pattern can widen: nothing here means
// anything to a shell, sshd, an option parser, a path or a log line. A comma in
// particular joins principals (CVE-2026-35414).
var loginFloor = regexp.MustCompile(`\A[A-Za-z0-9_][A-Za-z0-9._@+-]*\z`)

// A LoginRule says which login names are acceptable. The zero value accepts
// names of the default pattern that are not reserved.
type LoginRule struct {
	// Pattern is a regular expression (RE2) for the whole name, anchored whether
	// or not it says so. Default: [DefaultLoginPattern]. Whatever it says, a name
	// has 1 to 64 bytes of A-Z a-z 0-9 . _ @ + -, begins with a letter, digit or
	// underscore, and is not all digits.
	Pattern string
	// Reserved names are refused, in any case of their letters. Nil means
	// [DefaultReserved]; an empty list reserves nothing but root, which always is.
	Reserved []string
	// Allow, if not empty, lists the only acceptable names. It cannot allow what
	// the pattern, Reserved or Deny refuse.
	Allow []string
	// Deny names are refused, in any case of their letters.
	Deny []string
}

// A LoginPolicy is a LoginRule that was checked.
type LoginPolicy struct {
	pattern *regexp.Regexp
	refused map[string]string // lower-case name to the reason
	allowed map[string]bool   // nil: any
}

// Compile checks the rule and reports every mistake in it, among them an
// allowed name that the rest of the rule refuses.
func (r LoginRule) Compile() (*LoginPolicy, error) {
	var mistakes []error
	pattern := r.Pattern
	if pattern == "" {
		pattern = DefaultLoginPattern
	}
	// Compiled on its own first: "a)|(b" is no pattern, although it would be one
	// between the brackets of the anchored form.
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, fmt.Errorf("login pattern %q: %w", pattern, err)
	}
	anchored, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("login pattern %q: %w", pattern, err)
	}
	reserved := r.Reserved
	if reserved == nil {
		reserved = DefaultReserved()
	}
	p := &LoginPolicy{pattern: anchored, refused: map[string]string{"root": "is reserved"}}
	for _, name := range reserved {
		p.refused[strings.ToLower(name)] = "is reserved"
	}
	for _, name := range r.Deny {
		p.refused[strings.ToLower(name)] = "is denied"
	}
	for _, name := range slices.Concat(reserved, r.Deny) {
		if !loginFloor.MatchString(name) {
			mistakes = append(mistakes, fmt.Errorf("reserved or denied name %q can be nobody's login", name))
		}
	}
	for _, name := range r.Allow {
		if err := p.Check(name); err != nil {
			mistakes = append(mistakes, fmt.Errorf("allowed name %q: %w", name, err))
		}
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	if len(r.Allow) > 0 {
		p.allowed = make(map[string]bool, len(r.Allow))
		for _, name := range r.Allow {
			p.allowed[name] = true
		}
	}
	return p, nil
}

// Check says whether a login name is acceptable. Its error wraps [ErrNoLogin].
func (p *LoginPolicy) Check(login string) error {
	switch reason := p.refused[strings.ToLower(login)]; {
	case len(login) > maxLoginBytes:
		return fmt.Errorf("%w: login has %d bytes, at most %d are acceptable", ErrNoLogin, len(login), maxLoginBytes)
	case !loginFloor.MatchString(login):
		return fmt.Errorf("%w: login %q has an unacceptable character", ErrNoLogin, login)
	case strings.Trim(login, "0123456789") == "":
		// chown(1), ps(1) and others take such a name for a user ID.
		return fmt.Errorf("%w: login %q is all digits", ErrNoLogin, login)
	case !p.pattern.MatchString(login):
		return fmt.Errorf("%w: login %q does not match the pattern", ErrNoLogin, login)
	case reason != "":
		return fmt.Errorf("%w: login %q %s", ErrNoLogin, login, reason)
	case p.allowed != nil && !p.allowed[login]:
		return fmt.Errorf("%w: login %q is not on the list", ErrNoLogin, login)
	}
	return nil
}

// DefaultReserved lists the accounts that Debian and RHEL make for the system
// and its services: base-passwd, setup's uidgid file, systemd, and the daemons
// usual on login nodes. None of them is a person.
func DefaultReserved() []string {
	return strings.Fields(`
		root toor daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nfsnobody
		adm shutdown halt operator ftp gopher named apache nginx httpd tomcat caddy squid varnish
		_apt messagebus dbus avahi avahi-autoipd polkitd rtkit colord geoclue pulse gdm lightdm usbmux saned cups
		systemd-network systemd-resolve systemd-timesync systemd-coredump systemd-oom systemd-bus-proxy
		systemd-journal-remote systemd-journal-gateway systemd-journal-upload
		sshd ssh-keys nslcd nscd sssd ntp ntpd chrony _chrony openntpd rpc rpcuser _rpc statd tcpdump pcap
		abrt unbound setroubleshoot clevis insights cockpit-ws cockpit-wsinstance tss uuidd libstoragemgmt
		postfix postmaster hostmaster webmaster abuse exim debian-exim mailman dovecot dovenull opendkim
		mysql mariadb postgres mongodb mongod redis memcached elasticsearch influxdb grafana prometheus node_exporter
		slurm slurmrestd munge pbs pbsdata lsfadmin sge condor ganglia nagios nrpe zabbix telegraf collectd
		lustre gpfs beegfs ceph glusterfs gluster weka dcv xcat warewulf puppet salt ansible
		git gitlab-runner jenkins docker containerd libvirt-qemu libvirt-dnsmasq qemu kvm radvd dnsmasq haproxy keepalived hacluster
		vagrant ubuntu debian centos rocky almalinux fedora ec2-user cloud-user opc core admin administrator sudo wheel guest
		bind saslauth oprofile pesign dhcpd etcd rabbitmq sddm lxd amandabackup amanda bacula bareos
		stapusr stapsys stapdev stapunpriv oracle hadoop hdfs yarn mapred zookeeper kafka cassandra solr
		kube kubelet torque pbsadmin oar flux lsf uge sgeadmin slurmdbd slurmctld slurmd munged pmix
		ldap openldap dirsrv radiusd freerad pkiuser ipaapi kdcproxy ods ident tftp tftpd frr quagga openvpn strongswan
		stunnel stunnel4 vmail amavis clamav clamupdate clamscan debian-spamd smmsp smmta mailnull debian-tor toranon
		pcp sanlock vdsm flatpak gnome-initial-setup speech-dispatcher whoopsie kernoops hplip arpwatch snort suricata
		systemd rpcbind sddm-greeter gdm-greeter fwupd-refresh landscape pollinate syslog rsyslog tape dnf rpm mock
		sallyport firecrest`)
}
