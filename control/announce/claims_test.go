package announce

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestClaims(t *testing.T) {
	c := newClaims(10 * time.Second)
	now := time.Now()
	step := func(mac [6]byte, after time.Duration, want uint64) {
		t.Helper()
		now = now.Add(after)
		if r := c.add(vip4, mac, now); r != want {
			t.Errorf("report %d, want %d", r, want)
		}
	}
	step(theirs, 0, 1)
	step(theirs, time.Second, 0)
	step(second, time.Second, 1) // another claimant is news
	step(theirs, 9*time.Second, 2)
}

// A VIP is defended at once, then once in 10 seconds for as long as it is claimed, and once more after the last claim.
func TestDefences(t *testing.T) {
	d := newDefences(10 * time.Second)
	start := time.Now()
	claims := map[int]bool{}
	for second := 0; second <= 34; second += 2 {
		claims[second] = true
	}
	claims[60], claims[101] = true, true
	var got []int
	for second := range 120 {
		now := start.Add(time.Duration(second) * time.Second)
		if claims[second] {
			d.claimed(vip4, now)
			d.claimed(vip4, now) // a second one changes nothing
		}
		vips, wait := d.take(now)
		if len(vips) > 0 {
			got = append(got, second)
		}
		if next, planned := d.next[vip4]; planned && wait != next.Sub(now) || !planned && wait != time.Hour {
			t.Errorf("after %d s: wait %v with %v planned", second, wait, d.next)
		}
	}
	if want := []int{0, 10, 20, 30, 40, 60, 101}; !slices.Equal(got, want) {
		t.Errorf("defended at %v, want %v", got, want)
	}
	// One that is no longer ours is not defended, and begins anew when it is again.
	now := start.Add(102 * time.Second)
	d.claimed(vip4, now)
	d.keep(map[netip.Addr]bool{vip6: true})
	if vips, _ := d.take(now.Add(time.Hour)); len(vips) > 0 || len(d.last)+len(d.next) > 0 {
		t.Errorf("defends %v, remembers %v and %v", vips, d.last, d.next)
	}
}

func TestClaimsAreBounded(t *testing.T) {
	c := newClaims(time.Minute)
	now := time.Now()
	for i := range 10 * maxClaims {
		c.add(vip4, [6]byte{2, 0, byte(i >> 16), byte(i >> 8), byte(i)}, now)
	}
	if len(c.by) > maxClaims {
		t.Errorf("%d claims kept, want at most %d", len(c.by), maxClaims)
	}
	if r := c.add(vip4, [6]byte{2, 9, 9, 9, 9, 9}, now.Add(time.Hour)); r != 1 {
		t.Errorf("a new claimant after the flood is reported %d times, want 1", r)
	}
}

func TestPlace(t *testing.T) {
	pfx := netip.MustParsePrefix
	ifs := []Interface{
		{Name: "a", Addrs: []netip.Prefix{pfx("10.0.0.1/24"), pfx("2001:db8::1/64")}},
		{Name: "b", Addrs: []netip.Prefix{pfx("10.1.0.1/24")}},
	}
	routed := netip.MustParseAddr("203.0.113.10")
	own := netip.MustParseAddr("10.1.0.1")
	got := place(ifs, []netip.Addr{vip4, routed, vip6, own})
	for i, want := range []map[netip.Addr]bool{
		{vip4: true, routed: true, vip6: true},
		{routed: true},
	} {
		if len(got[i]) != len(want) {
			t.Errorf("%s: %v, want %v", ifs[i].Name, got[i], want)
		}
		for a := range want {
			if !got[i][a] {
				t.Errorf("%s lacks %v", ifs[i].Name, a)
			}
		}
	}
}
