package neigh

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What counts as a VLAN: an interface of that kind whose parent is in this namespace.
func TestVLANOf(t *testing.T) {
	attrs := netlink.NewLinkAttrs()
	attrs.ParentIndex = 7
	link := func(edit func(*netlink.Vlan)) netlink.Link {
		v := &netlink.Vlan{LinkAttrs: attrs, VlanId: 100, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		edit(v)
		return v
	}
	for _, c := range []struct {
		name string
		link netlink.Link
		want VLAN
	}{
		{"802.1Q", link(func(*netlink.Vlan) {}), VLAN{7, 0x8100, 100}},
		{"802.1ad", link(func(v *netlink.Vlan) { v.VlanProtocol = netlink.VLAN_PROTOCOL_8021AD }), VLAN{7, 0x88a8, 100}},
		{"moved here from its parent's namespace", link(func(v *netlink.Vlan) { v.NetNsID = 0 }), VLAN{}},
		{"without a parent", link(func(v *netlink.Vlan) { v.ParentIndex = 0 }), VLAN{}},
		{"a veth, whose parent is its peer", &netlink.Veth{LinkAttrs: attrs}, VLAN{}},
	} {
		if got := vlanOf(c.link); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// The kernel's own VLAN interfaces are found, also one within another.
func TestKernelVLANs(t *testing.T) {
	l := newLab(t)
	dir := linkOf(t, l.dh, "dir0").Attrs().Index
	add := func(name string, parent int, protocol netlink.VlanProtocol, id int) int {
		t.Helper()
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = name, parent
		err := l.dh.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: id, VlanProtocol: protocol})
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q)")
		}
		if err != nil {
			t.Fatal(err)
		}
		return linkOf(t, l.dh, name).Attrs().Index
	}
	outer := add("dir0.5", dir, netlink.VLAN_PROTOCOL_8021AD, 5)
	r := l.resolver(Options{})
	add("dir0.5.7", outer, netlink.VLAN_PROTOCOL_8021Q, 7)
	within(t, r, "a VLAN that was added is seen", func() bool { return len(r.VLANs()) == 2 })
	got := r.VLANs()
	if got[0].Name != "dir0.5" || got[0].VLAN != (VLAN{dir, 0x88a8, 5}) || got[1].Name != "dir0.5.7" || got[1].VLAN != (VLAN{outer, 0x8100, 7}) {
		t.Errorf("%+v", got)
	}
}
