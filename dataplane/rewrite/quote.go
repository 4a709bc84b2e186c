package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// IsError reports whether an ICMP packet is an error about another packet: v4 unreachable, source quench, time exceeded
// and parameter problem (RFC 792; a redirect is for the host it is sent to alone), every v6 error (RFC 4443, 2.1).
func IsError(b []byte, p *packet.Packet) bool {
	t := b[p.L4]
	if p.V6 {
		return t < icmp6EchoRequest
	}
	return t == icmpUnreachable || t == icmpQuench || t == icmpTimeExceeded || t == icmpParameter
}

// A Translation says what address translation makes of a packet that an ICMP error quotes: its addresses and ports.
type Translation struct {
	Src, Dst packet.Addr
	Ports    packet.Ports
}

// ICMPRequest sends an ICMP error p about a NAT service's packets, quoted in q, to the backend whose packets they were: the
// destination and the quoted source become the backend's.
func ICMPRequest(b []byte, p, q *packet.Packet, be *table.Backend) {
	*(*[12]byte)(b) = be.Eth
	port := be.Port
	if port == 0 {
		port = q.Ports.Src()
	}
	translateQuote(b, p, q, Translation{be.Addr, q.Dst, packet.MakePorts(port, q.Ports.Dst())})
	readdress(b, p, p.Src, be.Addr)
}

// ICMPReply sends an ICMP error p about a NAT client's packets, quoted in q as they were sent to the backend, to the
// client by way of eth: the quoted destination becomes the VIP again. A backend's own source address becomes the
// VIP as well; that of a router on the way stays.
func ICMPReply(b []byte, p, q *packet.Packet, vip packet.Addr, port uint16, eth *[12]byte) {
	*(*[12]byte)(b) = *eth
	src := p.Src
	if src == q.Dst {
		src = vip
	}
	translateQuote(b, p, q, Translation{q.Src, vip, packet.MakePorts(q.Ports.Src(), port)})
	readdress(b, p, src, p.Dst)
}

// maxTransport covers every field of a quoted transport header that translation changes.
const maxTransport = 20

// translateQuote rewrites the quoted packet, and the ICMP checksum for it.
func translateQuote(b []byte, p, q *packet.Packet, to Translation) {
	l3 := int(p.L4) + packet.QuoteLen
	region := b[l3:min(int(q.L4)+maxTransport, int(q.End))]
	before := packet.Sum(region, 0)
	h := b[l3:]
	old := packet.AddrSum(q.Src) + packet.AddrSum(q.Dst)
	new := packet.AddrSum(to.Src) + packet.AddrSum(to.Dst)
	if q.V6 {
		to.Src.Put16(h[8:])
		to.Dst.Put16(h[24:])
	} else {
		to.Src.Put4(h[12:])
		to.Dst.Put4(h[16:])
		packet.Update(h[10:], old, new)
	}
	binary.LittleEndian.PutUint32(b[q.L4:], uint32(to.Ports))
	if off := sumOffset(q); off+2 <= q.L4Len() {
		if f := b[int(q.L4)+off:]; q.Kind == packet.KindTCP || f[0]|f[1] != 0 {
			packet.Update(f, old+uint64(q.Ports), new+uint64(to.Ports))
			if q.Kind == packet.KindUDP && f[0]|f[1] == 0 {
				f[0], f[1] = 0xff, 0xff
			}
		}
	}
	packet.Update(b[p.L4+2:], before, packet.Sum(region, 0))
}

// sumOffset is where in its header a transport has its checksum.
func sumOffset(q *packet.Packet) int {
	if q.Kind == packet.KindUDP {
		return 6
	}
	return 16
}

// readdress gives an ICMP packet new addresses and lowers its TTL. Only ICMPv6 sums a pseudo-header.
func readdress(b []byte, p *packet.Packet, src, dst packet.Addr) {
	decTTL(b, p)
	old := packet.AddrSum(p.Src) + packet.AddrSum(p.Dst)
	new := packet.AddrSum(src) + packet.AddrSum(dst)
	h := b[p.L3:]
	if p.V6 {
		src.Put16(h[8:])
		dst.Put16(h[24:])
		packet.Update(b[p.L4+2:], old, new)
		return
	}
	src.Put4(h[12:])
	dst.Put4(h[16:])
	packet.Update(h[10:], old, new)
}

