package testenv

import (
	"fmt"
	"net/netip"

	"xlvs/dataplane/table"
)

// plan holds the addresses of a layout, as in the pictures of the package.
type plan struct{ layout Layout }

// A segment is one subnet of each family, on a bridge of its own or in a VLAN of the trunk.
type segment struct {
	bridge string
	vlan   int
	v4, v6 netip.Prefix
}

func newSegment(bridge string, vlan int, v4, v6 string) segment {
	return segment{"br-" + bridge, vlan, netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}
}

var (
	lan    = newSegment("lan", 10, "10.0.0.0/16", "2001:db8::/64")
	access = newSegment("client", 11, "198.51.100.0/24", "2001:db8:c::/64")
	front  = newSegment("front", 12, "10.1.0.0/16", "2001:db8:1::/64")
	back   = newSegment("back", 13, "10.2.0.0/16", "2001:db8:2::/64")
	far    = newSegment("far", 14, "10.3.0.0/16", "2001:db8:3::/64")
	// virtual is on no bridge: the router sends it to the director.
	virtual = newSegment("none", 0, "203.0.113.0/24", "2001:db8:f::/64")
)

// at returns an address of the segment. group and host are added to the last two bytes of its IPv4 address, and
// to the last two groups of its IPv6 address.
func (s segment) at(v6 bool, group, host int) netip.Addr {
	if v6 {
		a := s.v6.Addr().As16()
		a[13] += byte(group)
		a[14], a[15] = byte(host>>8), byte(host)
		return netip.AddrFrom16(a)
	}
	a := s.v4.Addr().As4()
	a[2] += byte(group)
	a[3] = byte(host)
	return netip.AddrFrom4(a)
}

func (s segment) prefix(v6 bool) netip.Prefix {
	if v6 {
		return s.v6
	}
	return s.v4
}

// within returns the address with the segment's prefix length, as an interface has it.
func (s segment) within(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, s.prefix(a.Is6()).Bits())
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func anywhere(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// alike returns n, or for IPv6 the number whose hexadecimal digits read like it: ::13 goes with .13.
func alike(v6 bool, n int) int {
	if v6 {
		return n/100<<8 | n/10%10<<4 | n%10
	}
	return n
}

func (p plan) vip(m table.Mode, v6 bool) netip.Addr {
	n := alike(v6, 11+int(m))
	if p.layout == Routed {
		return virtual.at(v6, 0, n)
	}
	return lan.at(v6, 0, n)
}

func (p plan) client(v6 bool) netip.Addr {
	if p.layout == Routed {
		return access.at(v6, 0, 2)
	}
	return lan.at(v6, 0, alike(v6, 100))
}

// director returns the director's address on each of its interfaces.
func (p plan) director(v6 bool) []netip.Addr {
	if p.layout == Routed {
		return []netip.Addr{front.at(v6, 0, 1), back.at(v6, 0, 1)}
	}
	return []netip.Addr{lan.at(v6, 0, 1)}
}

// segmentOf returns where the servers of a mode are.
func (p plan) segmentOf(m table.Mode) segment {
	switch {
	case p.layout == Switched:
		return lan
	case m == table.TUN:
		return far
	default:
		return back
	}
}

// server returns the own address of server n (from 1) of a mode.
func (p plan) server(m table.Mode, n int, v6 bool) netip.Addr {
	return p.segmentOf(m).at(v6, 1+int(m), n)
}

// router returns the router's address on a segment.
func router(s segment, v6 bool) netip.Addr {
	if s == access {
		return s.at(v6, 0, 1)
	}
	return s.at(v6, 0, 254)
}

// gateway returns the default gateway of a mode's servers; invalid if they need none.
func (p plan) gateway(m table.Mode, v6 bool) netip.Addr {
	switch {
	case m == table.NAT:
		d := p.director(v6)
		return d[len(d)-1]
	case p.layout == Routed:
		return router(p.segmentOf(m), v6)
	default:
		return netip.Addr{}
	}
}

func serverName(m table.Mode, n int) string { return fmt.Sprintf("%s%d", m, n) }

var families = []bool{false, true}
