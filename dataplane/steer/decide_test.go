package steer

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
)

const (
	vip4, vip6       = "203.0.113.10", "2001:db8:f::10"
	anyVIP4, anyVIP6 = "203.0.113.20", "2001:db8:f::20"
	udpVIP4          = "203.0.113.30"
	localVIP4        = "203.0.113.40" // a VIP that is on an interface of the director, too
	local4, local6   = "10.0.0.1", "2001:db8:1::1"
	nat4, nat6       = "10.0.0.11", "2001:db8:1::11"
	anyNAT4          = "10.0.0.12"
	tun4, tun6       = "10.0.0.21", "2001:db8:1::21"
	router4, router6 = "10.9.9.9", "2001:db8:9::9"
	client4, client6 = "198.51.100.7", "2001:db8:c::7"
	forgedVIP        = "::ffff:203.0.113.10"
)

func key(addr string, port uint16, proto uint8) Key {
	return Key{Addr: netip.MustParseAddr(addr), Port: port, Proto: proto}
}

func prefixKey(cidr string, port uint16, proto uint8) Key {
	p := netip.MustParsePrefix(cidr)
	return Key{Addr: p.Addr(), Bits: uint8(p.Bits()), Port: port, Proto: proto}
}

func testRules() Rules {
	return Rules{
		Services: []Key{
			key(vip4, 80, 6), key(vip4, 53, 17), key(vip6, 80, 6), key(vip6, 53, 17),
			key(anyVIP4, 0, 6), key(anyVIP4, 443, 6), key(anyVIP6, 0, 17), key(udpVIP4, 53, 17), key(localVIP4, 80, 6),
			prefixKey("203.0.114.0/24", 80, 6), prefixKey("203.0.114.16/28", 443, 6), prefixKey("203.0.114.32/28", 0, 17),
			prefixKey("2001:db8:e::/112", 80, 6), prefixKey("2001:db8:e::100/120", 0, 17), key("203.0.114.20", 22, 6), key("203.0.114.21", 0, 17),
		},
		Replies: []Key{key(nat4, 8080, 6), key(nat4, 53, 17), key(nat6, 8080, 6), key(anyNAT4, 0, 17)},
		Tunnels: []netip.Addr{netip.MustParseAddr(tun4), netip.MustParseAddr(tun6)},
		Locals: []netip.Addr{
			netip.MustParseAddr(local4), netip.MustParseAddr(local6), netip.MustParseAddr(localVIP4),
			netip.MustParseAddr("fe80::1%eth0").WithZone(""), netip.MustParseAddr("203.0.114.99"),
		},
	}
}

func testSet(t testing.TB) *RuleSet {
	t.Helper()
	s, err := NewRuleSet(testRules())
	if err != nil {
		t.Fatal(err)
	}
	return s.WithMAC(testMAC)
}

type frameCase struct {
	name  string
	frame []byte
	want  Reason
}

func v4(src, dst string, proto uint8, payload []byte) []byte {
	return l2(etherIPv4, ip4(src, dst, proto, payload))
}

func v6(src, dst string, next uint8, payload []byte) []byte {
	return l2(etherIPv6, ip6(src, dst, next, payload))
}

func withDst(frame []byte, mac ...byte) []byte {
	return append(mac, frame[6:]...)
}

func withByte(frame []byte, at int, b byte) []byte {
	f := slices.Clone(frame)
	f[at] = b
	return f
}

func frameCases() []frameCase {
	return slices.Concat(serviceCases(), quoteCases(), prefixCases(), fragmentCases(), icmpCases(), replyCases(), extensionCases(), brokenCases())
}

