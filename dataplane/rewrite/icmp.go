package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
)

// ICMP and ICMPv6 types and codes that a director sends or answers (RFC 792, RFC 1191, RFC 4443).
const (
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpEchoRequest  = 8
	icmpTimeExceeded = 11
	codeFragNeeded   = 4
	codePort4        = 3

	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
	icmp6EchoRequest  = 128
	icmp6EchoReply    = 129
	codePort6         = 4

	icmpTTL = 64
	// maxQuote4 keeps an ICMP error within 576 bytes (RFC 1812, 4.3.2.3); maxQuote6 within
	// the minimum MTU of IPv6 (RFC 4443, 2.4 c).
	maxQuote4 = 576 - packet.IPv4Len - packet.ICMPLen
	maxQuote6 = 1280 - packet.IPv6Len - packet.ICMPLen
)

// An Error is an ICMP message about a packet: its type and code in either family, and the MTU it reports.
type Error struct {
	Type4, Code4 uint8
	Type6, Code6 uint8
	MTU          int // 0: none
}

// TimeExceeded says that the packet's TTL ran out.
func TimeExceeded() Error { return Error{Type4: icmpTimeExceeded, Type6: icmp6TimeExceeded} }

// TooBig says that no more than mtu bytes get through: fragmentation needed, or packet too big.
func TooBig(mtu int) Error {
	return Error{Type4: icmpUnreachable, Code4: codeFragNeeded, Type6: icmp6TooBig, MTU: mtu}
}

// PortUnreachable says that the service has no backend, as IPVS does, for TCP too.
func PortUnreachable() Error {
	return Error{Type4: icmpUnreachable, Code4: codePort4, Type6: icmp6Unreachable, Code6: codePort6}
}

// MayAnswer reports whether packet p in frame b may be answered with an error: not one whose source address is nobody's, nor one
// sent to a group's MAC address (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
func MayAnswer(b []byte, p *packet.Packet) bool { return b[0]&1 == 0 && !p.Src.Martian() }

// ICMP turns the frame at off in chunk into an ICMP error about itself, on its way back to the sender:
// MAC addresses exchanged, source src. It returns the new start and length. ok is false for what must not be
// answered, see MayAnswer, and where there is no room in the chunk.
func ICMP(chunk []byte, off int, p *packet.Packet, src packet.Addr, e Error) (start, length int, ok bool) {
	b := chunk[off:]
	if !MayAnswer(b, p) {
		return 0, 0, false
	}
	l3, head, quote := int(p.L3), packet.IPv4Len+packet.ICMPLen, maxQuote4
	if p.V6 {
		head, quote = packet.IPv6Len+packet.ICMPLen, maxQuote6
	}
	quoted := min(int(p.End)-l3, quote)
	if off < head {
		return 0, 0, false
	}
	if p.Unfinished {
		p.Finish(b, p.Src, p.Dst)
	}
	// The quoted packet stays where it is; the new headers go in front of it.
	start = off - head
	out := chunk[start:]
	var eth [packet.MaxL2Len]byte
	copy(eth[:l3], b[:l3])
	copy(out[:6], eth[6:12])
	copy(out[6:12], eth[:6])
	copy(out[12:l3], eth[12:l3])
	ip := out[l3 : l3+head+quoted]
	if p.V6 {
		error6(ip, src, p.Src, e)
	} else {
		error4(ip, src, p.Src, e)
	}
	return start, l3 + head + quoted, true
}

func error4(ip []byte, src, dst packet.Addr, e Error) {
	header4(ip[:packet.IPv4Len], len(ip), src, dst)
	m := ip[packet.IPv4Len:]
	m[0], m[1] = e.Type4, e.Code4
	binary.BigEndian.PutUint32(m[4:], uint32(e.MTU)&0xffff) // RFC 1191, 4: the MTU in the low half
	setICMPSum(m, 0)
}

func error6(ip []byte, src, dst packet.Addr, e Error) {
	header6(ip[:packet.IPv6Len], len(ip)-packet.IPv6Len, src, dst)
	m := ip[packet.IPv6Len:]
	m[0], m[1] = e.Type6, e.Code6
	binary.BigEndian.PutUint32(m[4:], uint32(e.MTU))
	setICMPSum(m, packet.PseudoSum(src, dst, packet.ProtoICMPv6, len(m)))
}

func header4(h []byte, total int, src, dst packet.Addr) {
	h[0], h[1] = 0x45, 0xc0 // RFC 1812, 4.3.2.5: internetwork control
	binary.BigEndian.PutUint16(h[2:], uint16(total))
	binary.BigEndian.PutUint32(h[4:], 0x00004000) // no identification needed: DF
	h[8], h[9] = icmpTTL, packet.ProtoICMP
	src.Put4(h[12:])
	dst.Put4(h[16:])
	packet.SetIPv4Sum(h)
}

func header6(h []byte, n int, src, dst packet.Addr) {
	binary.BigEndian.PutUint32(h, 6<<28)
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	h[6], h[7] = packet.ProtoICMPv6, icmpTTL
	src.Put16(h[8:])
	dst.Put16(h[24:])
}

func setICMPSum(m []byte, pseudo uint64) {
	binary.LittleEndian.PutUint16(m[2:], 0)
	binary.LittleEndian.PutUint16(m[2:], ^packet.Fold(packet.Sum(m, pseudo)))
}

// IsEcho reports whether an ICMP packet is an echo request that may be answered: not one whose
// source is nobody's address, nor one sent to a group's MAC address, so that nobody makes a crowd of directors answer at once.
func IsEcho(b []byte, p *packet.Packet) bool {
	t := b[p.L4]
	return (t == icmpEchoRequest && !p.V6 || t == icmp6EchoRequest && p.V6) && MayAnswer(b, p)
}

// Echo turns an echo request into its reply, on its way back (RFC 792, RFC 4443 4.2). A request with a
// wrong checksum gives a reply with a wrong one.
func Echo(b []byte, p *packet.Packet) {
	var eth [6]byte
	copy(eth[:], b[:6])
	copy(b[:6], b[6:12])
	copy(b[6:12], eth[:])
	h, m := b[p.L3:], b[p.L4:]
	if p.V6 {
		p.Dst.Put16(h[8:])
		p.Src.Put16(h[24:])
		h[7] = icmpTTL
		m[0] = icmp6EchoReply
		packet.Update(m[2:], icmp6EchoRequest, icmp6EchoReply)
		return
	}
	p.Dst.Put4(h[12:])
	p.Src.Put4(h[16:])
	h[8] = icmpTTL
	packet.SetIPv4Sum(h[:int(p.L4)-int(p.L3)])
	m[0] = icmpEchoReply
	packet.Update(m[2:], icmpEchoRequest, icmpEchoReply)
	if m[2]|m[3] == 0 && packet.Sum(m[:p.L4Len()], 0) == 0 {
		m[2], m[3] = 0xff, 0xff // a message of nothing but zeros: what equation 3 of RFC 1624 cannot give
	}
}
