package announce

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var quick = []time.Duration{0, 20 * time.Millisecond, 40 * time.Millisecond}

func (l *lab) announcer(o Options) *Announcer {
	o.Namespace = &l.dir
	if o.Announcements == nil {
		o.Announcements = quick
	}
	a := New(o)
	l.t.Cleanup(func() { a.Close() })
	return a
}

func (l *lab) resolved(addr netip.Addr, mac net.HardwareAddr, states int) func() bool {
	return func() bool {
		n := l.hostEntry(addr)
		return n != nil && n.State&states != 0 && bytes.Equal(n.HardwareAddr, mac)
	}
}

func TestHostResolvesVIP(t *testing.T) {
	l := newLab(t)
	// Announcements an hour away: what the host learns, it learns from answers.
	a := l.announcer(Options{Announcements: []time.Duration{time.Hour}})
	ifc := l.iface(1)
	must(t, a.Set([]Interface{ifc}, []netip.Addr{vip4, vip6}))
	for _, vip := range []netip.Addr{vip4, vip6} {
		l.ask(vip)
		within(t, vip.String()+" resolved", l.resolved(vip, ifc.MAC, netlink.NUD_REACHABLE))
		// Unicast probes, by which a kernel verifies an entry.
		n := l.hostEntry(vip)
		n.State = netlink.NUD_STALE
		must(t, l.fh.NeighSet(n))
		n.State = netlink.NUD_PROBE
		must(t, l.fh.NeighSet(n))
		within(t, vip.String()+" verified", l.resolved(vip, ifc.MAC, netlink.NUD_REACHABLE))
	}
	if s := a.Status(); len(s) != 1 || s[0].Answered < 4 || s[0].Note != "" || len(s[0].VIPs) != 2 {
		t.Errorf("status %+v", s)
	}
}

func TestAnnouncementUpdatesStaleEntries(t *testing.T) {
	l := newLab(t)
	host, err := l.fh.LinkByName("host0")
	must(t, err)
	old := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	stale := func() {
		t.Helper()
		for _, vip := range []netip.Addr{vip4, vip6} {
			must(t, l.fh.NeighSet(&netlink.Neigh{LinkIndex: host.Attrs().Index, IP: net.IP(vip.AsSlice()),
				HardwareAddr: old, State: netlink.NUD_STALE}))
		}
	}
	fresh := func(mac net.HardwareAddr) {
		t.Helper()
		for _, vip := range []netip.Addr{vip4, vip6} {
			within(t, vip.String()+" updated", l.resolved(vip, mac, netlink.NUD_STALE|netlink.NUD_REACHABLE))
		}
	}
	a := l.announcer(Options{})
	vips := []netip.Addr{vip4, vip6}

	stale()
	ifc := l.iface(1)
	must(t, a.Set([]Interface{ifc}, vips))
	fresh(ifc.MAC)
	within(t, "three announcements each", func() bool { return a.Status()[0].Announced == 6 })

	must(t, a.Set([]Interface{ifc}, vips)) // nothing new, nothing sent

	// The link goes down and comes up: the same sockets go on, and all is announced again.
	dir, err := l.dh.LinkByName("dir0")
	must(t, err)
	must(t, l.dh.LinkSetDown(dir))
	must(t, l.dh.LinkSetUp(dir))
	within(t, "carrier", func() bool {
		d, err := l.dh.LinkByName("dir0")
		return err == nil && d.Attrs().RawFlags&unix.IFF_RUNNING != 0
	})
	stale()
	ifc.Ups = 2
	must(t, a.Set([]Interface{ifc}, vips))
	fresh(ifc.MAC)
	within(t, "three more", func() bool { return a.Status()[0].Announced == 12 })
	must(t, l.fh.NeighDel(l.hostEntry(vip4)))
	l.ask(vip4)
	within(t, "answered after the link was down", l.resolved(vip4, ifc.MAC, netlink.NUD_REACHABLE))

	// Another MAC.
	must(t, l.dh.LinkSetHardwareAddr(dir, net.HardwareAddr{2, 0, 0, 0, 0, 0x55}))
	ifc = l.iface(2)
	must(t, a.Set([]Interface{ifc}, vips))
	fresh(ifc.MAC)
}

func TestConflict(t *testing.T) {
	l := newLab(t)
	var mu sync.Mutex
	var seen []Conflict
	a := l.announcer(Options{ConflictEvery: time.Hour, OnConflict: func(c Conflict) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c)
	}})
	ifc := l.iface(1)
	must(t, a.Set([]Interface{ifc}, []netip.Addr{vip4, vip6}))

	// A second announcer at the other end claims the same addresses.
	host, err := l.fh.LinkByName("host0")
	must(t, err)
	rival := New(Options{Namespace: &l.far, Announcements: quick})
	defer rival.Close()
	must(t, rival.Set([]Interface{{Name: "host0", Index: host.Attrs().Index, MAC: host.Attrs().HardwareAddr, Up: true}}, []netip.Addr{vip4, vip6}))
	within(t, "six claims counted", func() bool { return a.Status()[0].Conflicts >= 6 })
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 {
		t.Fatalf("%d events, want one for each VIP: %v", len(seen), seen)
	}
	for _, c := range seen {
		if c.Interface != "dir0" || !bytes.Equal(c.MAC, host.Attrs().HardwareAddr) || c.Count != 1 || c.VIP != vip4 && c.VIP != vip6 {
			t.Errorf("conflict %+v", c)
		}
	}
}