func serviceCases() []frameCase {
	http4, http6 := v4(client4, vip4, 6, tcpTo(40000, 80)), v6(client6, vip6, 6, tcpTo(40000, 80))
	return []frameCase{
		{"tcp v4 service", http4, Service},
		{"tcp v6 service", http6, Service},
		{"udp v4 service", v4(client4, vip4, 17, udpTo(40000, 53)), Service},
		{"udp v6 service", v6(client6, vip6, 17, udpTo(40000, 53)), Service},
		{"port of the other protocol", v4(client4, vip4, 17, udpTo(40000, 80)), PassVIPOther},
		{"vip's other port", v4(client4, vip4, 6, tcpTo(40000, 22)), PassVIPOther},
		{"vip's other protocol", v4(client4, vip4, 47, udpTo(1, 2)), PassVIPOther},
		{"icmpv6 number in ipv4", v4(client4, vip4, 58, icmp(128)), PassVIPOther},
		{"icmp number in ipv6", v6(client6, vip6, 1, icmp(8)), PassVIPOther},
		{"any port", v4(client4, anyVIP4, 6, tcpTo(40000, 22)), ServiceAnyPort},
		{"one port beside any port", v4(client4, anyVIP4, 6, tcpTo(40000, 443)), Service},
		{"any port of the other protocol", v4(client4, anyVIP4, 17, udpTo(40000, 22)), PassVIPOther},
		{"any port v6", v6(client6, anyVIP6, 17, udpTo(40000, 22)), ServiceAnyPort},
		{"vip on an interface", v4(client4, localVIP4, 6, tcpTo(40000, 80)), Service},
		{"vip on an interface, ssh", v4(client4, localVIP4, 6, tcpTo(40000, 22)), PassVIPOther},
		{"802.1Q v4", tagged(etherVLAN, http4), Service},
		{"802.1Q v6", tagged(etherVLAN, http6), Service},
		{"802.1ad v4", tagged(etherSVLAN, http4), Service},
		{"two tags", tagged(etherSVLAN, tagged(etherVLAN, http4)), Service},
		{"two tags v6", tagged(etherVLAN, tagged(etherVLAN, http6)), Service},
		{"three tags", tagged(etherSVLAN, tagged(etherVLAN, tagged(etherVLAN, http4))), PassNotIP},
		{"options", l2(etherIPv4, ip4With(client4, vip4, 6, 0, make([]byte, 40), tcpTo(40000, 80))), Service},
		{"ethernet padding", append(v4(client4, vip4, 17, udpTo(40000, 53)), make([]byte, 18)...), Service},
		{"ssh to the director", v4(client4, local4, 6, tcpTo(40000, 22)), PassLocal},
		{"to nobody we know", v4(client4, "192.0.2.1", 6, tcpTo(40000, 80)), PassOther},
		{"broadcast", withDst(http4, 255, 255, 255, 255, 255, 255), PassL2},
		{"multicast", withDst(http6, 0x33, 0x33, 0, 0, 0, 1), PassL2},
		{"another host's", withDst(http4, 2, 0, 0, 0, 0, 2), PassL2},
		{"v4 address on the wire in v6", v6(client6, forgedVIP, 6, tcpTo(40000, 80)), PassMalformed},
		{"v4 source on the wire in v6", v6("::ffff:"+nat4, client6, 6, tcpTo(8080, 40000)), PassMalformed},
		{"arp", l2(0x0806, make([]byte, 28)), PassNotIP},
		{"802.3 length", l2(38, make([]byte, 38)), PassNotIP},
	}
}

