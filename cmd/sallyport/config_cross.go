package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"sallyport/ca"
)

// crossCheck finds what no single key can show: settings that are missing, that
// contradict each other, or that stand twice.
func (d *decoder) crossCheck(f *File) {
	d.checkServer(f.Server)
	d.checkIssuers(f.Issuers)
	d.checkBinding(f)
	d.checkRates(f)
	d.checkPolicy(f)
	d.checkCAKey(f.CA)
	d.checkDistribution(f.CA.Distribution)
	d.checkProfile(f.CA.Profiles.Executor, "ca.profiles.executor")
	d.checkOwnProfile(f.CA.Profiles.Executor, "ca.profiles.executor")
	d.checkProfile(f.CA.Profiles.User, "ca.profiles.user")
	if f.CA.Rotation.ProbeLogin == "root" {
		d.fail("ca.rotation.probe_login", `"root" is refused by every node that has our sshd_config: name an account without rights`)
	}
	d.checkSystems(f.Systems)
	d.checkFirecREST(f)
	d.checkCredentials(f)
	d.checkAudit(f.Audit)
	d.checkApproval(f.Approval)
}

func (d *decoder) checkServer(s ServerSection) {
	if (s.TLSCertificate == "") != (s.TLSKey == "") {
		d.fail("server.tls_certificate", "must be set together with server.tls_key")
	}
	if s.TLSCertificate == "" && !s.PlainHTTP && !d.mistaken("server.listen") && !isLoopback(s.Listen) {
		d.fail("server.listen", "%q is not a loopback address: set server.tls_certificate and server.tls_key, "+
			"or server.plain_http = true if a proxy in front ends TLS", s.Listen)
	}
}

func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && addr.IsLoopback())
}

func (d *decoder) checkRates(f *File) {
	for i, r := range f.Rates {
		at := func(key string) string { return fmt.Sprintf("rates[%d].%s", i, key) }
		if r.Issuer != "" && !slices.ContainsFunc(f.Issuers, func(s IssuerSection) bool { return s.Alias == r.Issuer }) {
			d.fail(at("issuer"), "%q is the alias of no [[issuers]] table", r.Issuer)
		}
		if r.UserPerMinute == 0 && r.UserBurst > 0 {
			d.fail(at("user_burst"), "needs user_per_minute")
		}
		if r.ClientPerMinute == 0 && r.ClientBurst > 0 {
			d.fail(at("client_burst"), "needs client_per_minute")
		}
		for j, before := range f.Rates[:i] {
			if catches(before, r) {
				d.warn(fmt.Sprintf("rates[%d]", i), "has no effect: rates[%d], which stands before it, is for everybody that it is for", j)
				break
			}
		}
	}
}

// catches says whether every token that a rate is for is one of those before it, of which
// the first that matches counts.
func catches(before, r RateSection) bool {
	covers := func(a, b string) bool { return a == "" || a == b }
	return covers(before.Issuer, r.Issuer) && covers(before.Client, r.Client) && covers(before.Login, r.Login)
}

// checkOwnProfile refuses extensions of the executor's own certificates: they have
// none, and forwarding alone for jump hosts.
func (d *decoder) checkOwnProfile(p ProfileSection, path string) {
	if len(p.Extensions) > 0 {
		d.fail(path+".extensions", "must not be set: the executor's own certificates carry no extensions")
	}
}

func (d *decoder) checkProfile(p ProfileSection, path string) {
	if p.DefaultTTL > p.MaxTTL && !d.mistaken(path+".default_ttl") && !d.mistaken(path+".max_ttl") {
		d.fail(path+".default_ttl", "%q is above max_ttl, %q", p.DefaultTTL, p.MaxTTL)
	}
}

func (d *decoder) checkSystems(systems []SystemSection) {
	names := map[string]bool{}
	for i, s := range systems {
		at := func(key string) string { return fmt.Sprintf("systems[%d].%s", i, key) }
		d.require(at("name"), s.Name)
		d.once(names, at("name"), s.Name)
		d.requireList(at("nodes"), s.Nodes, `a list such as ["login1.example.org:22"]`)
		d.requireList(at("known_hosts"), s.KnownHosts, "without host keys Sallyport does not connect; see ssh-keyscan(1)")
		if s.DefaultTimeout > s.MaxTimeout {
			d.fail(at("default_timeout"), "%q is above max_timeout, %q", s.DefaultTimeout, s.MaxTimeout)
		}
	}
}

