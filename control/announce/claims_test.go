package announce

import (
	"net/netip"
	"testing"
	"time"
)

func TestClaims(t *testing.T) {
	c := newClaims(10 * time.Second)
	now := time.Now()
	step := func(mac [6]byte, after time.Duration, wantReport uint64, wantDefend bool) {
		t.Helper()
		now = now.Add(after)
		if r, d := c.add(vip4, mac, now); r != wantReport || d != wantDefend {
			t.Errorf("report %d, defend %v; want %d, %v", r, d, wantReport, wantDefend)
		}
	}
	step(theirs, 0, 1, true)
	step(theirs, time.Second, 0, false)
	step(second, time.Second, 1, false) // another claimant is news, but one defence serves both
	step(theirs, 9*time.Second, 2, true)
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
	if r, _ := c.add(vip4, [6]byte{2, 9, 9, 9, 9, 9}, now.Add(time.Hour)); r != 1 {
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