func prefixCases() []frameCase {
	tcp := func(dst string, port uint16) []byte { return v4(client4, dst, 6, tcpTo(40000, port)) }
	udp := func(dst string, port uint16) []byte { return v4(client4, dst, 17, udpTo(40000, port)) }
	return []frameCase{
		{"first address of a prefix", tcp("203.0.114.0", 80), Service},
		{"last address of a prefix", tcp("203.0.114.255", 80), Service},
		{"before a prefix", tcp("203.0.113.255", 80), PassOther},
		{"after a prefix", tcp("203.0.115.0", 80), PassOther},
		{"another port of a prefix", tcp("203.0.114.1", 81), PassVIPOther},
		{"another protocol of a prefix", udp("203.0.114.1", 80), PassVIPOther},
		{"port of the inner prefix", tcp("203.0.114.17", 443), Service},
		{"port of the outer prefix, in the inner", tcp("203.0.114.17", 80), Service},
		{"port of the inner prefix, outside of it", tcp("203.0.114.15", 443), PassVIPOther},
		{"every port of the inner prefix", udp("203.0.114.33", 7), ServiceAnyPort},
		{"port of the outer prefix, in one with every port", tcp("203.0.114.33", 80), Service},
		{"one address in two prefixes, its own port", tcp("203.0.114.20", 22), Service},
		{"one address in two prefixes, the inner's port", tcp("203.0.114.20", 443), Service},
		{"one address in two prefixes, the outer's port", tcp("203.0.114.20", 80), Service},
		{"one address in two prefixes, nobody's port", tcp("203.0.114.20", 23), PassVIPOther},
		{"one address with every udp port, a prefix's tcp port", tcp("203.0.114.21", 80), Service},
		{"one address with every udp port", udp("203.0.114.21", 80), ServiceAnyPort},
		{"the director's own address in a prefix", tcp("203.0.114.99", 80), PassLocal},
		{"ping to a prefix", v4(client4, "203.0.114.1", 1, icmp(8)), ICMP},
		{"tcp fragment to a prefix", l2(etherIPv4, ip4With(client4, "203.0.114.1", 6, 0x2000, nil, tcpTo(1, 2))), Fragment},
		{"udp fragment to a tcp prefix", l2(etherIPv4, ip4With(client4, "203.0.114.1", 17, 0x2000, nil, udpTo(1, 2))), PassVIPOther},
		{"udp fragment to the inner prefix", l2(etherIPv4, ip4With(client4, "203.0.114.33", 17, 0x2000, nil, udpTo(1, 2))), Fragment},
		{"v6 prefix", v6(client6, "2001:db8:e::ffff", 6, tcpTo(40000, 80)), Service},
		{"v6 prefix in a prefix", v6(client6, "2001:db8:e::1ff", 17, udpTo(40000, 9)), ServiceAnyPort},
		{"outer v6 prefix in the inner", v6(client6, "2001:db8:e::1ff", 6, tcpTo(40000, 80)), Service},
		{"after a v6 prefix", v6(client6, "2001:db8:e::1:0", 6, tcpTo(40000, 80)), PassOther},
		{"a backend in a prefix, as a source", v4("203.0.114.1", client4, 6, tcpTo(80, 40000)), PassOther},
	}
}

func fragmentCases() []frameCase {
	part := func(dst string, proto uint8, field uint16) []byte {
		return l2(etherIPv4, ip4With(client4, dst, proto, field, nil, udpTo(40000, 22)))
	}
	part6 := func(dst string, next uint8, field uint16) []byte {
		return v6(client6, dst, protoFragment, frag6(next, field, udpTo(40000, 22)))
	}
	return []frameCase{
		{"first fragment", part(vip4, 17, 0x2000), Fragment},
		{"later fragment", part(vip4, 17, 0x2010), Fragment},
		{"last fragment", part(vip4, 6, 0x0010), Fragment},
		{"icmp fragment", part(vip4, 1, 0x2000), Fragment},
		{"don't fragment is none", part(vip4, 17, 0x4000), PassVIPOther},
		{"fragment of a protocol without service", part(udpVIP4, 6, 0x2000), PassVIPOther},
		{"fragment of any port", part(anyVIP4, 6, 0x2000), Fragment},
		{"gre fragment", part(vip4, 47, 0x2000), PassVIPOther},
		{"first fragment v6", part6(vip6, 17, 1), Fragment},
		{"last fragment v6", part6(vip6, 6, 0x80), Fragment},
		{"atomic fragment v6", part6(vip6, 6, 0), Fragment},
		{"icmpv6 fragment", part6(vip6, 58, 1), Fragment},
		{"fragment that hides its protocol", part6(vip6, 60, 1), Fragment},
		{"udp fragment to a udp any-port vip", part6(anyVIP6, 17, 1), Fragment},
		{"tcp fragment to a udp vip", part6(anyVIP6, 6, 1), PassVIPOther},
		{"fragment for the director", part(local4, 17, 0x2000), PassLocal},
		{"fragment for another", part("192.0.2.1", 17, 0x2000), PassOther},
	}
}

