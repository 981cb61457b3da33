package places

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func at(text string) netip.Addr { return netip.MustParseAddr(text) }

// host is one of many addresses.
func host(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}) }

func TestOneAddressIsWhatOneCustomerHas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"::1", "::ffff:0.0.0.1", false},
	} {
		if got := Area(at(c.a)) == Area(at(c.b)); got != c.same {
			t.Errorf("%s and %s: same %t", c.a, c.b, got)
		}
	}
	if (Area(netip.Addr{}) != netip.Addr{}) {
		t.Error("no address has an area")
	}
}

// A crowdTest joins members that note who was evicted.
type crowdTest struct {
	*Crowd
	evicted []string
}

func (c *crowdTest) join(name string, area netip.Addr, rank Rank, yields bool) *Member {
	m := c.Join(area, rank, func() { c.evicted = append(c.evicted, name) })
	if yields {
		m.Yield()
	}
	return m
}

func (c *crowdTest) want(t *testing.T, evicted ...string) {
	t.Helper()
	if !slices.Equal(c.evicted, evicted) {
		t.Errorf("evicted %q, want %q", c.evicted, evicted)
	}
	c.evicted = nil
}

func TestAnAddressHasAPartAndItsNewcomersTakeTheStalestPlace(t *testing.T) {
	t.Parallel()
	c := &crowdTest{Crowd: NewCrowd(Limits{Total: 100, Each: 3})}
	a := c.join("a", host(1), Stranger, true)
	c.join("b", host(1), Stranger, true)
	c.join("c", host(1), Stranger, false)
	a.Hold()
	a.Yield() // it went on, and waits anew
	c.join("d", host(1), Stranger, true)
	c.want(t, "b")
	c.join("e", host(1), Stranger, false)
	c.join("f", host(1), Stranger, false)
	c.want(t, "a", "d")
	if c.join("g", host(1), Stranger, true) != nil {
		t.Error("a member that does not yield lost its place")
	}
	if a.Hold() {
		t.Error("an evicted member has a place")
	}
	a.Leave() // as its owner does in any case
	if n := c.Count(); n.InUse != 3 || n.Refused != 1 || n.Evicted != 3 || n.Addresses != 1 {
		t.Errorf("count %+v", n)
	}
}

func TestWhoHasMostYieldsFirst(t *testing.T) {
	t.Parallel()
	c := &crowdTest{Crowd: NewCrowd(Limits{Total: 6, Each: 4})}
	for i := range 2 {
		c.join(fmt.Sprint("two", i), host(2), Stranger, true)
	}
	for i := range 3 {
		c.join(fmt.Sprint("three", i), host(3), Stranger, true)
	}
	c.join("one", host(1), Stranger, true)
	c.want(t)
	c.join("new", host(4), Stranger, true)
	c.want(t, "three0")
	c.join("again", host(4), Stranger, true) // now all have two, but for one
	c.want(t, "two0")
	c.join("too many", host(4), Stranger, true) // nobody has more: its own
	c.want(t, "new")
}

func TestRanksGoBeforeEachOtherAndEachIsSureOfSomething(t *testing.T) {
	t.Parallel()
	const total = 160 // a rank is sure of 10
	c := &crowdTest{Crowd: NewCrowd(Limits{Total: total, Each: 40})}
	for i := range 2 * total {
		c.join("stranger", host(i), Stranger, true)
	}
	if n := c.Count(); n.InUse != total-30 {
		t.Fatalf("strangers have %d places of %d", n.InUse, total)
	}
	c.evicted = nil
	for i := range 4 {
		for range 80 {
			c.join("known", host(i), Known, true)
		}
	}
	if n := c.Count(); n.Strangers != 10 || n.InUse != total-20 {
		t.Errorf("after a flood of known addresses: %+v", n)
	}
	c.evicted = nil
	if c.join("node", host(1), Node, true) == nil {
		t.Error("no room for a node")
	}
	for range total {
		c.join("node", host(1), Node, true)
	}
	c.evicted = nil
	for range 20 {
		c.join("a stranger", host(7), Stranger, true)
	}
	if slices.Contains(c.evicted, "node") || !slices.Contains(c.evicted, "stranger") {
		t.Errorf("strangers took the places of %q", c.evicted)
	}
}