func (d *decoder) checkFirecREST(f *File) {
	if s := f.FirecREST.S3; s.PublicURL != "" {
		d.require("firecrest.s3.bucket", s.Bucket)
		d.require("firecrest.s3.access_key_id", s.AccessKeyID)
		d.require("firecrest.s3.secret_key_file", s.SecretKeyFile)
	}
	d.checkStreamer(f.FirecREST.Streamer)
	if !f.FirecREST.Enabled {
		return
	}
	if !f.Executor.Enabled {
		d.fail("firecrest.enabled", "needs executor.enabled = true")
	}
	for i, s := range f.Systems {
		at := func(key string) string { return fmt.Sprintf("systems[%d].%s", i, key) }
		if s.Name == "systems" || s.Name == "liveness" {
			d.fail(at("name"), "%q is the name of a call of FirecREST's API: with firecrest.enabled no system can have it", s.Name)
		}
		defaults, paths := 0, map[string]bool{}
		for j, fs := range s.FirecREST.FileSystems {
			key := at(fmt.Sprintf("firecrest.file_systems[%d].", j))
			d.require(key+"path", fs.Path)
			d.once(paths, key+"path", fs.Path)
			if fs.DefaultWorkDir {
				defaults++
			}
			if defaults > 1 {
				d.fail(key+"default_work_dir", "may be true for one file system only")
			}
		}
	}
}

func (d *decoder) checkStreamer(s StreamerSection) {
	if s.Listen == "" {
		return
	}
	d.requireList("firecrest.streamer.public_hosts", s.PublicHosts, "by which clients reach firecrest.streamer.listen")
	d.require("firecrest.streamer.url", s.URL)
	u, err := url.Parse(s.URL)
	if err != nil || s.URL == "" {
		return // said already
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		d.fail("firecrest.streamer.url", "%q must have no path: the service's calls follow", s.URL)
	}
}

// checkCAKey checks the key's place; that it is there is seen when it is opened.
func (d *decoder) checkCAKey(s CASection) {
	if !ca.IsAgent(s.Key) {
		return
	}
	if _, _, err := ca.ParseAgent(s.Key); err != nil {
		d.fail("ca.key", "%v", err)
	}
	if s.PassphraseFile != "" {
		d.fail("ca.passphrase_file", "must not be set: the agent holds the key")
	}
}

func (d *decoder) checkCredentials(f *File) {
	switch {
	case !f.CA.Enabled && !f.Executor.Enabled:
		d.fail("executor.enabled", "must be true if ca.enabled is false: else there is nothing to serve")
	case f.Executor.Enabled && f.Executor.Credentials == "builtin" && !f.CA.Enabled:
		d.fail("executor.credentials", `"builtin" needs ca.enabled = true; else use "static", "remote" or "deic"`)
	case f.Executor.Enabled && f.Executor.Credentials == "static" && len(f.StaticKeys) == 0:
		d.fail("executor.credentials", `"static" needs at least one [[static_keys]] table`)
	case f.Executor.Enabled && f.Executor.elsewhere():
		d.checkRemote(f.Executor.Remote)
	}
	for i, s := range f.StaticKeys {
		at := func(key string) string { return fmt.Sprintf("static_keys[%d].%s", i, key) }
		if (s.Login == "") == (s.Issuer == "" || s.Subject == "") {
			d.fail(at("login"), "is needed, or issuer and subject together, and not both")
		}
		d.require(at("key_file"), s.KeyFile)
		if s.Issuer != "" && !slices.ContainsFunc(f.Issuers, func(i IssuerSection) bool { return i.Alias == s.Issuer }) {
			d.fail(at("issuer"), "%q is the alias of no [[issuers]] table", s.Issuer)
		}
	}
}

func (d *decoder) require(key, value string) {
	if value == "" && !d.mistaken(key) {
		d.fail(key, "is missing")
	}
}

func (d *decoder) requireList(key string, list []string, why string) {
	if len(list) == 0 && !d.mistaken(key) {
		d.fail(key, "is missing: %s", why)
	}
}

func (d *decoder) once(seen map[string]bool, key, value string) {
	if value != "" && seen[value] {
		d.fail(key, "%q stands twice", value)
	}
	seen[value] = true
}
