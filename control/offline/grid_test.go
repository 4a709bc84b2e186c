package offline

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"xlvs/dataplane/steer"
)

// A grid draws packets that come close to a configuration's rules: from and to the addresses that they name, the first and
// the last of prefixes and those beside them; with the rules' ports and those beside them; of every protocol; with up to three VLAN
// tags, extension headers, in fragments, as ICMP errors that quote another such packet, and to other hosts' MAC addresses.
type grid struct {
	*rand.Rand
	addrs [2][]netip.Addr // IPv4, IPv6
	ports []uint16
}

func newGrid(r *rand.Rand, rules steer.Rules) *grid {
	g := &grid{Rand: r, ports: []uint16{0, 1, 40000, 65535}}
	g.add("198.51.100.7", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "240.0.0.1")
	g.add("2001:db8:c::7", "::1", "::", "fe80::7", "ff02::1", "::ffff:198.51.100.7")
	for _, k := range append(rules.Services, rules.Replies...) {
		last := k.Addr
		if k.Bits != 0 {
			last = lastOf(netip.PrefixFrom(k.Addr, int(k.Bits)))
		}
		g.add(k.Addr.String(), last.String(), k.Addr.Prev().String(), last.Next().String())
		g.ports = append(g.ports, k.Port-1, k.Port, k.Port+1)
	}
	for _, a := range append(rules.Locals, rules.Tunnels...) {
		g.add(a.WithZone("").String())
	}
	return g
}

func (g *grid) add(addrs ...string) {
	for _, s := range addrs {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue // before the first address that there is, or behind the last
		}
		family := 0
		if a.Is6() {
			family = 1
		}
		g.addrs[family] = append(g.addrs[family], a)
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func oneOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// frame is a packet as layers of text, for an interface with the given MAC address.
func (g *grid) frame(mac [6]byte) string {
	to := net.HardwareAddr(mac[:]).String()
	if g.IntN(20) == 0 {
		to = oneOf(g.Rand, "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "02:00:00:00:99:99")
	}
	layers := []string{fmt.Sprintf("eth %s > %s", router, to)}
	for range max(0, g.IntN(7)-3) {
		layers = append(layers, fmt.Sprintf("%s %d pcp=%d", oneOf(g.Rand, "vlan", "qinq"), g.IntN(4096), g.IntN(8)))
	}
	return strings.Join(append(layers, g.packet(g.IntN(2), 1)), " / ")
}

// packet is a packet of a family; depth says how many more it may quote or contain.
func (g *grid) packet(family, depth int) string {
	ip := fmt.Sprintf("ip %s > %s", oneOf(g.Rand, g.addrs[family]...), oneOf(g.Rand, g.addrs[family]...))
	if g.IntN(8) == 0 {
		if family == 0 {
			ip += fmt.Sprintf(" id=7 off=%d", 8*g.IntN(2))
			ip += oneOf(g.Rand, "", " mf")
		} else {
			ip += fmt.Sprintf(" / frag id=7 off=%d%s", 8*g.IntN(2), oneOf(g.Rand, "", " mf"))
		}
	} else if family == 1 {
		for range max(0, g.IntN(12)-6) {
			ip += " / " + oneOf(g.Rand, "hopopt", "dstopt", "routing left=0", "routing left=1")
		}
	}
	sport, dport := oneOf(g.Rand, g.ports...), oneOf(g.Rand, g.ports...)
	switch g.IntN(8) {
	case 0, 1:
		return fmt.Sprintf("%s / tcp %d > %d %s", ip, sport, dport, oneOf(g.Rand, "S", "SA", "A", "R", "-"))
	case 2, 3:
		return fmt.Sprintf("%s / udp %d > %d", ip, sport, dport)
	case 4:
		return fmt.Sprintf("%s / icmp %d/0 id=1 seq=1", ip, oneOf(g.Rand, g.IntN(256), 125+g.IntN(20)))
	case 5, 6:
		if depth == 0 {
			return fmt.Sprintf("%s / udp %d > %d", ip, sport, dport)
		}
		if g.IntN(4) == 0 {
			return fmt.Sprintf("%s / %s", ip, g.packet(g.IntN(2), depth-1))
		}
		kind := oneOf(g.Rand, 3, 4, 5, 11, 12)
		if family == 1 {
			kind = oneOf(g.Rand, 1, 2, 3, 4, 100, 127, 128)
		}
		return fmt.Sprintf("%s / icmp %d/0 / %s", ip, kind, g.packet(family, depth-1))
	}
	return fmt.Sprintf("%s proto=%d / pay %d", ip, g.IntN(256), g.IntN(64))
}