func icmpCases() []frameCase {
	cases := []frameCase{
		{"echo request", v4(client4, vip4, 1, icmp(8)), ICMP},
		{"unreachable", v4(client4, vip4, 1, icmp(3)), ICMP},
		{"v6 echo request", v6(client6, vip6, 58, icmp(128)), ICMP},
		{"v6 too big", v6(client6, vip6, 58, icmp(2)), ICMP},
		{"truncated icmp", v4(client4, vip4, 1, icmp(8)[:4]), PassMalformed},
		{"v6 node information", v6(client6, vip6, 58, icmp(139)), ICMP},
		{"v6 type 138", v6(client6, vip6, 58, icmp(138)), ICMP},
		{"v6 type 129", v6(client6, vip6, 58, icmp(129)), ICMP},
		{"nd to the director", v6(client6, local6, 58, icmp(135)), PassLocal},
	}
	for _, kind := range []uint8{130, 131, 132, 133, 134, 135, 136, 137, 143} {
		cases = append(cases, frameCase{"nd or mld to a vip", v6(client6, vip6, 58, icmp(kind)), PassControl})
	}
	return cases
}

// quoteCases are ICMP errors from routers about packets of the director's making.
func quoteCases() []frameCase {
	err4 := func(kind uint8, dst string, quote []byte) []byte {
		return v4(router4, dst, 1, append(icmp(kind), quote...))
	}
	err6 := func(kind uint8, dst string, quote []byte) []byte {
		return v6(router6, dst, 58, append(icmp(kind), quote...))
	}
	quoted6 := func(next uint8, payload []byte) []byte { return ip6(client6, nat6, next, payload) }
	inner4, inner6 := ip4(client4, vip4, 6, tcpTo(40000, 80)), ip6(client6, vip6, 6, tcpTo(40000, 80))
	var cases []frameCase
	for _, proto := range []uint8{protoIPIP, protoIPv6, protoGRE, protoUDP} {
		cases = append(cases, frameCase{"about a tunnel", err4(3, local4, ip4(local4, tun4, proto, inner4)), TunnelICMP},
			frameCase{"about a tunnel v6", err6(2, local6, ip6(local6, tun6, proto, inner6)), TunnelICMP})
	}
	long := ip4With(local4, tun4, protoIPIP, 0, make([]byte, 40), inner4)
	toNAT, toNAT6 := ip4(client4, nat4, 6, tcpTo(40000, 8080)), ip6(client6, nat6, 6, tcpTo(40000, 8080))
	return append(cases, []frameCase{
		{"about a tunnel, from its end", v4(tun4, local4, 1, append(icmp(3), ip4(local4, tun4, protoIPIP, inner4)...)), TunnelICMP},
		{"about a tunnel, options", err4(11, local4, long), TunnelICMP},
		{"about a tunnel, 8 bytes quoted", err4(3, local4, ip4(local4, tun4, protoIPIP, inner4)[:28]), TunnelICMP},
		{"about a tunnel, 7 bytes quoted", err4(3, local4, ip4(local4, tun4, protoIPIP, inner4)[:27]), PassLocal},
		{"about a tunnel, padding after 7 bytes", append(err4(3, local4, ip4(local4, tun4, protoIPIP, inner4)[:27]), 0, 0, 0), PassLocal},
		{"about a tunnel v6, 8 bytes quoted", err6(1, local6, ip6(local6, tun6, protoIPv6, inner6)[:48]), TunnelICMP},
		{"about a tunnel v6, 7 bytes quoted", err6(1, local6, ip6(local6, tun6, protoIPv6, inner6)[:47]), PassLocal},
		{"about a connection of the director's to a tunnel's end", err4(3, local4, ip4(local4, tun4, 6, tcpTo(1, 80))), PassLocal},
		{"about a tunnel to another", err4(3, local4, ip4(local4, nat4, protoIPIP, inner4)), PassLocal},
		{"no error about a tunnel", err4(8, local4, ip4(local4, tun4, protoIPIP, inner4)), PassLocal},
		{"quote of no version", err4(3, local4, withByte(ip4(local4, tun4, protoIPIP, inner4), 0, 0x55)), PassLocal},
		{"quote of no header length", err4(3, local4, withByte(ip4(local4, tun4, protoIPIP, inner4), 0, 0x42)), PassLocal},
		{"v6 quote in v4", err4(3, local4, ip6(local6, tun6, protoIPv6, inner6)), PassLocal},
		{"quoted v4 address in v6", err6(1, local6, ip6(local6, "::ffff:"+tun4, protoIPv6, inner6)), PassLocal},
		{"router about a packet to a nat backend", err4(3, client4, toNAT), ReplyICMP},
		{"router about a packet to a nat backend v6", err6(2, client6, toNAT6), ReplyICMP},
		{"router about a first fragment v6", err6(2, client6, quoted6(protoFragment, frag6(6, 1, tcpTo(40000, 8080)))), ReplyICMP},
		{"router about a later fragment v6", err6(2, client6, quoted6(protoFragment, frag6(6, 8, tcpTo(40000, 8080)))), PassOther},
		{"router about a first fragment", err4(3, client4, ip4With(client4, nat4, 6, 0x2000, nil, tcpTo(40000, 8080))), ReplyICMP},
		{"router about a later fragment", err4(3, client4, ip4With(client4, nat4, 6, 0x2008, nil, tcpTo(40000, 8080))), PassOther},
		{"router about options", err6(1, client6, quoted6(protoHopByHop, ext(6, 0, tcpTo(40000, 8080)))), ReplyICMP},
		{"router about a routing header", err6(1, client6, quoted6(protoRouting, routing(6, 0, tcpTo(40000, 8080)))), ReplyICMP},
		{"router about options to another port", err6(1, client6, quoted6(protoHopByHop, ext(6, 0, tcpTo(40000, 22)))), PassOther},
		{"router about as many as are walked", err6(1, client6, quoted6(protoHopByHop,
			ext(protoFragment, 1, frag6(protoDestOptions, 1, ext(6, 4, tcpTo(40000, 8080)))))), ReplyICMP},
		{"router about one more", err6(1, client6, quoted6(protoHopByHop,
			ext(protoFragment, 1, frag6(protoDestOptions, 1, ext(protoDestOptions, 0, ext(6, 4, tcpTo(40000, 8080))))))), PassOther},
		{"router about options, 8 bytes quoted", err6(1, client6, quoted6(protoHopByHop, ext(6, 1, tcpTo(40000, 8080)))[:64]), ReplyICMP},
		{"router about options, 7 bytes quoted", err6(1, client6, quoted6(protoHopByHop, ext(6, 1, tcpTo(40000, 8080)))[:63]), PassOther},
		{"router about options, padding after 7 bytes", append(err6(1, client6, quoted6(protoHopByHop, ext(6, 1, tcpTo(40000, 8080)))[:63]), 0, 0), PassOther},
		{"router about options past the quote", err6(1, client6, quoted6(protoDestOptions, withByte(ext(6, 0, tcpTo(40000, 8080)), 1, 255))), PassOther},
		{"router about options cut off", err6(1, client6, quoted6(protoDestOptions, ext(6, 0, nil))[:47]), PassOther},
		{"router about a packet to any port", err4(11, client4, ip4(client4, anyNAT4, 17, udpTo(40000, 7))), ReplyICMP},
		{"router about a backend's other port", err4(3, client4, ip4(client4, nat4, 6, tcpTo(40000, 22))), PassOther},
		{"router about a backend's other protocol", err4(3, client4, ip4(client4, nat4, 17, udpTo(40000, 8080))), PassOther},
		{"router about another", err4(3, client4, ip4(client4, "10.0.0.99", 6, tcpTo(40000, 8080))), PassOther},
		{"router, redirect", err4(5, client4, toNAT), PassOther},
		{"router, to multicast", err4(3, "224.0.0.1", toNAT), PassOther},
		{"router about a tunnel, to a client", err4(3, client4, ip4(client4, tun4, protoIPIP, inner4)), PassOther},
		{"tunnel's end sends something else", v4(tun4, client4, 6, tcpTo(80, 40000)), PassOther},
		{"fragment of icmp from a tunnel's end", l2(etherIPv4, ip4With(tun4, client4, 1, 0x2000, nil, icmp(3))), PassOther},
	}...)
}

