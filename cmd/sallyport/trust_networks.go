package main

import (
	"math"
	"net/netip"
	"reflect"
	"slices"
)

// What one list of networks may hold of the public addresses in all, and what a single one may without a word.
const (
	mostBits4, mostBits6   = 8, 16
	noteBits4, noteBits6   = 16, 32
	embedded4In6PrefixBits = 96
)

// checkProxies refuses networks that anybody may be in: whoever is in one is believed.
func checkProxies(c *trustCheck, key string, v reflect.Value) {
	for _, p := range c.networks(key, v, c.d.fail) {
		if !isPrivateNet(p) && p.Bits() < noteBits(p) && p.Bits() >= mostBits(p) {
			c.d.warn(key, "%q is a public network of many: everybody in it is believed", p)
		}
	}
}

// sourcesRow is a list of networks in which a certificate is good.
func sourcesRow(key, decides string) trustRule {
	return trustRule{
		key: key, decides: decides, refused: "networks that hold IPv4 addresses in another form", warned: "public networks of more than one /8 (IPv4) or /16 (IPv6) in all: as good as none; host bits",
		check: func(c *trustCheck, key string, v reflect.Value) { c.networks(key, v, c.d.warn) },
	}
}

// networks reads a list. tooWide is told if it is all but everything.
func (c *trustCheck) networks(key string, v reflect.Value, tooWide func(key, format string, args ...any)) []netip.Prefix {
	var list []netip.Prefix
	for i := range v.Len() {
		p, err := netip.ParsePrefix(v.Index(i).String())
		if err != nil {
			return nil // said already
		}
		if p != p.Masked() {
			c.d.warn(key, "%q means %s", p, p.Masked())
		}
		if p = p.Masked(); holdsIPv4(p) {
			c.d.fail(key, "%q holds IPv4 addresses in the form of IPv6: write them as IPv4, such as 192.0.2.0/24", p)
			return nil
		}
		list = append(list, p)
	}
	if share(list, false) > math.Pow(2, -mostBits4) || share(list, true) > math.Pow(2, -mostBits6) {
		tooWide(key, "%v hold too much of the Internet: at most one /%d of IPv4 and one /%d of IPv6 in all, beside private networks", list, mostBits4, mostBits6)
		return nil
	}
	return list
}

// share is which part of all addresses the public networks of a list hold, however they are cut.
func share(list []netip.Prefix, six bool) float64 {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() }) // the widest first
	var counted []netip.Prefix
	sum := 0.0
	for _, p := range list {
		if p.Addr().Is6() != six || isPrivateNet(p) || slices.ContainsFunc(counted, p.Overlaps) {
			continue
		}
		counted = append(counted, p)
		sum += math.Pow(2, -float64(p.Bits()))
	}
	return sum
}

func mostBits(p netip.Prefix) int {
	if p.Addr().Is4() {
		return mostBits4
	}
	return mostBits6
}

func noteBits(p netip.Prefix) int {
	if p.Addr().Is4() {
		return noteBits4
	}
	return noteBits6
}

// isPrivateNet says whether a network lies within one that is not routed on the Internet (RFC 1918, 3927, 4193, 4291, 6598, loopback).
func isPrivateNet(p netip.Prefix) bool { return within(p, privateNets()...) }

func privateNets() []string {
	return []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10"}
}

// holdsIPv4 says whether a network holds all of IPv4, mapped, compatible, translated or tunnelled (RFC 4291 §2.5.5, 6052, 8215,
// 3056, 4380), or part of it.
func holdsIPv4(p netip.Prefix) bool {
	if p.Addr().Is4() || within(p, "::1/128") {
		return false
	}
	if within(p, "::ffff:0:0/96", "64:ff9b::/96", "::/96", "2002::/16", "64:ff9b:1::/48", "2001::/32") {
		return true
	}
	// One that is wider than they are is refused for its width, unless it is just so narrow that it is not.
	return p.Bits() >= mostBits6 && p.Bits() < embedded4In6PrefixBits && (p.Contains(netip.MustParseAddr("::ffff:0:0")) || p.Contains(netip.MustParseAddr("64:ff9b::")))
}

func within(p netip.Prefix, nets ...string) bool {
	return slices.ContainsFunc(nets, func(text string) bool {
		n := netip.MustParsePrefix(text)
		return n.Contains(p.Addr()) && n.Bits() <= p.Bits()
	})
}