// TunnelError returns what an ICMP error b about an outer packet of ours to backend be means for the sender of the inner one
// (RFC 2003, 4; RFC 2473, 8): a smaller MTU, or that the host cannot be reached. ok is false for what says nothing to the
// sender: an MTU that is none, below 68, or 1280 for IPv6 inside, and one that is no smaller than the way is known to have.
func TunnelError(b []byte, p *packet.Packet, be *table.Backend, inner6 bool) (e Error, ok bool) {
	m := b[p.L4:]
	mtu, over := 0, be.Overhead()
	switch {
	case p.V6 && m[0] == icmp6TooBig:
		mtu = int(min(binary.BigEndian.Uint32(m[4:]), 0xffff))
	case !p.V6 && m[0] == icmpUnreachable && m[1] == codeFragNeeded:
		if mtu = int(binary.BigEndian.Uint16(m[6:])); mtu == 0 {
			mtu = plateauBelow(min(int(binary.BigEndian.Uint16(m[packet.QuoteLen+2:])), int(be.Limit)+over))
		}
	case !p.V6 && m[0] == icmpQuench:
		return Error{}, false
	default:
		return Error{Type4: icmpUnreachable, Code4: codeHost4, Type6: icmp6Unreachable, Code6: codeAddress6}, true
	}
	mtu -= over
	return TooBig(mtu), mtu >= LeastMTU(inner6) && mtu < int(be.Limit)
}

// plateaus are the MTUs that links have (RFC 1191, 7.1).
var plateaus = [...]int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, minMTU4}

// plateauBelow guesses the MTU of a link that a packet of size bytes was too big for, whose router does not tell it, as those
// before RFC 1191 (5): the next lower one of the plateaus, 0 if there is none.
func plateauBelow(size int) int {
	for _, mtu := range plateaus {
		if mtu < size {
			return mtu
		}
	}
	return 0
}

// LeastMTU is the smallest MTU that a host may be told of: what every link must carry (RFC 791; RFC 8200, 5).
func LeastMTU(v6 bool) int {
	if v6 {
		return minMTU6
	}
	return minMTU4
}

const (
	icmpQuench    = 4
	icmpParameter = 12
	codeHost4     = 1 // host unreachable
	codeAddress6  = 3 // address unreachable

	minMTU4 = 68   // RFC 791
	minMTU6 = 1280 // RFC 8200
)

// Inner finds the packet within an outer one that q is the quote of: it returns where it starts in frame b, and of which
// family it is. ok is false when q is no tunnel's, or the quote ends before. See TUN for what lies between.
func Inner(b []byte, q *packet.Packet) (at int, v6, ok bool) {
	at = int(q.L4)
	proto := q.Proto
	switch proto {
	case packet.ProtoUDP:
		if at += packet.UDPLen + table.GUELen; at > int(q.End) || b[at-table.GUELen] != 0 {
			return 0, false, false
		}
		proto = b[at-table.GUELen+1]
	case protoGRE:
		if at+table.GRELen > int(q.End) {
			return 0, false, false
		}
		flags, etherType := binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:])
		at += table.GRELen
		if flags&greSum != 0 {
			at += table.GRESumLen
		}
		switch {
		case flags&^greSum != 0:
			return 0, false, false
		case etherType == packet.EtherIPv4:
			proto = packet.ProtoIPIP
		case etherType == packet.EtherIPv6:
			proto = packet.ProtoIPv6
		}
	}
	return at, proto == packet.ProtoIPv6, (proto == packet.ProtoIPIP || proto == packet.ProtoIPv6) && at < int(q.End)
}

// Relay makes of the frame at off in chunk, an ICMP error p about a tunnel's packet, the error e about the inner packet,
// which starts at byte at of the frame: from src, to the sender of the inner packet by way of eth. VLAN tags stay. It
// returns the new start and length; ok is false where no error may be sent, or for want of room.
func Relay(chunk []byte, off int, p, inner *packet.Packet, at int, src packet.Addr, eth *[12]byte, e Error) (start, length int, ok bool) {
	l3 := int(p.L3)
	begin := off + at - l3 // of a frame that would have brought the inner packet
	b := chunk[begin:]
	copy(b[12:l3], chunk[off+12:off+l3])
	copy(b[:6], eth[6:])
	copy(b[6:12], eth[:6])
	etherType := uint16(packet.EtherIPv4)
	if inner.V6 {
		etherType = packet.EtherIPv6
	}
	binary.BigEndian.PutUint16(b[l3-2:], etherType)
	about := packet.Packet{Src: inner.Src, L3: p.L3, L4: inner.L4, End: p.End - uint16(at-l3), V6: inner.V6}
	return ICMP(chunk, begin, &about, src, e)
}