func replyCases() []frameCase {
	reply := func(dst string) []byte { return v4(nat4, dst, 6, tcpTo(8080, 40000)) }
	reply6 := func(dst string) []byte { return v6(nat6, dst, 6, tcpTo(8080, 40000)) }
	cases := []frameCase{
		{"reply", reply(client4), Reply},
		{"reply v6", reply6(client6), Reply},
		{"reply, any port", v4(anyNAT4, client4, 17, udpTo(777, 40000)), Reply},
		{"backend's other port", v4(nat4, client4, 6, tcpTo(22, 40000)), PassOther},
		{"backend's other protocol", v4(anyNAT4, client4, 6, tcpTo(777, 40000)), PassOther},
		{"answer to a health check", reply(local4), PassLocal},
		{"answer to a health check v6", reply6(local6), PassLocal},
		{"backend as a client of a vip", v4(nat4, vip4, 6, tcpTo(8080, 80)), Service},
		{"backend to a vip's other port", reply(vip4), PassVIPOther},
		{"fragment of a reply", l2(etherIPv4, ip4With(nat4, client4, 6, 0x2000, nil, tcpTo(8080, 1))), ReplyFragment},
		{"fragment of another protocol", l2(etherIPv4, ip4With(anyNAT4, client4, 6, 0x2000, nil, tcpTo(1, 1))), PassOther},
		{"fragment of a reply v6", v6(nat6, client6, protoFragment, frag6(6, 8, tcpTo(1, 1))), ReplyFragment},
		{"fragment for the director", l2(etherIPv4, ip4With(nat4, local4, 6, 0x2000, nil, tcpTo(8080, 1))), PassLocal},
		{"backend's echo reply", v4(nat4, client4, 1, icmp(0)), PassOther},
		{"backend's redirect", v4(nat4, client4, 1, icmp(5)), PassOther},
		{"backend's v6 echo reply", v6(nat6, client6, 58, icmp(129)), PassOther},
		{"backend's nd", v6(nat6, client6, 58, icmp(136)), PassOther},
		{"backend's v6 error", v6(nat6, client6, 58, append(icmp(1), ip6(client6, nat6, 6, tcpTo(40000, 8080))...)), ReplyICMP},
		{"backend's v6 error about options", v6(nat6, client6, 58,
			append(icmp(1), ip6(client6, nat6, protoHopByHop, ext(6, 0, tcpTo(40000, 8080)))...)), ReplyICMP},
		{"backend's v6 error about another port", v6(nat6, client6, 58, append(icmp(1), ip6(client6, nat6, 6, tcpTo(40000, 22))...)), PassOther},
		{"backend's error about nothing", v4(nat4, client4, 1, icmp(3)), PassOther},
		{"backend's v6 error about nothing", v6(nat6, client6, 58, icmp(1)), PassOther},
		{"backend's error to a vip", v4(nat4, vip4, 1, append(icmp(3), ip4(client4, nat4, 6, tcpTo(40000, 22))...)), ICMP},
		{"fragment of a backend's ping", l2(etherIPv4, ip4With(nat4, client4, 1, 0x2000, nil, icmp(8))), PassOther},
		{"later fragment of a backend's ping", l2(etherIPv4, ip4With(nat4, client4, 1, 0x0010, nil, icmp(8))), PassOther},
		{"fragment of a backend's v6 ping", v6(nat6, client6, protoFragment, frag6(58, 1, icmp(128))), PassOther},
		{"fragment that hides its protocol, of a backend", v6(nat6, client6, protoFragment, frag6(60, 1, icmp(128))), ReplyFragment},
	}
	for _, kind := range []uint8{3, 4, 11, 12} {
		about := func(port uint16) []byte {
			return v4(nat4, client4, 1, append(icmp(kind), ip4(client4, nat4, 6, tcpTo(40000, port))...))
		}
		cases = append(cases, frameCase{"backend's error", about(8080), ReplyICMP}, frameCase{"backend's error about another port", about(22), PassOther})
	}
	for _, dst := range []string{"224.0.0.1", "255.255.255.255", "240.0.0.1", "127.0.0.1", "0.1.2.3", "169.254.1.1"} {
		cases = append(cases, frameCase{"reply to " + dst, reply(dst), PassOther})
	}
	for _, dst := range []string{"ff02::1", "::", "::1", "fe80::7", "febf::7"} {
		cases = append(cases, frameCase{"reply to " + dst, reply6(dst), PassOther})
	}
	return append(cases, frameCase{"reply to ::2", reply6("::2"), Reply}, frameCase{"reply to fec0::7", reply6("fec0::7"), Reply},
		frameCase{"reply to 223.255.255.1", reply("223.255.255.1"), Reply}, frameCase{"reply to 169.253.0.1", reply("169.253.0.1"), Reply})
}