// Whoever claims our addresses in quick succession and then falls silent does not keep them.
func TestLastWordIsOurs(t *testing.T) {
	l := newLab(t)
	a := l.announcer(Options{ConflictEvery: 3 * time.Second})
	ifc := l.iface(1)
	vips := []netip.Addr{vip4, vip6}
	must(t, a.Set([]Interface{ifc}, vips))
	within(t, "three announcements each", func() bool { return a.Status()[0].Announced == 6 })
	host, err := l.fh.LinkByName("host0")
	must(t, err)
	rival := New(Options{Namespace: &l.far, Announcements: quick, ConflictEvery: time.Hour})
	defer rival.Close()
	must(t, rival.Set([]Interface{{Name: "host0", Index: host.Attrs().Index, MAC: host.Attrs().HardwareAddr, Up: true}}, vips))
	within(t, "all claims counted", func() bool { return a.Status()[0].Conflicts >= 6 })
	must(t, rival.Close())
	// As hosts that heard the rival last have them.
	for _, vip := range vips {
		must(t, l.fh.NeighSet(&netlink.Neigh{LinkIndex: host.Attrs().Index, IP: net.IP(vip.AsSlice()),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0x77}, State: netlink.NUD_STALE}))
	}
	for _, vip := range vips {
		within(t, vip.String()+" is ours again", l.resolved(vip, ifc.MAC, netlink.NUD_STALE|netlink.NUD_REACHABLE))
	}
	within(t, "a defence at once and one put off, for each", func() bool { return a.Status()[0].Announced >= 6+4 })
}

func TestOwnInterfacesAreNoConflict(t *testing.T) {
	l := newLab(t)
	host, err := l.fh.LinkByName("host0")
	must(t, err)
	a := l.announcer(Options{})
	ifc := l.iface(1)
	// As if host0 were a second interface of the director on the same segment.
	other := Interface{Name: "host0", Index: ifc.Index, MAC: host.Attrs().HardwareAddr}
	must(t, a.Set([]Interface{ifc, other}, []netip.Addr{vip4}))
	rival := New(Options{Namespace: &l.far, Announcements: quick})
	defer rival.Close()
	must(t, rival.Set([]Interface{{Name: "host0", Index: host.Attrs().Index, MAC: host.Attrs().HardwareAddr}}, []netip.Addr{vip4, vip4b}))
	l.ask(netip.MustParseAddr("10.0.0.1"))
	within(t, "three announcements by each", func() bool { return rival.Status()[0].Announced >= 6 })
	if n := a.Status()[0].Conflicts; n != 0 {
		t.Errorf("%d conflicts with ourselves", n)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	l := newLab(t)
	ifc := l.iface(1)
	groups := func() bool { return l.hasGroup(group(vip6)) }
	a := l.announcer(Options{})
	must(t, a.Set([]Interface{ifc}, []netip.Addr{vip4, vip6}))
	within(t, "group joined", groups)
	must(t, a.Set([]Interface{ifc}, []netip.Addr{vip4}))
	if groups() {
		t.Error("the group is still joined after its VIP was removed")
	}
	must(t, a.Set([]Interface{ifc}, []netip.Addr{vip4, vip6}))
	within(t, "group joined", groups)
	must(t, a.Close())
	must(t, a.Close())
	within(t, "group left", func() bool { return !groups() })
	l.ask(vip4)
	within(t, "resolution failed", func() bool {
		n := l.hostEntry(vip4)
		return n != nil && n.State&netlink.NUD_FAILED != 0
	})
	addrs, err := l.dh.AddrList(nil, netlink.FAMILY_ALL)
	must(t, err)
	for _, ad := range addrs {
		if ad.IP.Equal(net.IP(vip4.AsSlice())) || ad.IP.Equal(net.IP(vip6.AsSlice())) {
			t.Errorf("address %v left", ad)
		}
	}
	if err := a.Set(nil, nil); err == nil {
		t.Error("Set after Close gave no error")
	}
}

func TestSkipped(t *testing.T) {
	a := New(Options{})
	defer a.Close()
	must(t, a.Set([]Interface{
		{Name: "lo", Index: 1, MAC: make(net.HardwareAddr, 6)},
		{Name: "tun0", Index: 2, NoARP: true},
	}, []netip.Addr{vip4}))
	s := a.Status()
	if len(s) != 2 || !strings.Contains(s[0].Skipped, "no Ethernet address") || !strings.Contains(s[1].Skipped, "no ARP") {
		t.Errorf("status %+v", s)
	}
}

func TestInterfaceThatIsNotThere(t *testing.T) {
	l := newLab(t)
	a := l.announcer(Options{})
	gone := Interface{Name: "gone0", Index: 12345, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 3}}
	ifc := l.iface(1)
	err := a.Set([]Interface{gone, ifc}, []netip.Addr{vip4})
	if err == nil || !strings.Contains(err.Error(), "gone0") {
		t.Errorf("error %v, want one about gone0", err)
	}
	i := slices.IndexFunc(a.Status(), func(s Status) bool { return s.Interface == "dir0" && s.Skipped == "" })
	if i < 0 {
		t.Errorf("dir0 does not work: %+v", a.Status())
	}
	l.ask(vip4)
	within(t, "resolved on the other interface", l.resolved(vip4, ifc.MAC, netlink.NUD_REACHABLE))
}
