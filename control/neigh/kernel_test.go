package neigh

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	addr = netip.MustParseAddr
	mac9 = net.HardwareAddr{2, 0, 0, 0, 0, 9}
)

func TestRealKernelResolves(t *testing.T) {
	l := newLab(t)
	l.addRoute("10.9.0.0/16", "10.0.0.9", 1400)
	l.addRoute("2001:db8:9::/48", "fe80::1", 0)
	l.addRoute("10.8.0.0/16", "fe80::1", 0)
	r := l.resolver(Options{})
	src := linkOf(t, l.dh, "dir0").Attrs()
	dst := linkOf(t, l.fh, "host0").Attrs().HardwareAddr

	tests := []struct {
		addr, gateway, source string
		mtu                   int
	}{
		{"10.0.0.9", "", "10.0.0.1", 1500},
		{"2001:db8::9", "", "2001:db8::1", 1500},
		{"10.9.1.1", "10.0.0.9", "10.0.0.1", 1400},
		{"2001:db8:9::1", "fe80::1", "2001:db8::1", 1500},
		{"10.8.1.1", "fe80::1", "10.0.0.1", 1500},
	}
	var wants []Want
	for _, tt := range tests {
		wants = append(wants, want(tt.addr)...)
	}
	static := addr("10.0.0.77")
	r.Set(append(wants, Want{static, mac9}))
	for _, tt := range tests {
		within(t, r, tt.addr+" resolved", func() bool { _, err := r.Lookup(addr(tt.addr)); return err == nil })
		gw, _ := netip.ParseAddr(tt.gateway)
		h, _ := r.Lookup(addr(tt.addr))
		wantHop := Hop{src.Index, "dir0", src.HardwareAddr, dst, gw, addr(tt.source), tt.mtu}
		if !h.equal(wantHop) {
			t.Errorf("%s: %+v, want %+v", tt.addr, h, wantHop)
		}
	}
	if h, err := r.Lookup(static); err != nil || !bytes.Equal(h.DstMAC, mac9) || h.Interface != "dir0" {
		t.Errorf("with a static MAC: %+v, %v", h, err)
	}
	if l.entry(static) != nil {
		t.Error("a static MAC led to a neighbour entry")
	}
}

func TestWhyUnresolved(t *testing.T) {
	l := newLab(t)
	l.addRoute("10.9.0.0/16", "10.0.0.66", 0)
	r := l.resolver(Options{})
	tests := map[string]string{
		"10.0.0.66":        "10.0.0.66 is on dir0, no answer to ARP yet",
		"2001:db8::66":     "2001:db8::66 is on dir0, no answer to neighbour solicitation yet",
		"10.9.0.1":         "10.9.0.1 is behind 10.0.0.66 on dir0, no answer to ARP yet",
		"192.0.2.1":        "no route to 192.0.2.1",
		"2001:db8:ffff::1": "no route to 2001:db8:ffff::1",
		"10.0.0.1":         "10.0.0.1 is this host's own address",
		"2001:db8::1":      "2001:db8::1 is this host's own address",
		"10.0.0.255":       "10.0.0.255 is a broadcast, multicast or anycast address",
	}
	var wants []Want
	for a := range tests {
		wants = append(wants, want(a)...)
	}
	r.Set(wants)
	for a, why := range tests {
		within(t, r, why, func() bool { _, err := r.Lookup(addr(a)); return err != nil && err.Error() == why })
	}
	if _, err := r.Lookup(addr("10.0.0.200")); err == nil || !strings.Contains(err.Error(), "not among the wanted") {
		t.Errorf("an address that nobody wants: %v", err)
	}
}