func extensionCases() []frameCase {
	syn := tcpTo(40000, 80)
	options := func(n int) []byte {
		payload := ext(6, 0, syn)
		for range n - 1 {
			payload = ext(protoDestOptions, 0, payload)
		}
		return payload
	}
	return []frameCase{
		{"hop-by-hop", v6(client6, vip6, protoHopByHop, ext(6, 0, syn)), Service},
		{"long destination options", v6(client6, vip6, protoDestOptions, ext(6, 31, syn)), Service},
		{"routing, done", v6(client6, vip6, protoRouting, routing(6, 0, syn)), Service},
		{"routing, on the way", v6(client6, vip6, protoRouting, routing(6, 1, syn)), PassExtension},
		{"hop-by-hop, routing, options", v6(client6, vip6, protoHopByHop, ext(protoRouting, 1, routing(protoDestOptions, 0, ext(6, 2, syn)))), Service},
		{"as many as are walked", v6(client6, vip6, protoDestOptions, options(maxExtensions)), Service},
		{"one more", v6(client6, vip6, protoDestOptions, options(maxExtensions+1)), PassExtension},
		{"hop-by-hop, fragment", v6(client6, vip6, protoHopByHop, ext(protoFragment, 0, frag6(6, 1, syn))), Fragment},
		{"no next header", v6(client6, vip6, 59, nil), PassVIPOther},
		{"authentication header", v6(client6, vip6, 51, ext(6, 1, syn)), PassVIPOther},
		{"options past the packet", v6(client6, vip6, protoDestOptions, withByte(ext(6, 0, syn), 1, 200)), PassMalformed},
		{"options into the padding", append(v6(client6, vip6, protoDestOptions, withByte(ext(6, 0, nil), 1, 2)), make([]byte, 60)...), PassMalformed},
		{"icmpv6 behind options", v6(client6, vip6, protoDestOptions, ext(58, 0, icmp(135))), PassControl},
	}
}

