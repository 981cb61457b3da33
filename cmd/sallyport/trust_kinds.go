package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// The functions of this file make rows of the table: one for each kind of setting.

const ownFileRefused = "a file, or a folder above it, that others than root and the service's user can write or replace; a way there through such a folder by a link"

func fileRow(key, decides string) trustRule {
	return trustRule{key: key, decides: decides, refused: ownFileRefused, file: &fileRule{}}
}

func secretRow(key, decides string) trustRule {
	return trustRule{key: key, decides: decides, refused: ownFileRefused + "; a file that others can read", file: &fileRule{secret: true}, warned: map[bool]string{true: "a file of root that a group can read"}[key == "server.tls_key"]}
}

func folderRow(key, decides string) trustRule {
	return trustRule{key: key, decides: decides, refused: "a folder above it that others than root and the service's user can write or replace", file: &fileRule{above: true}}
}

// urlRow is a URL to which secrets go, or from which trust comes. allow is the setting that lets it be plain HTTP.
func urlRow(key, decides, allow string) trustRule {
	r := trustRule{key: key, decides: decides, refused: "`http://` to another machine; a user, a query or a fragment"}
	if allow != "" {
		r.refused = "`http://` to another machine, unless `" + allow + "` is true; a user, a query or a fragment"
		r.warned = "`http://` to another machine, at each start"
	}
	r.check = func(c *trustCheck, key string, v reflect.Value) { c.checkURL(key, v, allow) }
	return r
}

func (c *trustCheck) checkURL(key string, v reflect.Value, allow string) {
	u, err := url.Parse(v.String())
	if err != nil || v.String() == "" {
		return // said already
	}
	switch {
	case u.RawQuery != "" || u.ForceQuery:
		c.d.fail(key, "must have no query: a path is added to it")
	case u.Scheme == "https" || onLoopback(u):
	case allow == "":
		c.d.fail(key, "must begin with https://: what goes there must not cross a network in the clear")
	case !c.allowed(allow):
		c.d.fail(key, "must begin with https://, or set %s = true and accept that it crosses that link in the clear", allow)
	default:
		c.warnClear(key, u)
	}
}

// checkPrivateURL only warns of plain HTTP, which FirecREST's own examples have there: the key of the bucket never goes that way, but
// what is on it, and addresses that are good for one file each, do.
func checkPrivateURL(c *trustCheck, key string, v reflect.Value) {
	if u, err := url.Parse(v.String()); err == nil && u.Scheme == "http" && !onLoopback(u) {
		c.warnClear(key, u)
		return
	}
	c.checkURL(key, v, "")
}

func (c *trustCheck) warnClear(key string, u *url.URL) {
	c.d.warn(key, "http:// to %q: whoever is on the way can read what goes there, and answer in its place; use https://", u.Host)
}

func (c *trustCheck) allowed(setting string) (yes bool) {
	eachSetting(reflect.ValueOf(c.file).Elem(), "", func(key string, v reflect.Value, _ reflect.StructField) {
		yes = yes || key == setting && v.Bool()
	})
	return yes
}

func onLoopback(u *url.URL) bool { return isLoopback(net.JoinHostPort(u.Hostname(), "80")) }

// checkIssuerURL is stricter than the rule for others: even on loopback plain HTTP must be asked for.
func checkIssuerURL(name string) func(*trustCheck, string, reflect.Value) {
	return func(c *trustCheck, key string, v reflect.Value) {
		var s IssuerSection
		for i, issuer := range c.file.Issuers {
			if strings.HasPrefix(key, fmt.Sprintf("issuers[%d].", i)) {
				s = issuer
			}
		}
		u, err := url.Parse(v.String())
		asked := s.JWKSFile == "" && (name == "jwks_url" || s.JWKSURL == "")
		switch {
		case err != nil || v.String() == "":
		case name == "url" && (u.RawQuery != "" || u.ForceQuery):
			c.d.fail(key, "must have no query: OpenID Connect Discovery 1.0 §2 allows an issuer none")
		case u.Scheme == "https":
		case !s.AllowHTTP && s.JWKSFile == "":
			c.d.fail(key, "must begin with https://, or set allow_http = true for development")
		case asked && !onLoopback(u):
			c.d.warn(key, "http:// to %q: whoever is on the way can make tokens for anybody; use https://", u.Host)
		}
	}
}

// listenerRow is a listener; publicly says what is warned of, "" if nothing is.
func listenerRow(key, decides, refused, publicly string) trustRule {
	return trustRule{key: key, decides: decides, refused: refused, warned: publicly, check: func(c *trustCheck, key string, v reflect.Value) {
		if publicly != "" && v.String() != "" && isPublic(v.String()) {
			c.d.warn(key, "%q can be reached from elsewhere, without authentication: use a loopback or a private address", v.String())
		}
	}}
}

// isPublic says whether a listener may be reached from beyond this machine's own networks; a name may.
func isPublic(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || isLoopback(listen) {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err != nil || addr.IsUnspecified() || !addr.IsPrivate() && !addr.IsLinkLocalUnicast()
}

// switchRow is a switch that is dangerous when it is on; when says whether it is in use.
func switchRow(key, decides, warned string, when func(*trustCheck) bool, text string) trustRule {
	return trustRule{key: key, decides: decides, warned: warned, check: func(c *trustCheck, key string, v reflect.Value) {
		if v.Bool() && (when == nil || when(c)) {
			c.d.warn(key, "%s", text)
		}
	}}
}

func choiceRow(key, decides, dangerous, text string) trustRule {
	return trustRule{key: key, decides: decides, warned: "`" + dangerous + "`", check: func(c *trustCheck, key string, v reflect.Value) {
		if v.String() == dangerous && (key != "policy.default" || len(c.file.Policy.Rules) > 0) {
			c.d.warn(key, "%q: %s", dangerous, text)
		}
	}}
}

// checkFence warns of folders in which more lies than files of users.
func checkFence(c *trustCheck, key string, v reflect.Value) {
	switch path := v.String(); path {
	case "/":
		c.d.warn(key, "%q is everything: calls about files reach all that the caller's account does", path)
	case "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var":
		c.d.warn(key, "%q belongs to the system: calls about files reach all in it that the caller's account does", path)
	}
}

// spanRow is a time span that is dangerous when it is long.
func spanRow(key, decides string, most time.Duration) trustRule {
	return trustRule{key: key, decides: decides, warned: "more than " + short(most), check: func(c *trustCheck, key string, v reflect.Value) {
		if d := time.Duration(v.Int()); d > most {
			c.d.warn(key, "%q is long: it is %s; more than %s is rarely needed", short(d), decides, short(most))
		}
	}}
}

// short is a time span as people write it: "1h", not "1h0m0s".
func short(d time.Duration) string {
	text := strings.TrimSuffix(d.String(), "0s")
	if text == "" || strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	if text == "" {
		return "0s"
	}
	return text
}

func extensionsRow(key string) trustRule {
	return trustRule{
		key: key, decides: "what a node allows beside a command or a shell", warned: "`permit-user-rc`, `permit-agent-forwarding`, `permit-port-forwarding`, `permit-X11-forwarding`",
		check: func(c *trustCheck, key string, v reflect.Value) {
			for i := range v.Len() {
				if e := v.Index(i).String(); e != "permit-pty" {
					c.d.warn(key, "%q gives every certificate more than a terminal: a program that a user runs can use it", e)
				}
			}
		},
	}
}
