package packet

import "encoding/binary"

// QuoteLen is how much of an ICMP error precedes the packet that it quotes (RFC 792, RFC 4443).
const QuoteLen = ICMPLen

// ParseQuote reads the packet that an ICMP error quotes into q: b is the frame, p the ICMP message. Only as much of
// it needs to be there as names its flow: the IP header and 8 bytes (RFC 792); q.End is where the quote ends, not
// where the packet did. Kind is KindTCP or KindUDP; KindOther, L4 alone being valid, for another protocol;
// KindFragment for a later fragment, which has no ports; and KindMalformed.
func (p *Packet) ParseQuote(b []byte, q *Packet) {
	parseQuote(b, int(p.L4)+QuoteLen, int(p.End), p.V6, q)
}

// ParseInner reads in the same way the packet that is quoted within q's, a tunnel's, from offset at on.
func (p *Packet) ParseInner(b []byte, at int, v6 bool, q *Packet) {
	parseQuote(b, at, int(p.End), v6, q)
}

func parseQuote(b []byte, l3, end int, v6 bool, q *Packet) {
	*q = Packet{Kind: KindMalformed, V6: v6, L3: 0, End: uint16(end)}
	head := IPv4Len
	if v6 {
		head = IPv6Len
	}
	if l3+head > end {
		return
	}
	h := b[l3:end]
	if v6 {
		if h[0]>>4 != 6 {
			return
		}
		q.Src, q.Dst, q.Proto, q.TTL = Addr16(h[8:]), Addr16(h[24:]), h[6], h[7]
		if q.Src.Is4() || q.Dst.Is4() {
			return
		}
	} else {
		head = int(h[0]&15) * 4
		if h[0]>>4 != 4 || head < IPv4Len || head > len(h) {
			return
		}
		q.Src, q.Dst = Addr4(binary.LittleEndian.Uint32(h[12:])), Addr4(binary.LittleEndian.Uint32(h[16:]))
		q.Proto, q.TTL = h[9], h[8]
	}
	q.L4 = uint16(l3 + head)
	if !v6 && binary.BigEndian.Uint16(h[6:])&0x1fff != 0 {
		q.Kind = KindFragment
		return
	}
	if v6 && !skipQuoted(b, q) {
		return
	}
	quotedPorts(b, q)
}

// skipQuoted moves past the extension headers of a quoted packet. A first fragment's header is one of them.
func skipQuoted(b []byte, q *Packet) bool {
	if skipExtensions(b, q) {
		return true
	}
	if q.Kind != KindFragment || binary.BigEndian.Uint16(b[q.L4-6:])&^7 != 0 {
		return false
	}
	q.Kind = KindMalformed
	return skipExtensions(b, q)
}

func quotedPorts(b []byte, q *Packet) {
	switch q.Proto {
	case ProtoTCP, ProtoUDP:
		if q.L4Len() < 8 {
			return
		}
		q.Ports = Ports(binary.LittleEndian.Uint32(b[q.L4:]))
		q.Kind = KindTCP
		if q.Proto == ProtoUDP {
			q.Kind = KindUDP
		}
	default:
		q.Kind = KindOther
	}
}