func brokenCases() []frameCase {
	http4, http6 := v4(client4, vip4, 6, tcpTo(40000, 80)), v6(client6, vip6, 6, tcpTo(40000, 80))
	cases := []frameCase{
		{"wrong version v4", withByte(http4, 14, 0x65), PassMalformed},
		{"wrong version v6", withByte(http6, 14, 0x40), PassMalformed},
		{"short header length", withByte(http4, 14, 0x44), PassMalformed},
		{"header longer than the packet", withByte(http4, 14, 0x4f), PassMalformed},
		{"total below header", withByte(http4, 17, 19), PassMalformed},
		{"total beyond the frame", withByte(http4, 17, 41), PassMalformed},
		{"total cuts the tcp header", withByte(http4, 17, 39), PassMalformed},
		{"payload beyond the frame", withByte(http6, 19, 21), PassMalformed},
		{"payload cuts the tcp header", withByte(http6, 19, 19), PassMalformed},
		{"short udp", v4(client4, vip4, 17, udpTo(40000, 53)[:7]), PassMalformed},
		{"ethernet header alone", http4[:14], PassMalformed},
		{"tag without type", tagged(etherVLAN, http4)[:16], PassNotIP},
	}
	for n := 15; n < len(http4); n++ {
		cases = append(cases, frameCase{"truncated v4", http4[:n], PassMalformed})
	}
	for n := 15; n < len(http6); n++ {
		cases = append(cases, frameCase{"truncated v6", http6[:n], PassMalformed})
	}
	return cases
}

