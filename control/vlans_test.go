package control

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xlvs/control/neigh"
	"xlvs/dataplane/packet"
)

// vlanFacts is an interface of the kernel's that is a VLAN of another.
func vlanFacts(name string, index, parent int, etherType, id uint16) neigh.Facts {
	return neigh.Facts{Name: name, Index: index, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, MTU: 1400, Up: true,
		Addrs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, byte(index), 1}), 24)},
		VLAN:  neigh.VLAN{Parent: parent, Type: etherType, ID: id}}
}

func (f *fakeNeigh) add(facts ...neigh.Facts) {
	f.change(func() {
		for _, x := range facts {
			f.facts[x.Name] = x
		}
	})
}

func tagsOf(ids ...uint16) (t packet.Tags) {
	for i, id := range ids {
		kind := uint16(packet.EtherVLAN)
		if i == 0 && len(ids) == 2 {
			kind = packet.EtherQinQ
		}
		t = t.Within(kind, id)
	}
	return t
}

// What is reached by a VLAN of an interface leaves by the interface, with the VLAN's tags; VIPs are announced there.
func TestBackendInVLAN(t *testing.T) {
	w := newWorld(t, plain)
	w.neigh.add(vlanFacts("eth1.5", 50, 3, packet.EtherQinQ, 5), vlanFacts("eth1.5.7", 57, 50, packet.EtherVLAN, 7), vlanFacts("eth1.9", 59, 3, packet.EtherVLAN, 9),
		vlanFacts("eth7.9", 79, 7, packet.EtherVLAN, 9), vlanFacts("x", 80, 57, packet.EtherVLAN, 8))
	w.neigh.hops[netip.MustParseAddr("10.1.0.1")] = neigh.Hop{Ifindex: 57, Interface: "eth1.5.7", MTU: 1400,
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 9, 9}, Source: netip.MustParseAddr("10.20.57.1")}
	must(t, w.start())
	must(t, w.Attached())
	_, b := w.entry("web", "a")
	p := w.engine.Snapshot().Ports[b.Out]
	if !b.Resolved || p.Name != "eth1.5.7" || p.Trunk != 1 || p.Tags != tagsOf(5, 7) || p.MTU != 1400 || p.V4 != packet.FromNetip(netip.MustParseAddr("10.20.57.1")) {
		t.Errorf("leaves by %+v", p)
	}
	// Three tags are too many, and eth7 is not the director's.
	if got := portNames(w); !slices.Equal(got, []string{"eth0", "eth1", "eth1.5", "eth1.5.7", "eth1.9"}) {
		t.Errorf("ports %v", got)
	}
	var announced []string
	for _, i := range w.ann.ifs {
		announced = append(announced, i.Name)
	}
	if !slices.Equal(announced, portNames(w)) {
		t.Errorf("announced on %v", announced)
	}
	if st := w.Status(make([]InterfaceInfo, 2)); !slices.Equal(st.Interfaces[1].VLANs, []string{"eth1.5", "eth1.5.7", "eth1.9"}) || st.Interfaces[0].VLANs != nil {
		t.Errorf("the API tells of %v and %v", st.Interfaces[0].VLANs, st.Interfaces[1].VLANs)
	}
	if !slices.Contains(w.path.rules.Locals, netip.MustParseAddr("10.20.57.255")) {
		t.Errorf("the broadcast address of a VLAN is not the kernel's: %v", w.path.rules.Locals)
	}
}

func portNames(w *world) (names []string) {
	for _, p := range w.engine.Snapshot().Ports {
		names = append(names, p.Name)
	}
	return names
}

func linkEvents(w *world) []string {
	return said(slices.Concat(w.lines("link.down"), w.lines("link.up"), w.lines("control.warning")), "interface", "error")
}

