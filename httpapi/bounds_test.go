package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestForwardedHopsAreBounded: whoever comes through a trusted proxy can write any number of
// hops, and has no more than some of them looked at.
func TestForwardedHopsAreBounded(t *testing.T) {
	a := &API{cfg: Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:1"
	for header, want := range map[string]string{
		strings.Repeat("10.0.0.2,", 7000) + "10.0.0.3":  "10.0.0.2",
		"192.0.2.9, 198.51.100.7, 10.0.0.2":             "198.51.100.7",
		strings.Repeat(",", 60_000):                     "10.0.0.1",
		"198.51.100.7":                                  "198.51.100.7",
		strings.Repeat("x", 60_000) + ",198.51.100.7":   "198.51.100.7",
		strings.Repeat("192.0.2.1,", 5000) + "10.0.0.2": "192.0.2.1",
	} {
		r.Header.Set("X-Forwarded-For", header)
		if got := a.clientAddr(r); got.String() != want {
			t.Errorf("%.20s…: %s, want %s", header, got, want)
		}
		if n := testing.AllocsPerRun(10, func() { a.clientAddr(r) }); n > 10 {
			t.Errorf("%.20s…: %v allocations", header, n)
		}
	}
}

// TestRefusalsOfOneHideNobodyElses: one address has a quarter of the records of a minute.
func TestRefusalsOfOneHideNobodyElses(t *testing.T) {
	t.Parallel()
	f, now, recorded := &refusals{}, time.Now().Truncate(time.Minute), 0
	for range 10_000 {
		if _, ok := f.admit(&f.unverified, "192.0.2.1", maxUnverifiedRefusals, now); ok {
			recorded++
		}
	}
	if recorded != maxUnverifiedRefusals/refusalParts {
		t.Errorf("%d of one address are recorded", recorded)
	}
	if suppressed, ok := f.admit(&f.unverified, "192.0.2.2", maxUnverifiedRefusals, now); !ok || suppressed != 10_000-recorded {
		t.Errorf("another address's is not recorded, or does not carry the count: %v, %d", ok, suppressed)
	}
	if areaOf("2001:db8::1") != areaOf("2001:db8::2") || areaOf("192.0.2.1") == areaOf("192.0.2.2") {
		t.Error("addresses of a network are told apart, or those of two hosts are not")
	}
}