// Whatever comes, the bounds hold and what is kept in mind fits what there is.
func TestACrowdKeepsItsBoundsInAnyOrder(t *testing.T) {
	t.Parallel()
	limits := Limits{Total: 64, Each: 8}
	c := NewCrowd(limits)
	random := rand.New(rand.NewPCG(1, 2))
	live := map[*Member]bool{}
	for range 200_000 {
		for m := range live { // any one
			switch random.IntN(6) {
			case 0:
				m.Leave()
				delete(live, m)
			case 1:
				m.Hold()
			case 2:
				m.Rise(Rank(random.IntN(ranks)))
			default:
				m.Yield()
			}
			break
		}
		var m *Member
		m = c.Join(host(random.IntN(20)), Rank(random.IntN(ranks)), func() { delete(live, m) })
		var evicted []*Member
		for other := range live {
			if other.group == nil {
				evicted = append(evicted, other)
			}
		}
		for _, e := range evicted {
			delete(live, e)
		}
		if m != nil {
			live[m] = true
		}
		if c.total != len(live) || c.total > limits.Total {
			t.Fatalf("%d members, of which %d live", c.total, len(live))
		}
	}
	for m := range live {
		m.Leave()
	}
	for r := range ranks {
		if len(c.groups[r]) != 0 || len(c.yield[r]) != 0 || c.of[r] != 0 {
			t.Errorf("rank %d: %d groups, %d heaped, %d members remain", r, len(c.groups[r]), len(c.yield[r]), c.of[r])
		}
	}
}

func TestABurstFromOneAddressSettlesWhileThereIsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &crowdTest{Crowd: NewCrowd(Limits{Total: 100, Each: 3, Settle: time.Second})}
		for i := range 6 {
			c.join(fmt.Sprint(i), host(1), Stranger, true)
		}
		c.want(t)
		time.Sleep(2 * time.Second)
		c.join("late", host(1), Stranger, true)
		c.want(t, "0")
	})
}

func TestQueuedMembersAreNotReplacedByTheirOwn(t *testing.T) {
	t.Parallel()
	c := &crowdTest{Crowd: NewCrowd(Limits{Total: 16, Each: 2, Queue: true})}
	c.join("a", host(1), Stranger, true)
	c.join("b", host(1), Stranger, true)
	if c.join("c", host(1), Stranger, true) != nil {
		t.Error("there was room")
	}
	c.want(t)
}

func TestABookKnowsNodesAndWhoHasShownAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBook([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")})
		want := func(addr string, rank Rank) {
			t.Helper()
			if got := b.Rank(at(addr)); got != rank {
				t.Errorf("%s has rank %d, want %d", addr, got, rank)
			}
		}
		want("10.1.2.3", Node)
		want("::ffff:192.0.2.7", Node)
		want("192.0.2.8", Stranger)
		b.Vouch(at("192.0.2.8"), Person{"idp", "alice"})
		b.Vouch(at("2001:db8::1"), Person{"idp", "alice"})
		want("192.0.2.8", Known)
		want("2001:db8::2", Known)
		time.Sleep(knownFor - time.Minute)
		b.Vouch(at("192.0.2.8"), Person{"idp", "bob"})
		time.Sleep(2 * time.Minute)
		want("192.0.2.8", Known)
		want("2001:db8::1", Stranger)
		b.SetNodes(nil)
		want("10.1.2.3", Stranger)
	})
}

// A person with a token and many addresses does not have those of others forgotten.
func TestOnePersonMakesFewAddressesKnown(t *testing.T) {
	t.Parallel()
	b := NewBook(nil)
	b.Vouch(at("198.51.100.1"), Person{"idp", "alice"})
	for i := range 2 * knownSize {
		b.Vouch(host(i), Person{"idp", "mallory"})
	}
	if b.Known() != knownByOne+1 || b.Rank(at("198.51.100.1")) != Known {
		t.Errorf("%d addresses are known", b.Known())
	}
}
