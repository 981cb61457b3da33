package ca

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"sallyport/identity"
	"sallyport/identity/identitytest"
)

func compile(t testing.TB, c ProfileConfig) *profile {
	t.Helper()
	p, err := c.compile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func nets(texts ...string) (prefixes []netip.Prefix) {
	for _, s := range texts {
		prefixes = append(prefixes, netip.MustParsePrefix(s))
	}
	return prefixes
}

func TestDraftOfAPlainRequest(t *testing.T) {
	t.Parallel()
	caller, key, now := alice(t), newPublicKey(t), time.Now()
	d, err := newDraft(Request{Caller: caller, PublicKey: key}, compile(t, ProfileConfig{Name: "executor"}), now, 42, "req-1")
	if err != nil {
		t.Fatal(err)
	}
	cert := d.certificate()
	switch {
	case cert.CertType != ssh.UserCert, cert.Serial != 42, !bytes.Equal(cert.Key.Marshal(), key.Marshal()),
		!slices.Equal(cert.ValidPrincipals, []string{"alice"}), cert.KeyId != "v1:test:sub-alice:alice:req-1",
		len(cert.CriticalOptions) != 0, len(cert.Extensions) != 0,
		unixTime(cert.ValidAfter) != now.Add(-time.Minute).Truncate(time.Second).UTC(),
		unixTime(cert.ValidBefore) != now.Add(5*time.Minute).Truncate(time.Second).UTC():
		t.Errorf("certificate is %+v", cert)
	}
}

func TestLifetimeIsTheLeastOfProfileRequestAndToken(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	p := compile(t, ProfileConfig{Name: "user"})
	const far = 24 * time.Hour
	for name, c := range map[string]struct{ ttl, token, want time.Duration }{
		"default":                            {0, far, 5 * time.Minute},
		"shorter request":                    {time.Minute, far, time.Minute},
		"longer request":                     {10 * time.Minute, far, 10 * time.Minute},
		"maximum":                            {15 * time.Minute, far, 15 * time.Minute},
		"above the maximum":                  {16 * time.Minute, far, 15 * time.Minute},
		"for ever":                           {math.MaxInt64, far, 15 * time.Minute},
		"token ends first":                   {0, time.Minute, 90 * time.Second},
		"token and grace end later":          {time.Minute, 40 * time.Second, time.Minute},
		"token has a second":                 {0, time.Second, 31 * time.Second},
		"token that outlives the universe":   {0, math.MaxInt64, 5 * time.Minute},
		"fractions of a second are cut off":  {90*time.Second + 999*time.Millisecond, far, 90 * time.Second},
		"token that ends with the request":   {time.Minute, time.Minute, time.Minute},
		"the least that can be asked for":    {time.Second, far, time.Second},
		"above the maximum and token is old": {time.Hour, 2 * time.Minute, 150 * time.Second},
	} {
		after, before, err := validity(c.ttl, p, now, now.Add(c.token))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := unixTime(before).Sub(now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if got := now.Sub(unixTime(after)); got != time.Minute {
			t.Errorf("%s: backdated by %s", name, got)
		}
	}
}

func TestLifetimesThatAreRefused(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	p := compile(t, ProfileConfig{Name: "user"})
	for _, ttl := range []time.Duration{-1, -time.Second, -time.Hour, math.MinInt64, 1, 999 * time.Millisecond} {
		_, _, err := validity(ttl, p, now, now.Add(time.Hour))
		wantCode(t, err, CodeTTL)
	}
	for _, expires := range []time.Time{now, now.Add(-time.Nanosecond), now.Add(-time.Hour), {}, time.Unix(math.MinInt64, 0)} {
		_, _, err := validity(0, p, now, expires)
		wantCode(t, err, CodeIdentity)
	}
	for _, clock := range []time.Time{time.Unix(0, 0), time.Unix(60, 0), time.Unix(-1, 0), {}} {
		if _, _, err := validity(0, p, clock, clock.Add(time.Hour)); err == nil || errors.Is(err, ErrPolicy) {
			t.Errorf("clock at %s: %v, want an error that is not the caller's", clock, err)
		}
	}
}

// TestLifetimeNeverWraps is threat 13: whatever the numbers, a certificate that is
// drafted is short and began before now.
func TestLifetimeNeverWraps(t *testing.T) {
	t.Parallel()
	drafted := 0
	rapid.Check(t, func(t *rapid.T) {
		duration := rapid.OneOf(
			rapid.Int64(),
			rapid.Map(rapid.Int64Range(-100, 100_000), func(s int64) int64 { return s * int64(time.Second) }),
			rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64, math.MinInt64}))
		second := rapid.OneOf(
			rapid.Int64(),
			rapid.Int64Range(-1<<32, 1<<33),
			rapid.SampledFrom([]int64{0, math.MaxInt64, math.MinInt64, math.MaxInt64 - 62135596800, 1 << 40}))
		config := ProfileConfig{
			Name:        "user",
			DefaultTTL:  time.Duration(duration.Draw(t, "default")),
			MaxTTL:      time.Duration(duration.Draw(t, "max")),
			Backdate:    time.Duration(duration.Draw(t, "backdate")),
			ExpiryGrace: time.Duration(duration.Draw(t, "grace")),
		}
		p, err := config.compile()
		if err != nil {
			p = compileDefault(t)
		}
		if p.max <= 0 || p.max > mostTTL || p.ttl > p.max || p.backdate > mostBackdate || p.grace > mostGrace {
			t.Fatalf("profile with %s, %s, %s, %s was taken", p.ttl, p.max, p.backdate, p.grace)
		}
		now := time.Unix(second.Draw(t, "now"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond"))
		expires := time.Unix(second.Draw(t, "expires"), 0)
		ttl := time.Duration(duration.Draw(t, "ttl"))
		if rapid.Bool().Draw(t, "plausible") { // often enough that drafts come about
			now = time.Unix(rapid.Int64Range(1e9, 4e9).Draw(t, "this century"), 0)
			expires = now.Add(time.Duration(rapid.Int64Range(1, 100_000).Draw(t, "left")) * time.Second)
			ttl = time.Duration(rapid.Int64Range(0, 100_000).Draw(t, "asked for")) * time.Second
		}

		after, before, err := validity(ttl, p, now, expires)
		if err != nil {
			return
		}
		drafted++
		switch {
		case before <= after, after == 0, before > math.MaxInt64:
			t.Fatalf("validity is %d to %d", after, before)
		case int64(before) <= now.Unix(), int64(after) > now.Unix():
			t.Fatalf("validity %d to %d does not contain now, %d", after, before, now.Unix())
		case int64(before)-now.Unix() > int64(p.max/time.Second)+1:
			t.Fatalf("lifetime %d s is above %s", int64(before)-now.Unix(), p.max)
		case unixTime(before).After(now.Add(p.max)):
			t.Fatalf("ends at %s, later than now + %s", unixTime(before), p.max)
		case ttl != 0 && unixTime(before).After(now.Add(ttl)):
			t.Fatalf("lifetime is longer than the %s that were asked for", ttl)
		case unixTime(before).After(expires.Add(p.grace)):
			t.Fatalf("outlives the token by more than %s", p.grace)
		}
	})
	if drafted == 0 {
		t.Error("no numbers led to a draft, so nothing was tested")
	}
}

func compileDefault(t *rapid.T) *profile {
	p, err := ProfileConfig{Name: "user"}.compile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrincipalsComeFromTheIdentity(t *testing.T) {
	t.Parallel()
	p := compile(t, ProfileConfig{Name: "user", ExtraPrincipals: []string{"grp-42"}})
	draft := func(caller identity.Identity, principals []string) ([]string, error) {
		d, err := newDraft(Request{Caller: caller, PublicKey: newPublicKey(t), Principals: principals}, p, time.Now(), 1, "r")
		if err != nil {
			return nil, err
		}
		return d.certificate().ValidPrincipals, nil
	}
	for _, c := range []struct{ asked, want []string }{
		{nil, []string{"alice"}},
		{[]string{"alice"}, []string{"alice"}},
		{[]string{"grp-42"}, []string{"grp-42"}},
		{[]string{"grp-42", "alice"}, []string{"grp-42", "alice"}},
	} {
		if got, err := draft(alice(t), c.asked); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v; want %q", c.asked, got, err, c.want)
		}
	}
	for _, asked := range [][]string{
		{},
		{""},
		{"*"},
		{"?"},
		{"bob"},
		{"root"},
		{"Alice"},
		{"alice,bob"},
		{"alice,"},
		{"alice bob"},
		{" alice"},
		{"alice\n"},
		{"alice\x00"},
		{"\x00"},
		{"alice", "bob"},
		{"alice", ""},
		{"alice", "alice"},
		{"!alice"},
		{"al*"},
		{strings.Repeat("a", 1<<20)},
		slices.Repeat([]string{"alice"}, 1000),
	} {
		_, err := draft(alice(t), asked)
		wantCode(t, err, CodePrincipal)
	}
	_, err := draft(identity.Identity{}, []string{"alice"})
	wantCode(t, err, CodeIdentity)
}

func TestSourceAddressesOnlyNarrow(t *testing.T) {
	t.Parallel()
	open, closed := compile(t, ProfileConfig{Name: "user"}),
		compile(t, ProfileConfig{Name: "user", SourceAddresses: nets("10.0.0.0/8", "2001:db8::/32")})
	for _, c := range []struct {
		profile *profile
		asked   []netip.Prefix
		want    string
	}{
		{open, nil, ""},
		{open, nets("192.0.2.1/32"), "192.0.2.1/32"},
		{closed, nil, "10.0.0.0/8,2001:db8::/32"},
		{closed, nets("10.0.0.0/8"), "10.0.0.0/8"},
		{closed, nets("10.1.2.3/32", "2001:db8:1::/48"), "10.1.2.3/32,2001:db8:1::/48"},
	} {
		options, err := criticalOptions(Request{SourceAddresses: c.asked}, c.profile)
		if got := options["source-address"]; err != nil || got != c.want {
			t.Errorf("%v: %q, %v; want %q", c.asked, got, err, c.want)
		}
	}
	for _, c := range []struct {
		profile *profile
		asked   []netip.Prefix
	}{
		{open, []netip.Prefix{}},
		{open, []netip.Prefix{{}}},
		{open, nets("0.0.0.0/0")},
		{open, nets("192.0.2.1/24")},
		{open, nets("::ffff:10.0.0.0/120")},
		{open, slices.Repeat(nets("192.0.2.1/32"), 33)},
		{closed, nets("192.0.2.1/32")},
		{closed, nets("8.0.0.0/6")},
		{closed, nets("10.0.0.0/8", "11.0.0.0/8")},
		{closed, nets("2001:db9::/48")},
	} {
		_, err := criticalOptions(Request{SourceAddresses: c.asked}, c.profile)
		wantCode(t, err, CodeSourceAddress)
	}
}

func TestForceCommandIsBoundedAndPrintable(t *testing.T) {
	t.Parallel()
	p := compile(t, ProfileConfig{Name: "user"})
	for _, command := range []string{"/usr/bin/true", `sh -c 'echo "a b" | tr a b; exit 3'`, strings.Repeat("x", 1024)} {
		options, err := criticalOptions(Request{ForceCommand: command}, p)
		if err != nil || options["force-command"] != command {
			t.Errorf("%q: %q, %v", command, options, err)
		}
	}
	for _, command := range []string{" ", "a\nb", "a\x00", "a\x1b[2J", "a\tb", "é", "\xff", "a\x7f", strings.Repeat("x", 1025)} {
		_, err := criticalOptions(Request{ForceCommand: command}, p)
		wantCode(t, err, CodeForceCommand)
	}
}

// TestKeyIDHasFiveFieldsWhateverTheTokenSays is threat 24.
func TestKeyIDHasFiveFieldsWhateverTheTokenSays(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 25)
	for _, c := range []struct{ alias, subject, login, request, want string }{
		{"kc", "7f3a", "alice", "r1", "v1:kc:7f3a:alice:r1"},
		{"kc", "auth0|7f", "alice", "r1", "v1:kc:" + hashField("auth0|7f") + ":alice:r1"},
		{"kc", "a:root:x", "alice", "r1", "v1:kc:" + hashField("a:root:x") + ":alice:r1"},
		{"kc", "x (serial 999) CA", "alice", "r1", "v1:kc:" + hashField("x (serial 999) CA") + ":alice:r1"},
		{"kc", hashField("a:root:x"), "alice", "r1", "v1:kc:" + hashField(hashField("a:root:x")) + ":alice:r1"},
		{"kc", "jürgen", "alice", "r1", "v1:kc:" + hashField("jürgen") + ":alice:r1"},
		{"kc", long, "alice", "r1", "v1:kc:" + hashField(long) + ":alice:r1"},
		{"kc", "7f3a", "alice", "a\nb:c", "v1:kc:7f3a:alice:" + hashField("a\nb:c")},
		{"sixteen-bytes-al", long, strings.Repeat("l", 32), strings.Repeat("r", 64), "v1:sixteen-bytes-al:" + hashField(long) + ":" + strings.Repeat("l", 32) + ":" + hashField(strings.Repeat("r", 64))},
	} {
		got := keyID(identitytest.IdentityFrom(t, c.alias, c.subject, c.login, time.Minute), c.request)
		if got != c.want {
			t.Errorf("subject %q: key id is\n%q, want\n%q", c.subject, got, c.want)
		}
		checkKeyID(t, got)
	}
}

func checkKeyID(t interface{ Errorf(string, ...any) }, id string) {
	fields := strings.Split(id, ":")
	if len(id) > maxKeyIDBytes || len(fields) != 5 || fields[0] != "v1" || slices.Contains(fields, "") {
		t.Errorf("key id %q has %d bytes, fields %q", id, len(id), fields)
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return !isAlphanumeric(r) && !strings.ContainsRune("._@:=/+-", r) }); i >= 0 {
		t.Errorf("key id %q has a character that is not allowed", id)
	}
}

func TestKeyIDsOfDifferentPeopleDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	for _, subject := range []string{"a", "b", "a:b", "a b", "a;b", hashField("a:b"), hashField(hashField("a:b")), "ab", "A", "å", strings.Repeat("a", 99), strings.Repeat("a", 98)} {
		id := keyID(identitytest.IdentityFrom(t, "kc", subject, "alice", time.Minute), "r")
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q have one key id, %q", subject, other, id)
		}
		seen[id] = subject
	}
}

func TestKeyIDFieldsStayInBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fields := joinKeyID(
			rapid.StringMatching(`[a-z0-9-]{1,16}`).Draw(t, "alias"),
			rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]{1,255}`)).Draw(t, "subject"),
			rapid.StringMatching(`[a-z_][A-Za-z0-9_.@+-]{0,63}`).Draw(t, "login"),
			rapid.OneOf(rapid.String(), rapid.StringMatching(`[A-Za-z0-9._-]{1,64}`)).Draw(t, "request"))
		checkKeyID(t, fields)
	})
}

func TestDraftIsSignedOnce(t *testing.T) {
	t.Parallel()
	d, err := newDraft(Request{Caller: alice(t), PublicKey: newPublicKey(t)}, compile(t, ProfileConfig{Name: "user"}), time.Now(), 1, "r")
	if err != nil {
		t.Fatal(err)
	}
	key := newTestKey(t, "")
	if _, err := d.sign(key.signer); err != nil {
		t.Fatal(err)
	}
	if cert, err := d.sign(key.signer); err == nil {
		t.Errorf("was signed again: %v", cert)
	}
}

// TestEveryChangeOfACertificateIsNoticed changes each field after signing.
func TestEveryChangeOfACertificateIsNoticed(t *testing.T) {
	t.Parallel()
	caller, p := alice(t), compile(t, ProfileConfig{Name: "user", SourceAddresses: nets("10.0.0.0/8")})
	key, other := newTestKey(t, ""), newTestKey(t, "")
	for name, change := range map[string]func(*ssh.Certificate){
		"nothing":          nil,
		"type":             func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
		"serial":           func(c *ssh.Certificate) { c.Serial++ },
		"no serial":        func(c *ssh.Certificate) { c.Serial = 0 },
		"key id":           func(c *ssh.Certificate) { c.KeyId += "x" },
		"principal":        func(c *ssh.Certificate) { c.ValidPrincipals[0] = "root" },
		"more principals":  func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root") },
		"no principal":     func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		"valid before":     func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity },
		"valid after":      func(c *ssh.Certificate) { c.ValidAfter = 0 },
		"option lost":      func(c *ssh.Certificate) { delete(c.CriticalOptions, "source-address") },
		"option changed":   func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "0.0.0.0/0" },
		"extension":        func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "" },
		"reserved":         func(c *ssh.Certificate) { c.Reserved = []byte("x") },
		"key":              func(c *ssh.Certificate) { c.Key = newPublicKey(t) },
		"ca key":           func(c *ssh.Certificate) { c.SignatureKey = other.PublicKey() },
		"no nonce":         func(c *ssh.Certificate) { c.Nonce = make([]byte, 32) },
		"short nonce":      func(c *ssh.Certificate) { c.Nonce = c.Nonce[:16] },
		"another nonce":    func(c *ssh.Certificate) { c.Nonce[0]++ },
		"signature":        func(c *ssh.Certificate) { c.Signature.Blob[0]++ },
		"no signature":     func(c *ssh.Certificate) { c.Signature = nil },
		"signature format": func(c *ssh.Certificate) { c.Signature.Format = ssh.KeyAlgoRSA },
		"signature rest":   func(c *ssh.Certificate) { c.Signature.Rest = []byte("x") },
	} {
		d, err := newDraft(Request{Caller: caller, PublicKey: newPublicKey(t)}, p, time.Now(), newSerial(), "r")
		if err != nil {
			t.Fatal(err)
		}
		cert, err := d.sign(key.signer)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(cert)
		}
		if err := d.verify(cert, key.signer); (err == nil) != (change == nil) {
			t.Errorf("%s: verify says %v", name, err)
		}
	}
}

func TestSerialsAreOf63BitsAndNotZero(t *testing.T) {
	t.Parallel()
	seen := make(map[uint64]bool)
	var all uint64
	for range 10_000 {
		n := newSerial()
		if n == 0 || n > math.MaxInt64 || seen[n] {
			t.Fatalf("serial %d is zero, too large, or drawn twice", n)
		}
		seen[n] = true
		all |= n
	}
	if all != math.MaxInt64 {
		t.Errorf("bits that are never set: %s", fmt.Sprintf("%064b", ^all))
	}
}