func TestDecide(t *testing.T) {
	rules := testSet(t)
	for _, c := range frameCases() {
		got := Decide(c.frame, rules)
		if got.Reason != c.want || got.Director != c.want.Director() {
			t.Errorf("%s: %s, want %s\n% x", c.name, got.Reason, c.want, c.frame)
		}
	}
}

func TestDecideShortFrames(t *testing.T) {
	for n := range 14 {
		if got := Decide(make([]byte, n), testSet(t)); got.Reason != PassNotIP {
			t.Errorf("%d bytes: %s", n, got.Reason)
		}
	}
}

func TestWithoutMACEveryUnicastAddressIsOurs(t *testing.T) {
	rules, err := NewRuleSet(testRules())
	if err != nil {
		t.Fatal(err)
	}
	frame := withDst(v4(client4, vip4, 6, tcpTo(40000, 80)), 2, 0, 0, 0, 0, 2)
	if got := Decide(frame, rules); got.Reason != Service {
		t.Errorf("got %s", got.Reason)
	}
}

func TestNewRuleSetRefuses(t *testing.T) {
	for name, rules := range map[string]Rules{
		"no address":         {Services: []Key{{Port: 80, Proto: 6}}},
		"unspecified":        {Services: []Key{key("0.0.0.0", 80, 6)}},
		"multicast":          {Replies: []Key{key("ff02::1", 80, 6)}},
		"zone":               {Services: []Key{key("fe80::1%eth0", 80, 6)}},
		"protocol":           {Replies: []Key{key(nat4, 80, 132)}},
		"no protocol":        {Services: []Key{key(vip4, 80, 0)}},
		"zero local address": {Locals: []netip.Addr{{}}},
		"zero tunnel":        {Tunnels: []netip.Addr{{}}},
		"multicast tunnel":   {Tunnels: []netip.Addr{netip.MustParseAddr("224.0.0.1")}},
		"host bits":          {Services: []Key{{Addr: netip.MustParseAddr(vip4), Bits: 24, Port: 80, Proto: 6}}},
		"long prefix":        {Services: []Key{{Addr: netip.MustParseAddr(vip4), Bits: 33, Port: 80, Proto: 6}}},
		"prefix of backends": {Replies: []Key{prefixKey("203.0.114.0/24", 80, 6)}},
		"multicast prefix":   {Services: []Key{prefixKey("224.0.0.0/24", 80, 6)}},
	} {
		if _, err := NewRuleSet(rules); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reason(NumReasons) {
		if n := r.String(); n == "" || n == "unknown" || seen[n] {
			t.Errorf("reason %d has the name %q", r, n)
		}
		seen[r.String()] = true
	}
	for r := range DecapReason(NumDecapReasons) {
		if r.String() == "" || r.String() == "unknown" {
			t.Errorf("decapsulation reason %d has the name %q", r, r.String())
		}
	}
}

func FuzzDecide(f *testing.F) {
	rules := testSet(f)
	for _, c := range frameCases() {
		f.Add(c.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		v := Decide(frame, rules)
		if !bytes.Equal(before, frame) {
			t.Fatal("the frame was changed")
		}
		if v.Reason >= NoSocket || v.Director != v.Reason.Director() {
			t.Fatalf("verdict %+v", v)
		}
	})
}
