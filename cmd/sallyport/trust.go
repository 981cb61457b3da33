package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// A trustRule is one line of the table of what decides whom this service believes, and what it keeps secret. The table drives
// check-config and serve, and docs/trust.md is made from it.
type trustRule struct {
	// key is the full name of a setting, with [] after each list of tables.
	key, decides string
	// refused and warned are for people; check does it, file for what lies on this machine.
	refused, warned string
	check           func(c *trustCheck, key string, v reflect.Value)
	file            *fileRule
}

// trustRules is the table. Every setting that names a file, a URL, a network or a listener must stand in it: a test sees to it.
func trustRules() []trustRule {
	return []trustRule{
		folderRow("data_dir", "holds keys, database and audit log"),
		listenerRow("server.listen", "where tokens come in", "without TLS: an address other than loopback, unless `server.plain_http` is true", ""),
		fileRow("server.tls_certificate", "what clients believe to be this service"),
		secretRow("server.tls_key", "who can be this service to clients"),
		switchRow("server.plain_http", "whether tokens may cross a network in the clear", "true, on an address other than loopback", func(c *trustCheck) bool {
			return c.file.Server.TLSCertificate == "" && !isLoopback(c.file.Server.Listen)
		},
			"tokens cross the network in the clear up to the proxy that ends TLS, and whoever reads one there is its owner: see that nobody else can reach this address"),
		{
			key: "server.trusted_proxies", decides: "whose word for a client's address is believed: for rates, bounds and records", check: checkProxies,
			refused: "public networks of more than one /8 (IPv4) or /16 (IPv6) in all, and those that hold IPv4 addresses in another form", warned: "public networks of more than a /16 or /32; host bits",
		},
		{
			key: "server.node_networks", decides: "for whom the nodes' places and connections are kept", check: checkProxies,
			refused: "as for `server.trusted_proxies`", warned: "as for `server.trusted_proxies`",
		},
		{
			key: "server.public_urls", decides: "the addresses for which a proof of a token's key may be made (DPoP)", check: checkPublicURLs,
			refused: "a query, a user or a fragment",
		},
		folderRow("server.admin_socket", "who can give orders to this service"),
		choiceRow("server.sandbox", "what code that is brought into the process finds", "off", "the process keeps all that its user may do"),
		urlRow("policy.openfga.url", "who may do what", "policy.openfga.allow_http"),
		secretRow("policy.openfga.token_file", "who can ask that server"),
		spanRow("policy.openfga.remember", "how long a relation that was taken away goes on", time.Minute),
		choiceRow("policy.default", "what becomes of a call that no rule matches", "allow", "what no rule denies is allowed"),
		listenerRow("metrics.listen", "who reads the numbers of the service", "", "an address that is neither loopback nor of a private network"),
		folderRow("audit.dir", "what is on record"),
		switchRow("audit.commands", "whether commands are on record in full", "true", nil, "secrets on command lines are in the audit log"),
		secretRow("audit.sign_key", "who can sign a rewritten audit log"),
		folderRow("audit.archive_dir", "what was on record"),
		fileRow("audit.syslog[].tls_ca", "who can take the audit events"),
		fileRow("audit.syslog[].tls_certificate", "who this service is to the receiver"),
		secretRow("audit.syslog[].tls_key", "who can be this service to the receiver"),
		urlRow("audit.otlp[].url", "who can take the audit events, and the token", ""),
		fileRow("audit.otlp[].tls_ca", "who can take the audit events"),
		fileRow("audit.otlp[].tls_certificate", "who this service is to the receiver"),
		secretRow("audit.otlp[].tls_key", "who can be this service to the receiver"),
		secretRow("audit.otlp[].token_file", "who can send events as this service"),
		{
			key: "issuers[].url", decides: "whose tokens count, and by discovery their keys", check: checkIssuerURL("url"),
			refused: "`http://`, unless `issuers.allow_http` is true or `jwks_file` is set; a user, a query or a fragment", warned: "`http://` to another machine, at each start",
		},
		{
			key: "issuers[].jwks_url", decides: "the keys whose tokens count", check: checkIssuerURL("jwks_url"),
			refused: "`http://`, unless `issuers.allow_http` is true; a user or a fragment", warned: "`http://` to another machine, at each start",
		},
		fileRow("issuers[].jwks_file", "the keys whose tokens count"),
		spanRow("issuers[].leeway", "how long a token counts after its end", time.Minute),
		spanRow("issuers[].max_stale", "how long a key counts that the issuer has withdrawn, while it cannot be reached", 24*time.Hour),
		secretRow("ca.key", "who can log in as everybody"),
		secretRow("ca.distribution.key", "what login nodes believe"),
		fileRow("ca.distribution.public_key", "which key's signatures nodes are given, if it is offline"),
		spanRow("ca.distribution.manifest_life", "how long a mirror can show an old state to a node without state", 48*time.Hour),
		secretRow("ca.passphrase_file", "who can open the CA's keys"),
		spanRow("ca.profiles.executor.max_ttl", "how long a copied certificate is good", time.Hour),
		spanRow("ca.profiles.user.max_ttl", "how long a copied certificate is good", time.Hour),
		spanRow("ca.profiles.executor.expiry_grace", "how long a certificate outlives its token", time.Minute),
		spanRow("ca.profiles.user.expiry_grace", "how long a certificate outlives its token", time.Minute),
		sourcesRow("ca.profiles.executor.source_addresses", "from where certificates of this service are good"),
		sourcesRow("ca.profiles.user.source_addresses", "from where certificates of users are good"),
		extensionsRow("ca.profiles.executor.extensions"),
		extensionsRow("ca.profiles.user.extensions"),
		switchRow("ca.compat.ssh_keys", "whether private keys are sent over the network", "true", nil, "private keys are sent over the network; whoever reads an answer is the user until the certificate ends"),
		spanRow("ca.rotation.max_skew", "how long a key that was retired may still be believed", 5*time.Minute),
		urlRow("executor.remote.url", "which certificates this service uses; it gets callers' tokens", "executor.remote.allow_http"),
		urlRow("executor.remote.revocation_list", "whose sessions are ended, and whose are not", "executor.remote.allow_http"),
		fileRow("executor.remote.tls_ca", "who can be the certificate service"),
		fileRow("executor.remote.ca_keys", "which CA's certificates are used"),
		spanRow("executor.remote.max_ttl", "how long a certificate may be that is used", time.Hour),
		fileRow("systems[].known_hosts", "which node, and which jump host, is the right one"),
		{
			key: "systems[].firecrest.file_systems[].path", decides: "which folders of a node calls about files reach", check: checkFence,
			warned: "`/`, and folders of the system such as `/etc` and `/proc`",
		},
		urlRow("firecrest.s3.public_url", "where files of users go", "firecrest.s3.allow_http"),
		{
			key: "firecrest.s3.private_url", decides: "where files of users go, inside the centre", check: checkPrivateURL,
			refused: "a user, a query or a fragment", warned: "`http://` to another machine, at each start",
		},
		secretRow("firecrest.s3.secret_key_file", "who can read and write the bucket"),
		listenerRow("firecrest.streamer.listen", "where clients of streams, which know no TLS, show the secret of one transfer", "", ""),
		switchRow("firecrest.streamer.any_address", "from where that secret is good", "true", nil, "who reads the secret of a transfer on its way can use it from anywhere"),
		urlRow("firecrest.streamer.url", "where files of users go", ""),
		secretRow("static_keys[].key_file", "who can log in as that account"),
		secretRow("static_keys[].passphrase_file", "who can open that key"),
		fileRow("static_keys[].certificate_file", "as whom that key logs in"),
	}
}