// VLANs come and go while the director runs. A port stays the VLAN's, whatever becomes of its interface: flows name it.
func TestVLANsComeAndGo(t *testing.T) {
	bubble(t, plain, func(w *world) {
		var seen []string
		wait := func() (news []string) {
			t.Helper()
			time.Sleep(time.Second / 2)
			synctest.Wait()
			all := linkEvents(w)
			for _, e := range all {
				if !slices.Contains(seen, e) {
					news = append(news, e)
				}
			}
			seen = all
			return news
		}
		wait()
		v10, v20 := vlanFacts("eth0.10", 10, 2, packet.EtherVLAN, 10), vlanFacts("eth0.20", 20, 2, packet.EtherVLAN, 20)
		v10.MAC, v20.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 1}
		w.neigh.add(v20)
		if got := wait(); !slices.Equal(got, []string{"link.up eth0.20"}) {
			t.Errorf("a VLAN came: %v", got)
		}
		w.neigh.add(v10)
		wait()
		w.neigh.change(func() { delete(w.neigh.facts, "eth0.20") })
		if got := wait(); !slices.Equal(got, []string{"link.down eth0.20"}) {
			t.Errorf("a VLAN went: %v", got)
		}
		if got := portNames(w); !slices.Equal(got, []string{"eth0", "eth1", "eth0.20", "eth0.10"}) {
			t.Errorf("ports %v", got)
		}
		if len(w.ann.ifs) != 3 {
			t.Errorf("VIPs are still announced on what is gone: %v", w.ann.ifs)
		}
		// The same VLAN by another name is the same VLAN.
		v20.Name, v20.Index = "storage", 21
		w.neigh.add(v20)
		wait()
		if got := portNames(w); !slices.Equal(got, []string{"eth0", "eth1", "storage", "eth0.10"}) {
			t.Errorf("ports %v", got)
		}
		other := vlanFacts("eth0.30", 30, 2, packet.EtherVLAN, 30)
		w.neigh.add(other)
		if got := wait(); len(got) != 1 || !strings.Contains(got[0], "eth0.30 has another MAC address than eth0") || len(portNames(w)) != 4 {
			t.Errorf("a VLAN with a MAC address of its own: %v, %v", got, portNames(w))
		}
	})
}

// A configured VLAN is on whatever interface the configuration says, and comes before the kernel's of the same tags.
func TestConfiguredVLAN(t *testing.T) {
	text := strings.Replace(plain, "{name: eth1}", "{name: eth1, vlans: [{name: br7, id: 7}, {name: none, id: 8, outer: 9}]}", 1)
	if text == plain {
		t.Fatal("the test's configuration has no eth1")
	}
	w := newWorld(t, text)
	br := vlanFacts("br7", 70, 0, 0, 0)
	w.neigh.add(br, vlanFacts("eth1.7", 71, 3, packet.EtherVLAN, 7))
	w.neigh.hops[netip.MustParseAddr("10.1.0.1")] = neigh.Hop{Ifindex: 70, Interface: "br7", MTU: 1400, SrcMAC: br.MAC, DstMAC: net.HardwareAddr{2, 0, 0, 0, 9, 9}}
	must(t, w.start())
	if got := portNames(w); !slices.Equal(got, []string{"eth0", "eth1", "br7"}) {
		t.Errorf("ports %v", got)
	}
	if _, b := w.entry("web", "a"); !b.Resolved || b.Out != 2 {
		t.Errorf("leaves by port %d", b.Out)
	}
	if got := linkEvents(w); len(got) != 2 || got[0] != "link.up br7" || !strings.Contains(got[1], "none, configured as a VLAN of eth1: there is no interface of that name here") {
		t.Errorf("of the one that is there and the one that is missing is said: %v", got)
	}
}

// An interface and a VLAN of it cannot both be the director's: frames of the VLAN come in by the interface.
func TestInterfaceAndItsVLAN(t *testing.T) {
	w := newWorld(t, strings.Replace(plain, "{name: eth1}", "{name: eth1}, {name: eth1.9}", 1))
	w.neigh.add(vlanFacts("eth1.9", 59, 3, packet.EtherVLAN, 9))
	if err := w.start(); err == nil || !strings.Contains(err.Error(), "interface eth1.9 is a VLAN of eth1, by which its frames come in: take it out") {
		t.Errorf("%v", err)
	}
}