func TestChangesAreNoticed(t *testing.T) {
	l := newLab(t)
	r := l.resolver(Options{Reprobe: 50 * time.Millisecond, Retry: 50 * time.Millisecond})
	host := linkOf(t, l.fh, "host0")
	dir := linkOf(t, l.dh, "dir0")
	a := addr("10.0.0.9")
	hop := func(cond func(Hop) bool) func() bool {
		return func() bool { h, err := r.Lookup(a); return err == nil && cond(h) }
	}
	r.Set(want("10.0.0.9", "10.7.0.1"))
	within(t, r, "resolved", hop(func(Hop) bool { return true }))

	// The stale entry is verified by asking, and the answer comes with another MAC.
	must(t, l.fh.LinkSetHardwareAddr(host, mac9))
	n := l.entry(a)
	n.State = netlink.NUD_STALE
	must(t, l.dh.NeighSet(n))
	within(t, r, "the new MAC", hop(func(h Hop) bool { return bytes.Equal(h.DstMAC, mac9) }))

	must(t, l.dh.LinkSetMTU(dir, 1300))
	within(t, r, "the new MTU", hop(func(h Hop) bool { return h.MTU == 1300 }))
	rt := l.addRoute("10.7.0.0/16", "10.0.0.9", 0)
	within(t, r, "the new route", func() bool { h, err := r.Lookup(addr("10.7.0.1")); return err == nil && h.Gateway == a })
	must(t, l.dh.RouteDel(rt))
	within(t, r, "the route is gone", func() bool { _, err := r.Lookup(addr("10.7.0.1")); return err != nil })

	must(t, l.dh.LinkSetHardwareAddr(dir, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	within(t, r, "our new MAC", hop(func(h Hop) bool { return h.SrcMAC[5] == 1 }))

	before, _ := r.Interface("dir0")
	must(t, l.fh.LinkSetDown(host))
	within(t, r, "the lost carrier", func() bool {
		_, err := r.Lookup(a)
		f, _ := r.Interface("dir0")
		return err != nil && strings.Contains(err.Error(), "no carrier") && !f.Up
	})
	must(t, l.fh.LinkSetUp(host))
	within(t, r, "resolved again", hop(func(Hop) bool { return true }))
	if f, _ := r.Interface("dir0"); !f.Up || f.Ups <= before.Ups {
		t.Errorf("after the link came back: %+v, before %+v", f, before)
	}

	addAddr(t, l.dh, dir, "10.0.5.1/32")
	within(t, r, "the new local address", func() bool { return slices.Contains(r.Locals(), addr("10.0.5.1")) })
}

func TestDeadNeighbourIsUnresolved(t *testing.T) {
	l := newLab(t)
	r := l.resolver(Options{Reprobe: 50 * time.Millisecond, Retry: 50 * time.Millisecond})
	r.Set(want("10.0.0.9"))
	a := addr("10.0.0.9")
	within(t, r, "resolved", func() bool { _, err := r.Lookup(a); return err == nil })
	host := linkOf(t, l.fh, "host0")
	ip, err := netlink.ParseAddr("10.0.0.9/24")
	must(t, err)
	must(t, l.fh.AddrDel(host, ip))
	n := l.entry(a)
	n.State = netlink.NUD_STALE
	must(t, l.dh.NeighSet(n))
	within(t, r, "unresolved", func() bool { _, err := r.Lookup(a); return err != nil })
	must(t, l.fh.AddrAdd(host, ip))
	within(t, r, "resolved again without being told", func() bool { _, err := r.Lookup(a); return err == nil })
}

func TestCloseLeavesNoEntryBehind(t *testing.T) {
	l := newLab(t)
	dir := linkOf(t, l.dh, "dir0").Attrs().Index
	mine := addr("10.0.0.50")
	must(t, l.dh.NeighSet(&netlink.Neigh{LinkIndex: dir, IP: net.IP(mine.AsSlice()), HardwareAddr: mac9, State: netlink.NUD_REACHABLE}))
	r := l.resolver(Options{})
	r.Set(want("10.0.0.9", "2001:db8::9", "10.0.0.50", "10.0.0.66"))
	for _, a := range []string{"10.0.0.9", "2001:db8::9", "10.0.0.50"} {
		within(t, r, a, func() bool { _, err := r.Lookup(addr(a)); return err == nil })
	}
	must(t, r.Close())
	must(t, r.Close())
	for _, a := range []string{"10.0.0.9", "2001:db8::9", "10.0.0.66"} {
		if n := l.entry(addr(a)); n != nil {
			t.Errorf("entry %v, state %#x left behind", n, n.State)
		}
	}
	if l.entry(mine) == nil {
		t.Error("an entry that was there before is gone")
	}
}

func TestRouterFlagSurvivesVerification(t *testing.T) {
	l := newLab(t)
	dir := linkOf(t, l.dh, "dir0").Attrs().Index
	a := addr("2001:db8::9")
	must(t, l.dh.NeighSet(&netlink.Neigh{LinkIndex: dir, IP: net.IP(a.AsSlice()), State: netlink.NUD_STALE,
		HardwareAddr: linkOf(t, l.fh, "host0").Attrs().HardwareAddr, Flags: netlink.NTF_ROUTER}))
	k, err := openKernel(&l.dir)
	must(t, err)
	defer k.close()
	must(t, k.verify(neighbour{key: neighKey{dir, a}, flags: netlink.NTF_ROUTER}))
	if n := l.entry(a); n == nil || n.Flags&netlink.NTF_ROUTER == 0 || n.State&(netlink.NUD_PROBE|netlink.NUD_REACHABLE) == 0 {
		t.Errorf("entry %+v", n)
	}
}

func TestInterfaceFacts(t *testing.T) {
	l := newLab(t)
	r := l.resolver(Options{})
	within(t, r, "a carrier", func() bool { f, _ := r.Interface("dir0"); return f.Up })
	f, ok := r.Interface("dir0")
	if !ok || !f.Up || f.NoARP || f.MTU != 1500 || len(f.MAC) != 6 || !slices.Contains(f.Addrs, netip.MustParsePrefix("10.0.0.1/24")) {
		t.Errorf("dir0: %+v, %v", f, ok)
	}
	if f, ok := r.Interface("lo"); !ok || !f.NoARP {
		t.Errorf("lo: %+v, %v", f, ok)
	}
	if _, ok := r.Interface("nope"); ok {
		t.Error("an interface that does not exist is known")
	}
	for _, a := range []string{"10.0.0.1", "2001:db8::1", "fe80::d", "127.0.0.1"} {
		if !slices.Contains(r.Locals(), addr(a)) {
			t.Errorf("locals %v lack %s", r.Locals(), a)
		}
	}
}

func FuzzEvent(f *testing.F) {
	n := netlink.Ndmsg{Family: unix.AF_INET, Index: 2, State: netlink.NUD_REACHABLE}
	msg := append(bytes.Clone(n.Serialize()), 8, 0, 1, 0, 10, 0, 0, 9)
	f.Add(uint16(unix.RTM_NEWNEIGH), msg)
	link := make([]byte, sizeofIfinfomsg)
	binary.NativeEndian.PutUint32(link[4:], 2)
	binary.NativeEndian.PutUint32(link[8:], unix.IFF_UP|unix.IFF_LOWER_UP)
	f.Add(uint16(unix.RTM_NEWLINK), link)
	f.Add(uint16(unix.RTM_DELROUTE), []byte{})
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		e, ok := parseEvent(typ, data)
		if !ok && (e.neigh != nil || e.refresh) {
			t.Errorf("refused, and yet %+v", e)
		}
		if ok && e.neigh == nil && !e.refresh {
			t.Error("an event without news")
		}
	})
}
