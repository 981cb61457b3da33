package importfirecrest

import (
	"regexp"
	"slices"
	"strings"
)

// secretFile marks a secret that stands in a file.
const secretFile = "secret_file:"

// credentials are ssh_credentials: the service that makes certificates, or keys.
func (c *conversion) credentials(top *section) {
	in := top.section("ssh_credentials")
	kind := in.text("type")
	if kind == "" && in.has("url") { // before FirecREST 2.3
		kind = "SSHService"
	}
	switch kind {
	case "SSHService":
		c.service(in, "remote")
	case "SSHCA":
		c.service(in, "deic")
	default:
		c.staticKeys(in, kind)
	}
	in.rest()
}

func (c *conversion) service(in *section, credentials string) {
	address := in.url("url")
	if address == "" {
		in.note("url", "is missing: set executor.remote.url")
	}
	in.drop("max_connections", "logins at a time are bounded by systems.max_handshakes, and a certificate serves many commands")
	in.drop("timeout", "executor.remote.timeout is 5 s by default")
	c.out.table("[ca]")
	c.out.line("enabled = false")
	c.executor(credentials)
	c.out.table("[executor.remote]")
	c.out.set("url", strings.TrimRight(address, "/"))
	c.out.set("ca_keys", "trusted_ca.pub")
	if strings.HasPrefix(address, "http://") {
		in.note("url", "plain http: tokens cross that link in the clear; allow_http was set to keep it working")
		c.out.set("allow_http", true)
	}
	in.note("url", "a certificate is used only if an expected CA has signed it: put that CA's public key, the line of the nodes' "+
		"TrustedUserCAKeys, into trusted_ca.pub. Or have Sallyport be the CA: ca.enabled = true and executor.credentials = \"builtin\"")
}

// executor is the section for all systems.
func (c *conversion) executor(credentials string) {
	c.out.table("[executor]")
	c.out.set("credentials", credentials)
	c.out.set("max_connections", c.connections.value)
	c.out.set("idle_timeout", c.idle.duration())
	c.out.set("keepalive_interval", c.keepalive.duration())
}

var accountName = regexp.MustCompile(`\A[a-z_][a-z0-9_.-]{0,31}\z`)

// staticKeys are a key for each user: under "keys", or right there before FirecREST 2.3.
func (c *conversion) staticKeys(in *section, kind string) {
	users := in
	if in.has("keys") {
		users = in.section("keys")
	}
	if kind != "" && kind != "SSHStaticKeys" {
		in.note("type", "%q is not known: the configuration needs credentials, see executor.credentials", kind)
	}
	var names []string
	for name := range users.values {
		if users != in || name != "type" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	c.out.table("[ca]")
	c.out.line("enabled = false")
	c.executor("static")
	kept := 0
	for _, user := range names {
		key, name := users.section(user), users.given[user]
		if !accountName.MatchString(name) {
			users.note(user, "is no account name that is accepted here; its key was left out")
			continue
		}
		kept++
		c.out.table("[[static_keys]]")
		c.out.set("login", name)
		c.out.set("key_file", key.secret("private_key", "keys/"+name))
		c.out.set("passphrase_file", key.secret("passphrase", "keys/"+name+".pass"))
		c.out.set("certificate_file", key.secret("public_cert", "keys/"+name+"-cert.pub"))
		key.rest()
	}
	if kept == 0 {
		in.note("", "names no key that can be used: add [[static_keys]], or set ca.enabled = true and executor.credentials = \"builtin\"")
	}
	in.note("", "keys of users on this host are what certificates are for to avoid: \"sallyport init\" makes a CA, "+
		"and with ca.enabled = true and executor.credentials = \"builtin\" no key is needed")
}

// secret is the file of a secret. One that stands in the YAML is not copied.
func (s *section) secret(key, file string) string {
	text := s.text(key)
	if text == "" {
		return ""
	}
	if path, ok := strings.CutPrefix(text, secretFile); ok && path != "" {
		return path
	}
	s.note(key, "stands in the file and was not copied: write it to %s, mode 0600, beside the configuration", file)
	return file
}