// A finding is a mistake or a warning about a setting.
type trustCheck struct {
	d    *decoder
	file *File
}

// checkTrust applies the table to what the file says; what the files on this machine are is for checkFiles.
func (d *decoder) checkTrust(f *File) {
	rules := map[string]trustRule{}
	for _, r := range trustRules() {
		rules[r.key] = r
	}
	c := &trustCheck{d, f}
	eachSetting(reflect.ValueOf(f).Elem(), "", func(key string, v reflect.Value, field reflect.StructField) {
		if d.mistaken(key) || !f.uses(key) {
			return
		}
		r, ok := rules[generic(key)]
		switch {
		case ok && r.check != nil:
			r.check(c, key, v)
		case !ok && field.Tag.Get("check") == "url": // one that the table forgot is held to the strictest rule
			c.checkURL(key, v, "")
		}
	})
}

// eachSetting calls use for each setting of a table with its full name, as in "systems[1].nodes".
func eachSetting(v reflect.Value, path string, use func(key string, v reflect.Value, field reflect.StructField)) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		key := join(path, field.Tag.Get("key"))
		switch {
		case value.Kind() == reflect.Struct:
			eachSetting(value, key, use)
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			for j := range value.Len() {
				eachSetting(value.Index(j), fmt.Sprintf("%s[%d]", key, j), use)
			}
		default:
			use(key, value, field)
		}
	}
}

// generic is a full name without its numbers: "systems[].nodes".
func generic(key string) string {
	var b strings.Builder
	inside := false
	for _, r := range key {
		inside = inside && r != ']'
		if !inside {
			b.WriteRune(r)
		}
		inside = inside || r == '['
	}
	return b.String()
}

// uses says whether a part that is switched on reads a setting.
func (f *File) uses(key string) bool {
	switch top, _, _ := strings.Cut(key, "."); {
	case top == "ca":
		return f.CA.Enabled
	case strings.HasPrefix(key, "executor.remote."):
		return f.Executor.Enabled && f.Executor.elsewhere()
	case strings.HasPrefix(key, "static_keys["):
		return f.Executor.Enabled && f.Executor.Credentials == "static"
	case strings.HasPrefix(key, "firecrest.s3."):
		return f.FirecREST.S3.PublicURL != ""
	case strings.HasPrefix(key, "firecrest.streamer."):
		return f.FirecREST.Streamer.Listen != ""
	case strings.HasPrefix(key, "policy.openfga."):
		return f.Policy.OpenFGA.URL != ""
	}
	return true
}
